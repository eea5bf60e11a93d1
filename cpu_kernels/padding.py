"""Reflection padding that keeps nothing for the backward pass.

Under autocast it keeps the dtype, where PyTorch pads in float32.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from cpu_kernels import thresholds


def pad_in_own_dtype(
    x: Float[Tensor, "b c *size"],
    padding: tuple[int, ...],
    mode: str,
) -> Float[Tensor, "b c *size_out"]:
    """`F.pad`, which autocast would compute in float32."""
    if not torch.is_autocast_enabled("cpu"):  # the usual case, without the price of a context
        return F.pad(x, padding, mode)
    with torch.autocast("cpu", enabled=False):
        return F.pad(x, padding, mode)


class FastReflectionPad2d(nn.ReflectionPad2d):
    """Reflection padding by one pixel."""

    STANDS_FOR = ("torch.nn:ReflectionPad2d.forward",)

    @staticmethod
    def supports(pad: nn.ReflectionPad2d) -> bool:
        return pad.padding == (1, 1, 1, 1)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h+2 w+2"]:
        if x.numel() >= thresholds.LEAN_MIN_ELEMENTS and torch.is_grad_enabled():
            return _ReflectionPad2d.apply(x)
        return pad_in_own_dtype(x, self.padding, "reflect")


class _ReflectionPad2d(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h+2 w+2"]:
        return pad_in_own_dtype(x, (1, 1, 1, 1), "reflect")

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Float[Tensor, "b c h_out w_out"]) -> Float[Tensor, "b c h w"]:
        grad_x = grad[:, :, 1:-1, 1:-1].clone(memory_format=torch.channels_last)
        border = (0, -1)
        inner = (1, -2)
        for outside, inside in zip(border, inner, strict=True):
            grad_x[:, :, inside] += grad[:, :, outside, 1:-1]
            grad_x[:, :, :, inside] += grad[:, :, 1:-1, outside]
            for outside_column, inside_column in zip(border, inner, strict=True):
                grad_x[:, :, inside, inside_column] += grad[:, :, outside, outside_column]
        return grad_x
