"""What `--precision` means, set in one place: the arithmetic of the networks' convolutions.

fp32: float32, also on CUDA, where PyTorch itself would take TF32. tf32: TF32 (float32 inputs rounded to 10 bits of
mantissa, sums in float32), on CUDA alone. bf16: bfloat16 by autocast. Whatever it is, cameras, sampling, softmax, the
statistics of batch norms, the GRU's mixing, the volume, losses, weights and optimizers stay in float32.
"""
import os

import torch

from util import InputError

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
