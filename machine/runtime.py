"""The machine a run uses: its device, the precision of its arithmetic, its memory allocator, and a
description of it.

`--precision` sets the arithmetic of the networks' convolutions. fp32: float32, on CUDA too, where
PyTorch's default is TF32. tf32: TF32 (inputs rounded to a 10-bit mantissa, float32 sums), on CUDA
only. bf16: bfloat16 by autocast. auto: `fastest_precision`. Cameras, sampling, softmax, batch-norm
statistics, the GRU's mixing, the volume, losses, weights and optimizers are always float32.
"""

import ctypes
import os
import platform
import shlex
import shutil
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor, nn

from machine.installed import installed_version
from machine.options import option
from machine.version import VERSION, git_commit
from util import InputError

PRECISIONS = ["fp32", "tf32", "bf16"]
# A step is more than its products, so a small gain in these is none.
WORTH_BF16 = 1.5
# from malloc.h
M_TRIM_THRESHOLD = -1
M_MMAP_MAX = -4


@dataclass(frozen=True)
class Machine:
    """What a run computes on, and how."""

    device: str = option(
        "auto",
        "cpu, cuda, cuda:N, mps (untested), or auto: CUDA if it is available",
        resume="not inherited",
    )
    precision: str = option(
        "fp32",
        "arithmetic of the convolutions; tf32 is for CUDA only; auto: bf16 where its products are "
        "measured to be much faster than those of float32, else fp32",
        choices=[*PRECISIONS, "auto"],
    )
    kernels: str = option(
        "auto",
        "auto: cpu_kernels where they apply; plain: PyTorch's own layers only",
        resume="changeable",
        choices=["auto", "plain"],
    )
    compile: bool = option(False, "compile the networks with torch.compile", resume="not inherited")
    deterministic: bool = option(
        False, "on CUDA, use deterministic algorithms where PyTorch has them"
    )


def choose_device(name: str) -> str:
    """The device named by `--device`: 'auto' becomes 'cuda' or 'cpu'. Raises `InputError` for one
    that is not here."""
    if name == "auto":
        count, reason = cuda_devices()
        if reason:
            print(f"warning: {reason} The CPU computes instead.", file=sys.stderr)
        return "cuda" if count else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda", "mps"):
        raise InputError(f"--device {name}: is unknown; choose auto, cpu, cuda, cuda:N or mps")
    if device.type == "mps":
        if not torch.backends.mps.is_available():
            raise InputError(f"--device {name}: PyTorch finds no MPS device here")
        print(f"warning: --device {name}: nothing has been run on MPS yet", file=sys.stderr)
    if device.type == "cuda":
        count, reason = cuda_devices()
        if (device.index or 0) >= count:
            found = reason or f"PyTorch finds {count or 'no'} CUDA devices here"
            raise InputError(f"--device {name}: {found}")
    return name


@cache  # PyTorch warns once
def cuda_devices() -> tuple[int, str]:
    """How many CUDA devices PyTorch can use and, where it finds fewer than there may be, its
    reason, such as a driver that is too old."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    reasons = [str(warning.message).partition(" (Triggered internally")[0] for warning in caught]
    return count, " ".join(reason.removeprefix("CUDA initialization: ") for reason in reasons)


def fastest_precision(device_name: str) -> str:
    """What `--precision auto` stands for: bf16 where the device multiplies matrices of bfloat16 at
    least `WORTH_BF16` times as fast as those of float32, else fp32. Prints which, and why."""
    device = torch.device(device_name)
    shortest = {torch.float32: float("inf"), torch.bfloat16: float("inf")}
    for _ in range(5):  # in turns, and the shortest, since others may use the machine
        for dtype, seconds in shortest.items():
            shortest[dtype] = min(seconds, _seconds_of_product(dtype, device))
    fp32 = shortest[torch.float32]
    bf16 = shortest[torch.bfloat16]
    chosen = "bf16" if fp32 / bf16 >= WORTH_BF16 else "fp32"
    print(
        f"precision: {chosen}; products of bfloat16 take {bf16 / fp32:.2f} times as long as those "
        f"of float32 on {device}"
    )
    return chosen


def _seconds_of_product(dtype: torch.dtype, device: torch.device) -> float:
    side = 4096 if device.type == "cuda" else 512
    matrix = torch.ones(side, side, dtype=dtype, device=device)
    wait_for_device(device)
    start = time.perf_counter()
    matrix @ matrix
    wait_for_device(device)
    return time.perf_counter() - start


def wait_for_device(device: torch.device) -> None:
    """Returns once the device has done all that was launched on it; a CPU always has."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def set_arithmetic(precision: str, device: torch.device, deterministic: bool = False) -> None:
    """Sets PyTorch's global switches for a precision of `PRECISIONS`.

    `deterministic` selects deterministic algorithms where PyTorch has them. On CUDA it has them for
    convolutions and for the gradients of reflection and replication padding, and none for the
    gradient of `grid_sample`, of which it warns. Raises `InputError` for tf32 on a device other
    than CUDA.
    """
    if precision == "tf32" and device.type != "cuda":
        raise InputError(f"--precision tf32: exists on CUDA devices only, not on --device {device}")
    torch.backends.cuda.matmul.allow_tf32 = False  # cameras are matrix products
    torch.backends.cudnn.allow_tf32 = precision == "tf32"
    torch.backends.cudnn.benchmark = (
        not deterministic
    )  # shapes never change, so searching once pays off
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=True)


