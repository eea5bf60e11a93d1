"""Exchanges a model's layers for faster ones with the same parameters, names and results."""

from collections import Counter
from functools import cache

import torch
from torch import nn

from cpu_kernels.avg_pool import FastAvgPool2d
from cpu_kernels.batch_norm import FastBatchNorm3d
from cpu_kernels.conv2d import FastConv2d, FastConvTranspose2d
from cpu_kernels.conv3d import FastConv3d, FastConvTranspose3d
from cpu_kernels.integration import FastIntegrationNet
from cpu_kernels.occlusion import FastOcclusionNet
from cpu_kernels.padding import FastReflectionPad2d
from cpu_kernels.sequential import FastSequential
from cpu_kernels.view_volumes import FastDeepVoxels
from cpu_kernels.written_for import stands, warn_left_out

KERNELS = [
    FastDeepVoxels,
    FastIntegrationNet,
    FastOcclusionNet,
    FastSequential,
    FastConv2d,
    FastConvTranspose2d,
    FastConv3d,
    FastConvTranspose3d,
    FastBatchNorm3d,
    FastReflectionPad2d,
    FastAvgPool2d,
]


def accelerate_(model: nn.Module) -> Counter[str]:
    """Exchanges every layer that a kernel supports, by exact type, and counts the exchanged ones by
    the kernel's name.

    A layer stays the object that it is and only changes its class to a subclass, so that names,
    parameters, hooks and references to it survive. A kernel is left out, with one warning, where
    the code that it stands for has been changed. For float32 or autocast to bfloat16 on a CPU,
    without `torch.compile`.
    """
    exchanged = Counter()
    for module in model.modules():
        kernel = kernel_for(module)
        if kernel is not None:
            module.__class__ = kernel
            exchanged[kernel.__name__] += 1
    return exchanged


def kernel_for(module: nn.Module) -> type[nn.Module] | None:
    """The kernel that may take the place of a module's class, if there is one."""
    if type(module) in KERNELS:
        return None
    for kernel in KERNELS:
        plain = kernel.__base__
        if type(module) is plain:
            if stands(kernel) and kernel.supports(module) and works(kernel):
                return kernel
        elif isinstance(module, plain):
            name = type(module).__name__
            warn_left_out(kernel.__name__, f"{name} is a subclass of {plain.__name__}")
    return None


@cache
def works(kernel: type[nn.Module]) -> bool:
    """Whether a kernel that needs more of PyTorch than its public interface still gets it; else
    warns, once."""
    try:
        if hasattr(kernel, "check"):
            kernel.check()
    except Exception as error:  # anything may have changed
        warn_left_out(
            kernel.__name__, f"it does not work with PyTorch {torch.__version__} ({error})"
        )
        return False
    return True
