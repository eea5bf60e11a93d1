"""How much memory and disk a training run needs, printed before it takes any.

The networks are built and called on the device "meta", where tensors have shapes but no memory.
"""

import shutil
import sys
from dataclasses import replace
from typing import NamedTuple

import psutil
import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from baselines import build_model
from baselines.width import any_geometry
from deep_voxels import Architecture
from files.runs import BEST
from losses import PatchDiscriminator, StructureLoss
from machine.options import Run
from machine.ranks import Ranks
from training.muon import kernels_of
from training.options import Learning, Records

GIB = 2**30
LIBRARIES = GIB // 4  # what PyTorch loads in the first steps, on a CPU


class Needs(NamedTuple):
    """Bytes that training takes.

    In memory, besides what the process holds already:
    state: weights, optimizers, volume and the average of the weights. step: activations, or
    gradients if larger, since the backward pass frees activations while it makes gradients.

    In a checkpoint:
    weights: of both networks, with the volume and the average. optimizers: their state.
    """

    state: int
    step: int
    weights: int
    optimizers: int


def training_needs(architecture: Architecture, learning: Learning) -> Needs:
    """What a run needs, as PyTorch's own layers take it in float32."""
    kept = {}  # what the backward pass will need, by its address

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage._cdata] = storage
        return tensor

    side = architecture.img_sidelength
    with torch.device("meta"):
        model = build_model(learning.model, architecture, any_geometry(architecture))
        discriminator = PatchDiscriminator()
        with saved_tensors_hooks(keep, lambda tensor: tensor):
            rendering, _ = model(
                torch.empty(learning.num_sources, 3, side, side),
                torch.empty(learning.num_sources, 4, 4),
                torch.empty(learning.num_trgt, 4, 4),
            )
            truth = torch.empty_like(rendering.images)
            discriminator(rendering.images)
            discriminator(truth)
            if learning.ssim_weight:
                StructureLoss()(rendering.images, truth)
    parameters = [*model.parameters(), *discriminator.parameters()]
    gradients = sum(parameter.nbytes for parameter in parameters)
    moments = 2 * gradients  # ADAM's; MUON has one
    if learning.optimizer == "muon":
        moments -= sum(kernel.nbytes for kernel in kernels_of(model))
    state = gradients + moments + sum(buffer.nbytes for buffer in model.buffers())
    average = 0
    if learning.average:
        average = sum(tensor.nbytes for tensor in model.state_dict().values())
    saved = [*model.state_dict().values(), *discriminator.state_dict().values()]
    for tensor in [*parameters, *model.buffers()]:
        kept.pop(tensor.untyped_storage()._cdata, None)
    return Needs(
        state + average,
        max(gradients, sum(storage.nbytes() for storage in kept.values())),
        sum(tensor.nbytes for tensor in saved) + average,
        moments,
    )


def needs_of_rank(architecture: Architecture, learning: Learning, ranks: Ranks) -> Needs:
    """What each rank needs: ranks share the target views."""
    return training_needs(
        architecture, replace(learning, num_trgt=learning.num_trgt // ranks.count)
    )


def report_memory(needs: Needs, device: torch.device, ranks: Ranks, precision: str) -> None:
    """Prints what a process needs, and warns if that is more than there is, with what needs less.
    The processes of one machine share its memory; each has a GPU of its own."""
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
    more = sharing * (total - held)
    if more > free:
        less = "a smaller --size"
        if precision != "bf16":
            less += " or --precision bf16"
        print(
            f"warning: training needs about {more / GIB:.1f} GiB more than now, and {device} has "
            f"{free / GIB:.1f} GiB left; it needs less with {less}; --img_sidelength, --grid_dim, "
            "--num_grid_feats, --nf0 and --num_trgt decide how much",
            file=sys.stderr,
        )


def report_disk(needs: Needs, run: Run, records: Records) -> None:
    """Prints how much disk a run's checkpoints take: those that it keeps, and one more while it is
    saved. Warns if that is more than there is."""
    whole = needs.weights + needs.optimizers
    rest = needs.weights if records.keep_optimizer == "last" else whole
    best = needs.weights if records.validate_every else 0
    with_best = f", {shown_size(best)} for the best" if best else ""
    if not records.keep_checkpoints:
        print(
            f"disk: {shown_size(whole)} under {run.logging_root} for the newest checkpoint, "
            f"{shown_size(rest)} for each other{with_best}; all are kept, one every "
            f"{records.checkpoint_every} steps or {records.checkpoint_minutes:g} minutes"
        )
        return
    # The newest and the one that is being saved are whole.
    total = 2 * whole + (records.keep_checkpoints - 1) * rest + best
    print(
        f"disk: up to {shown_size(total)} under {run.logging_root} ({records.keep_checkpoints} "
        f"checkpoints: the newest {shown_size(whole)}, others {shown_size(rest)}{with_best}; and "
        "one more while it is saved)",
        flush=True,
    )
    there = 0
    if run.resume:
        saved = [*run.resume.parent.glob("model-*.pth"), *run.resume.parent.glob(BEST)]
        there = sum(path.stat().st_size for path in saved)
    root = run.logging_root.absolute()
    existing = next(folder for folder in [root, *root.parents] if folder.is_dir())
    free = shutil.disk_usage(existing).free
    if total - there > free:
        print(
            f"warning: checkpoints take up to {shown_size(total - there)} more, and "
            f"{run.logging_root} has {shown_size(free)} left; --keep_checkpoints and "
            "--keep_optimizer decide what they take",
            file=sys.stderr,
        )


def shown_size(size: int) -> str:
    """A number of bytes for people."""
    return f"{size / GIB:.1f} GiB" if size >= GIB else f"{size / 2**20:.0f} MiB"