def autocast(precision: str, device: torch.device) -> torch.autocast:
    """The context in which the networks are called."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


def compile_for_training(*networks: nn.Module) -> None:
    """Compiles networks in place (`torch.compile`) so that two losses can go backward through the
    same graph."""
    try:
        # No public switch exists. Imported here because only --compile needs it.
        from torch._functorch import config

        config.donated_buffer = False
    except (ImportError, AttributeError):
        print(
            "warning: --compile: this PyTorch may refuse to go backward twice through a compiled "
            "graph",
            file=sys.stderr,
        )
    for network in networks:
        network.compile()


@contextmanager
def flushed_denormals() -> Iterator[None]:
    """Within it, numbers below 1.2e-38 are taken for 0, on processors that can.

    Intel's take a hundred cycles and more for an operation with one. The momentum of a kernel
    without gradient shrinks to such numbers within some hundred steps (0.8^390 is 1e-38), and stays
    there, since the smallest of them times 0.8 is rounded to itself. PyTorch sets this for the
    calling thread; its other threads inherit it when they start, so call this before anything is
    computed.
    """
    for kind in (np.float32, np.float64):
        np.finfo(kind)  # numpy before 2.4 would warn, the first time, of denormals that are missing
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


def keep_freed_memory() -> None:
    """Makes glibc keep all freed memory for the next step or frame; the system would clear it page
    by page on reuse. In float32, training takes more memory for it: 12 % at `large`, 17 % at the
    paper's size.

    Without glibc this does nothing.
    """
    try:
        libc = ctypes.CDLL(None)
    except TypeError:  # on Windows
        return
    if hasattr(libc, "mallopt"):
        libc.mallopt(M_MMAP_MAX, 0)
        libc.mallopt(M_TRIM_THRESHOLD, -1)  # never


def describe_machine(device: torch.device) -> dict[str, str | int]:
    """Versions, git commit and device, as recorded in a run's `options.json`."""
    return {
        "deepvoxels": VERSION,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": installed_version("torchvision"),
        "numpy": np.__version__,
        "git_commit": git_commit() or "unknown",
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else platform.processor() or "cpu",
    }


def to_device(values: Tensor, device: torch.device) -> Tensor:
    """Values of the host on the device. A GPU copies them from pinned memory, so that the host need
    not wait until all work launched before is done."""
    if device.type != "cuda":
        return values.to(device)
    return values.pin_memory().to(device, non_blocking=True)


def channels_last_(module: nn.Module) -> nn.Module:
    """Stores a module's convolution weights channels-last, the layout in which convolutions run
    fastest."""
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    for parameter in module.parameters():
        if parameter.dim() in formats:
            parameter.data = parameter.data.contiguous(memory_format=formats[parameter.dim()])
    return module


def uses_cpu_kernels(kernels: str, device: torch.device, compiled: bool) -> bool:
    """Whether `--kernels` has the model accelerated by `cpu_kernels`: on the CPU, where it is not
    compiled."""
    return kernels == "auto" and device.type == "cpu" and not compiled


def require_compiler(device: str) -> None:
    """Raises `InputError` if there is no compiler for `torch.compile` to call: one for C++ on a
    CPU, for C on CUDA."""
    if device.startswith("cuda"):
        language = "C"
        variable = "CC"
        usual = ["gcc", "clang"]
    else:
        language = "C++"
        variable = "CXX"
        usual = [{"darwin": "clang++", "win32": "cl"}.get(sys.platform, "g++")]
    names = shlex.split(os.environ.get(variable, ""))[:1] or usual
    if not any(map(shutil.which, names)):
        raise InputError(
            f"--compile: needs a {language} compiler, and {' or '.join(names)} is not installed "
            f"here; install one (on Debian: apt-get install g++) or name it in {variable}"
        )
