"""Three training steps at the paper's size on a GPU that is not there, for test_cuda.py.

    python -m tests.machine.fake_step PRELOADED OPTIMIZER PRECISION

PRELOADED is the library of `NUMBER_OF_GPUS` in test_cuda.py. Prints as JSON what the last step
did, and what any did with tensors of host and GPU at once. Whatever asks a tensor for a value,
as each wait for the device does, raises, and so does an operation on tensors of several devices.
"""

import ctypes
import json
import sys
from collections import Counter

import numpy as np
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils import _foreach_utils
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from dataio import Views
from deep_voxels import SIZES, DeepVoxels
from losses import LossWeights, PatchDiscriminator
from machine.runtime import channels_last_
from projection import SceneGeometry
from training.data import load_batch
from training.networks import Networks, make_optimizers
from training.recipes import LearningRate, WeightAverage
from training.step import train_step
from training.turned_targets import TurnedTargets

PAPER = SIZES["paper"]
GEOMETRY = SceneGeometry(32, 1 / 32, (0.0, 0.0, 0.0), 1.0, 64, 128.0, 32.0, 32.0)
NO_OPERATIONS = ("prim", "profiler")  # questions of Python's to a tensor; marks for a profiler
ALLOCATIONS = ("empty", "new_empty")
META = torch.library.Library("aten", "IMPL", "Meta")


class Operations(TorchDispatchMode):
    """The operations while this is active.

    dispatched: how many there were. launched: those of them that compute something, at least one
    kernel each on a GPU. on_host: how many took and gave tensors of the host alone. elsewhere:
    those that mixed host and GPU, but for copies from pinned memory that do not wait. convolutions:
    their number by the type of the result. flop: of convolutions and matrix products. bytes_moved:
    the bytes of all tensors that operations which compute read and write; caches, and kernels that
    do several operations, move fewer.
    """

    def __init__(self):
        super().__init__()
        self.dispatched = 0
        self.launched = 0
        self.on_host = 0
        self.elsewhere = []
        self.pinned = []
        self.convolutions = Counter()
        self.flop = 0
        self.bytes_moved = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function._schema.name.removeprefix("aten::")
        if name == "is_pinned":
            return any(args[0] is tensor for tensor in self.pinned)
        if name == "_pin_memory":  # there is no fake one
            self.pinned.append(args[0].clone())
            return self.pinned[-1]
        result = function(*args, **(kwargs or {}))
        if function.namespace in NO_OPERATIONS:
            return result
        self.dispatched += 1
        tensors = tensors_of((args, kwargs, result))
        if not (function.is_view or name.startswith(ALLOCATIONS)):
            self.launched += 1
            self.bytes_moved += sum(tensor.nbytes for tensor in tensors)
            if result is None:  # it wrote into its arguments
                written = [
                    value
                    for argument, value in zip(function._schema.arguments, args, strict=False)
                    if argument.alias_info is not None and argument.alias_info.is_write
                ]
                self.bytes_moved += sum(tensor.nbytes for tensor in tensors_of(written))
        count_flop = flop_registry.get(function._overloadpacket)
        if count_flop is not None:
            self.flop += count_flop(*args, **(kwargs or {}), out_val=result)
        devices = {tensor.device.type for tensor in tensors}
        self.on_host += devices == {"cpu"}
        if len(devices) > 1 and not self.is_copy_without_wait(name, args, kwargs):
            self.elsewhere.append(f"{function} {[str(tensor.device) for tensor in tensors]}")
        if name == "convolution":
            self.convolutions[str(result.dtype)] += 1
        return result

    def is_copy_without_wait(self, name: str, args: tuple, kwargs: dict | None) -> bool:
        """Whether an operation is `pinned.to("cuda", non_blocking=True)`."""
        from_pinned = any(args[0] is tensor for tensor in self.pinned)
        return name == "_to_copy" and from_pinned and bool((kwargs or {}).get("non_blocking"))


