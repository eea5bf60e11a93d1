"""The comparison of a kernel's self-check."""

import torch
from torch import Tensor


def require_close(found: Tensor, expected: Tensor, rtol: float, atol: float) -> None:
    """Raises `ArithmeticError` unless the tensors are equal but for rounding.

    `torch.testing.assert_close` does the same, but first imports `torch.distributed.tensor`, which
    takes half a second.
    """
    if not torch.allclose(found, expected, rtol, atol):
        difference = float((found - expected).abs().max())
        raise ArithmeticError(f"results differ by up to {difference:.2g}")
