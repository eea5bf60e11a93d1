"""How much memory and disk a training run needs, told before any of it is taken.

The networks are built and called on the device "meta", where tensors have shapes but no memory.
"""

import shutil
import sys
from argparse import Namespace
from pathlib import Path
from typing import NamedTuple

import psutil
import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from baselines import build_model
from deep_voxels import architecture_of
from losses import PatchDiscriminator
from machine.ranks import Ranks
from projection import SceneGeometry
from training.data import sources_of_a_step
from training.muon import kernels_of

GIB = 2**30
LIBRARIES = GIB // 4  # what PyTorch loads in the first steps, on a CPU


class Needs(NamedTuple):
    """Bytes that training takes, in memory besides what the process holds already, and in a
    checkpoint.

    state: weights, optimizers, volume and the average of the weights. step: what the forward pass
    keeps for the backward pass, or the gradients if they are more: these come while those go.
    weights, optimizers: the two parts of a checkpoint, the first with the volume and the average.
    """

    state: int
    step: int
    weights: int
    optimizers: int


def training_needs(opt: Namespace) -> Needs:
    """What a run with these options needs, as PyTorch's own layers take it in float32."""
    kept = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage._cdata] = storage
        return tensor

    side = opt.img_sidelength
    geometry = SceneGeometry(
        opt.grid_dim,
        1 / opt.grid_dim,
        (0.0, 0.0, 0.0),
        1.0,
        opt.proj_sidelength,
        focal=1.0,
        cx=0.0,
        cy=0.0,
    )
    with torch.device("meta"):
        model = build_model(opt.model, architecture_of(opt), geometry)
        discriminator = PatchDiscriminator()
        with saved_tensors_hooks(keep, lambda tensor: tensor):
            sources = sources_of_a_step(opt)
            rendering, _ = model(
                torch.empty(sources, 3, side, side),
                torch.empty(sources, 4, 4),
                torch.empty(opt.num_trgt, 4, 4),
            )
            discriminator(rendering.images)
            discriminator(torch.empty_like(rendering.images))
    parameters = [*model.parameters(), *discriminator.parameters()]
    gradients = sum(parameter.nbytes for parameter in parameters)
    moments = 2 * gradients  # ADAM's; MUON has one
    if opt.optimizer == "muon":
        moments -= sum(kernel.nbytes for kernel in kernels_of(model))
    state = gradients + moments + sum(buffer.nbytes for buffer in model.buffers())
    average = sum(tensor.nbytes for tensor in model.state_dict().values()) if opt.average else 0
    saved = [*model.state_dict().values(), *discriminator.state_dict().values()]
    for tensor in [*parameters, *model.buffers()]:
        kept.pop(tensor.untyped_storage()._cdata, None)
    return Needs(
        state + average,
        max(gradients, sum(storage.nbytes() for storage in kept.values())),
        sum(tensor.nbytes for tensor in saved) + average,
        moments,
    )


def report_needs(opt: Namespace, device: torch.device, ranks: Ranks) -> None:
    """Prints what a run needs; warns where that is more than there is."""
    needs = training_needs(Namespace(**{**vars(opt), "num_trgt": opt.num_trgt // ranks.count}))
    report_memory(needs, device, ranks)
    report_disk(needs, opt)


def report_memory(needs: Needs, device: torch.device, ranks: Ranks) -> None:
    """Prints what a process needs. Those of one machine share its memory, but no GPU."""
    if device.type == "cuda":
        program = 0
        held = 0
        free = torch.cuda.mem_get_info(device)[0]
    else:
        held = psutil.Process().memory_info().rss
        free = psutil.virtual_memory().available
        program = held + LIBRARIES
    total = program + needs.state + needs.step
    sharing = 1 if device.type == "cuda" else ranks.local_count
    each = f" for each of {ranks.count} processes" if ranks.count > 1 else ""
    print(
        f"memory: about {total / GIB:.1f} GiB on {device}{each} (program {program / GIB:.1f}, "
        "weights and optimizers "
        f"{needs.state / GIB:.1f}, activations and gradients {needs.step / GIB:.1f})",
        flush=True,
    )
    if (more := sharing * (total - held)) > free:
        print(
            f"warning: training needs about {more / GIB:.1f} GiB more than now, and {device} has "
            f"{free / GIB:.1f} GiB left; --img_sidelength, --grid_dim, --num_grid_feats, --nf0 and "
            "--num_trgt decide "
            "what it needs",
            file=sys.stderr,
        )


def report_disk(needs: Needs, opt: Namespace) -> None:
    """Prints what the checkpoints that a run keeps will take, and the one more that is there while
    it is saved."""
    whole = needs.weights + needs.optimizers
    root = Path(opt.logging_root).absolute()
    rest = needs.weights if opt.keep_optimizer == "last" else whole
    if not opt.keep_checkpoints:
        print(
            f"disk: {shown_size(whole)} under {opt.logging_root} for the newest checkpoint, "
            f"{shown_size(rest)} for "
            f"each other; all are kept, one every {opt.checkpoint_every} steps or "
            f"{opt.checkpoint_minutes:g} minutes"
        )
        return
    total = 2 * whole + (opt.keep_checkpoints - 1) * rest
    print(
        f"disk: up to {shown_size(total)} under {opt.logging_root} ({opt.keep_checkpoints} "
        "checkpoints: the newest "
        f"{shown_size(whole)}, others {shown_size(rest)}; and one more while it is saved)",
        flush=True,
    )
    there = (
        sum(path.stat().st_size for path in Path(opt.resume).parent.glob("model-*.pth"))
        if opt.resume
        else 0
    )
    free = shutil.disk_usage(
        next(folder for folder in [root, *root.parents] if folder.is_dir())
    ).free
    if total - there > free:
        print(
            f"warning: checkpoints take up to {shown_size(total - there)} more, and "
            f"{opt.logging_root} has "
            f"{shown_size(free)} left; --keep_checkpoints and --keep_optimizer decide what they "
            "take",
            file=sys.stderr,
        )


def shown_size(size: int) -> str:
    """A number of bytes for people."""
    return f"{size / GIB:.1f} GiB" if size >= GIB else f"{size / 2**20:.0f} MiB"
