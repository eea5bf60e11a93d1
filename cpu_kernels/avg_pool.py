"""Means over windows that overlap, as the loss of structure takes them."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class FastAvgPool2d(nn.AvgPool2d):
    """Average pooling with a stride of 1: means over columns, then over rows."""

    STANDS_FOR = ("torch.nn:AvgPool2d.forward",)

    @staticmethod
    def supports(pool: nn.AvgPool2d) -> bool:
        square = isinstance(pool.kernel_size, int)
        others = (pool.stride, pool.padding, pool.ceil_mode, pool.divisor_override)
        return square and others == (1, 0, False, None)

    def forward(self, x: Float[Tensor, "*maps h w"]) -> Float[Tensor, "*maps h_out w_out"]:
        return _WindowMean.apply(x, self.kernel_size)


class _WindowMean(torch.autograd.Function):
    """The gradient of a pixel is the mean over the windows that it lies in, so it is a mean over
    windows too."""

    @staticmethod
    def forward(
        ctx, x: Float[Tensor, "*maps h w"], side: int
    ) -> Float[Tensor, "*maps h_out w_out"]:
        ctx.side = side
        return window_mean(x, side)

    @staticmethod
    @once_differentiable
    def backward(
        ctx, grad: Float[Tensor, "*maps h_out w_out"]
    ) -> tuple[Float[Tensor, "*maps h w"], None]:
        outside = ctx.side - 1
        return window_mean(F.pad(grad, 4 * [outside]), ctx.side), None


def window_mean(x: Float[Tensor, "*maps h w"], side: int) -> Float[Tensor, "*maps h_out w_out"]:
    """The means over windows of `side` x `side` pixels."""
    return x.unfold(-2, side, 1).mean(dim=-1).unfold(-1, side, 1).mean(dim=-1)
