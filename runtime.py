"""What `--precision` means, set in one place: the arithmetic of the networks' convolutions.

fp32: float32, also on CUDA, where PyTorch itself would take TF32. tf32: TF32 (float32 inputs rounded to 10 bits of
mantissa, sums in float32), on CUDA alone. bf16: bfloat16 by autocast. Whatever it is, cameras, sampling, softmax, the
statistics of batch norms, the GRU's mixing, the volume, losses, weights and optimizers stay in float32.
"""
import ctypes
import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from torch import nn

from util import InputError

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -3, -4  # of malloc.h
PRECISIONS = ["fp32", "tf32", "bf16"]


def set_arithmetic(precision: str, device: torch.device, deterministic: bool = False) -> None:
    """Makes PyTorch compute as the options say. Deterministic algorithms: where it has them; it warns where not (on
    CUDA, those of `grid_sample`)."""
    if precision == "tf32" and device.type != "cuda":
        raise InputError(f"--precision tf32: is arithmetic of CUDA devices, not of --device {device}")
    torch.backends.cuda.matmul.allow_tf32 = False  # cameras are matrix products
    torch.backends.cudnn.allow_tf32 = precision == "tf32"
    torch.backends.cudnn.benchmark = not deterministic  # shapes are fixed, so the fastest algorithm is sought once
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=True)


def autocast(precision: str, device: torch.device) -> torch.autocast:
    """The context in which the networks are called."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


def keep_freed_memory(everything: bool) -> None:
    """Lets glibc keep what a step or a frame frees for the next one; handed back to the system, it would have to be
    cleared page by page before its next use.

    `everything` is for a test or training in bfloat16, which need less memory. Training in float32 keeps up to 256 MiB,
    and hands back what was over 32 MiB at once, lest the rest fragments.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(M_MMAP_THRESHOLD, 32 * 2 ** 20)
        libc.mallopt(M_MMAP_MAX, 0 if everything else 2 ** 16)
        libc.mallopt(M_TRIM_THRESHOLD, 2 ** 31 - 1 if everything else 256 * 2 ** 20)


def describe_machine(device: torch.device) -> dict[str, str | int]:
    """Versions, device and git commit: what a run's `options.json` says about where it ran."""
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True,
                            check=False).stdout.strip()
    return {"python": platform.python_version(), "torch": torch.__version__, "torchvision": version("torchvision"),
            "numpy": np.__version__, "git_commit": commit or "unknown", "threads": torch.get_num_threads(),
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or "cpu"}


def channels_last_(module: nn.Module) -> nn.Module:
    """Stores a module's convolution weights channels-last, the layout in which convolutions run fastest."""
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    for parameter in module.parameters():
        if parameter.dim() in formats:
            parameter.data = parameter.data.contiguous(memory_format=formats[parameter.dim()])
    return module


def uses_cpu_kernels(kernels: str, device: torch.device, compiled: bool) -> bool:
    """Whether `--kernels` has the model accelerated by `cpu_kernels`: on the CPU, where it is not compiled."""
    return kernels == "auto" and device.type == "cpu" and not compiled