def tensors_of(values: object) -> list[torch.Tensor]:
    return [value for value in tree_leaves(values) if isinstance(value, torch.Tensor)]


def pretend_to_have_gpus(preloaded: str) -> None:
    """Tells PyTorch that there are GPUs where it would refuse to go on: while the engine of
    autograd runs, and where autocast begins."""
    gpus = ctypes.c_int.in_dll(ctypes.CDLL(preloaded), "gpus")
    run_backward = torch.autograd._engine_run_backward

    def run_backward_on_gpus(*args, **kwargs):
        gpus.value = 127
        try:
            return run_backward(*args, **kwargs)
        finally:
            gpus.value = 0

    torch.autograd._engine_run_backward = run_backward_on_gpus
    torch.autograd.set_multithreading_enabled(False)
    torch.cuda.amp.common.amp_definitely_not_available = lambda: False
    torch.cuda.is_bf16_supported = lambda: True
    # Foreach operations are one on CUDA; for types that PyTorch does not know it takes many.
    _foreach_utils._foreach_supported_types.append(FakeTensor)
    # PyTorch has a fake kernel of fused ADAM for learning rates that are numbers alone.
    META.impl("_fused_adam_.tensor_lr", lambda *_, **__: None)


def new_networks(optimizer: str) -> Networks:
    model, average, discriminator = (
        channels_last_(network)
        for network in (
            DeepVoxels(PAPER, GEOMETRY),
            DeepVoxels(PAPER, GEOMETRY),
            PatchDiscriminator(),
        )
    )
    weight_average = WeightAverage(nn.Identity(), 0.99)  # fake tensors cannot be deep-copied
    weight_average.module = average.eval().requires_grad_(False)
    optimizers = make_optimizers(model, discriminator, 1e-3, optimizer)
    return Networks(model, discriminator, PAPER, optimizers, weight_average)


def main(preloaded: str, optimizer: str, precision: str) -> None:
    pretend_to_have_gpus(preloaded)
    # cuDNN is off, since `grid_sample` has no fake kernel there.
    with torch.backends.cudnn.flags(enabled=False), FakeTensorMode(allow_non_fake_inputs=False):
        with torch.device("cuda"):
            networks = new_networks(optimizer)
            side = PAPER.img_sidelength
            images = torch.zeros(4, 3, side, side, dtype=torch.uint8)
            views = Views(images, torch.eye(4).repeat(4, 1, 1))
            originals = torch.zeros(4, 3, 2 * side, 2 * side, dtype=torch.uint8)
        matrix = torch.eye(3, dtype=torch.float64)
        turning = TurnedTargets(originals, matrix, side, roll=15.0, tilt=2.0, seed=0)
        rate = LearningRate(networks.optimizers.values(), 1e-3, 0.5, range(4))
        elsewhere = []
        earlier = None
        for step in (1, 2, 3):  # the first makes the optimizers' state, and its targets are turned
            triplet = np.array([0, 1, 2])
            with Operations() as operations:
                batch = load_batch(views, triplet)
                if step == 1:
                    batch = turning.turn(batch, triplet[1:], step)
                else:
                    batch = earlier = batch.in_place_of(earlier)
                result = train_step(networks, batch, LossWeights(volume_limit=10.0), precision)
                rate.set_after(step)
                networks.average.update(networks.model, step)
            elsewhere += operations.elsewhere
        read_later = (*result.losses.known.values(), result.finite, networks.found_inf)
        devices = {str(value.device) for value in read_later}
    print(
        json.dumps(
            {
                "dispatched": operations.dispatched,
                "launched": operations.launched,
                "gflop": round(operations.flop / 1e9),
                "gigabytes": round(operations.bytes_moved / 1e9, 1),
                "on_host": operations.on_host,
                "elsewhere": elsewhere,
                "convolutions": operations.convolutions,
                "devices": sorted(devices),
            }
        )
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
