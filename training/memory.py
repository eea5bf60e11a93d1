"""How much memory a training run needs, told before any of it is taken.

The networks are built and called on the device "meta", where tensors have shapes but no memory.
"""
import sys
from argparse import Namespace
from typing import NamedTuple

import psutil
import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from baselines import build_model
from deep_voxels import architecture_of
from losses import PatchDiscriminator
from projection import SceneGeometry

GIB = 2 ** 30
PER_PARAMETER = 3  # itself and ADAM's two moments
LIBRARIES = GIB // 4  # what PyTorch loads in the first steps, on a CPU


class Needs(NamedTuple):
    """Bytes that training takes, besides what the process holds already.

    state: weights, optimizers, volume and the average of the weights. step: what the forward pass keeps for the
    backward pass, or the gradients if they are more: these come while those go.
    """

    state: int
    step: int


def training_needs(opt: Namespace) -> Needs:
    """The memory that a run with these options needs, as PyTorch's own layers take it in float32."""
    kept = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage._cdata] = storage
        return tensor

    side = opt.img_sidelength
    geometry = SceneGeometry(opt.grid_dim, 1 / opt.grid_dim, (0.0, 0.0, 0.0), 1.0, opt.proj_sidelength,
                             focal=1.0, cx=0.0, cy=0.0)
    with torch.device("meta"):
        model, discriminator = build_model(opt.model, architecture_of(opt), geometry), PatchDiscriminator()
        with saved_tensors_hooks(keep, lambda tensor: tensor):
            rendering, _ = model(torch.empty(1, 3, side, side), torch.empty(1, 4, 4), torch.empty(opt.num_trgt, 4, 4))
            discriminator(rendering.images)
            discriminator(torch.empty_like(rendering.images))
    parameters = [*model.parameters(), *discriminator.parameters()]
    gradients = sum(parameter.nbytes for parameter in parameters)
    state = PER_PARAMETER * gradients + sum(buffer.nbytes for buffer in model.buffers())
    if opt.average:
        state += sum(tensor.nbytes for tensor in model.state_dict().values())
    for tensor in [*parameters, *model.buffers()]:
        kept.pop(tensor.untyped_storage()._cdata, None)
    return Needs(state, max(gradients, sum(storage.nbytes() for storage in kept.values())))


def report_needs(opt: Namespace, device: torch.device) -> None:
    """Prints what a run needs; warns where that is more than there is."""
    needs = training_needs(opt)
    if device.type == "cuda":
        program, held, free = 0, 0, torch.cuda.mem_get_info(device)[0]
    else:
        held, free = psutil.Process().memory_info().rss, psutil.virtual_memory().available
        program = held + LIBRARIES
    total = program + sum(needs)
    print(f"memory: about {total / GIB:.1f} GiB on {device} (program {program / GIB:.1f}, weights and optimizers "
          f"{needs.state / GIB:.1f}, activations and gradients {needs.step / GIB:.1f})", flush=True)
    if total - held > free:
        print(f"warning: training needs about {(total - held) / GIB:.1f} GiB more than now, and {device} has "
              f"{free / GIB:.1f} GiB left; --img_sidelength, --grid_dim, --num_grid_feats, --nf0 and --num_trgt decide "
              "what it needs", file=sys.stderr)
