"""Convolutions of large maps and volumes that compute the weights' gradient from contiguous copies.

Without AVX-512, oneDNN computes the gradient of the weights from channels-last tensors of this size
at a fifth to a half of the speed that it reaches in the other two passes. With the copies, it takes
less time (docs/performance.md).
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from cpu_kernels import thresholds


def gains_from_copies(x: Float[Tensor, "b c *size"], weight: Tensor) -> bool:
    """Whether a convolution of this input has a faster gradient from copies."""
    return (
        x.numel() >= thresholds.COPIED_GRADIENT_MIN_ELEMENTS
        and min(weight.shape[:2]) >= thresholds.COPIED_GRADIENT_MIN_CHANNELS
        and weight.requires_grad
        and torch.is_grad_enabled()
        and not torch.is_autocast_enabled("cpu")
    )


class CopyingConv(torch.autograd.Function):
    """`F.conv2d` or `F.conv3d` without padding."""

    @staticmethod
    def forward(
        ctx,
        x: Float[Tensor, "b c *size"],
        weight: Float[Tensor, "c_out c *kernel"],
        bias: Float[Tensor, "c_out"] | None,
        stride: int,
    ) -> Float[Tensor, "b c_out *size_out"]:
        ctx.save_for_backward(x, weight)
        ctx.stride = stride
        convolve = F.conv2d if x.dim() == 4 else F.conv3d
        return convolve(x, weight, bias, stride)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Float[Tensor, "b c_out *size_out"]) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        grad_x = None
        grad_bias = None
        if ctx.needs_input_grad[0]:
            grad_x = gradients(grad, x, weight, ctx.stride, [True, False, False])[0]
        grad_weight = gradients(
            grad.contiguous(), x.contiguous(), weight.contiguous(), ctx.stride, [False, True, False]
        )[1]
        if ctx.needs_input_grad[2]:
            grad_bias = grad.sum(dim=(0, *range(2, grad.dim())))
        return grad_x, grad_weight, grad_bias, None


def gradients(
    grad: Tensor, x: Tensor, weight: Tensor, stride: int, wanted: list[bool]
) -> tuple[Tensor | None, ...]:
    """The gradients of input, weights and bias that are wanted."""
    dims = x.dim() - 2
    return torch.ops.aten.convolution_backward(
        grad,
        x,
        weight,
        [len(weight)],
        [stride] * dims,
        [0] * dims,
        [1] * dims,
        False,
        [0] * dims,
        1,
        wanted,
    )
