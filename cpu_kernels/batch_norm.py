"""Batch norm of few channels by rows of 64 floats, a block of rows at a time.

PyTorch's channels-last kernels run over the channels innermost. Fewer than 8 channels leave most of
a vector register empty. The gradients of 8 channels take two threads several times as long as one,
probably because the sums of both lie in one line of the cache. A block of rows stays in the cache
from one operation to the next.
"""

from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from cpu_kernels import thresholds


class FastBatchNorm3d(nn.BatchNorm3d):
    """Batch norm of 1, 2, 4 or 8 channels."""

    STANDS_FOR = ("torch.nn:BatchNorm3d.forward",)

    @staticmethod
    def supports(norm: nn.BatchNorm3d) -> bool:
        return (
            norm.num_features <= thresholds.ROWS_MAX_CHANNELS
            and thresholds.ROW % norm.num_features == 0
            and norm.weight is not None
            and norm.bias is not None
            and norm.track_running_stats
            and norm.momentum is not None
        )

    def forward(self, x: Float[Tensor, "b c d h w"]) -> Float[Tensor, "b c d h w"]:
        if not (self.training and gains_from_rows(x)):
            return super().forward(x)
        self.num_batches_tracked += 1
        return _BatchNormOfRows.apply(x, self.weight, self.bias, self)


class _BatchNormOfRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias, norm):
        if x.shape[1] < thresholds.ROWS_MAX_CHANNELS:
            y, mean, scale = batch_norm_of_rows(x, weight, bias, norm)
        else:
            y, mean, scale = torch.native_batch_norm(
                x, weight, bias, norm.running_mean, norm.running_var, True, norm.momentum, norm.eps
            )
        ctx.save_for_backward(x, weight, mean, scale)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        return *batch_norm_of_rows_backward(grad, *ctx.saved_tensors), None


def gains_from_rows(x: Float[Tensor, "b c *size"]) -> bool:
    """Whether PyTorch's own batch norm, or its gradient, is slow for this input, and whether it can
    be seen as rows."""
    channels = x.shape[1]
    if channels < thresholds.ROWS_MAX_CHANNELS:
        slow = x.dtype == torch.float32
    else:
        slow = (
            channels == thresholds.ROWS_MAX_CHANNELS
            and x.dtype in (torch.float32, torch.bfloat16)
            and torch.get_num_threads() > 1
        )
    return slow and x.numel() % thresholds.ROW == 0 and x.movedim(1, -1).is_contiguous()


def batch_norm_of_rows(
    x: Float[Tensor, "b c *size"],
    weight: Float[Tensor, "c"],
    bias: Float[Tensor, "c"],
    norm: nn.BatchNorm3d,
) -> tuple[Float[Tensor, "b c *size"], Float[Tensor, "c"], Float[Tensor, "c"]]:
    """The norm of a batch, its mean, and 1 / its standard deviation. Updates the moving averages of
    `norm`."""
    channels = x.shape[1]
    count = x.numel() // channels
    mean = channel_sum(blocks(x), channels) / count
    center = tile(mean)
    variance = channel_sum(((block - center).square_() for block in blocks(x)), channels) / count
    norm.running_mean.lerp_(mean, norm.momentum)
    norm.running_var.lerp_(variance * (count / (count - 1)), norm.momentum)
    scale = (variance + norm.eps).rsqrt()
    gain = tile(scale * weight)
    offset = tile(bias - mean * scale * weight)
    y = torch.empty_like(x)
    for block, out in zip(blocks(x), blocks(y), strict=True):
        torch.addcmul(offset, block, gain, out=out)
    return y, mean, scale


def batch_norm_of_rows_backward(
    grad: Float[Tensor, "b c *size"],
    x: Float[Tensor, "b c *size"],
    weight: Float[Tensor, "c"],
    mean: Float[Tensor, "c"],
    scale: Float[Tensor, "c"],
) -> tuple[Float[Tensor, "b c *size"], Float[Tensor, "c"], Float[Tensor, "c"]]:
    """The gradients of x, weight and bias, computed in float32. mean, scale: those of the batch, as
    `batch_norm_of_rows` gives them."""
    channels = x.shape[1]
    count = x.numel() // channels
    grad = grad.movedim(1, -1).contiguous().movedim(-1, 1)
    offset = tile(-mean * scale)
    factor = tile(scale)
    grad_bias = channel_sum((block.float() for block in blocks(grad)), channels)
    products = (
        torch.addcmul(offset, block.float(), factor).mul_(grad_block)
        for block, grad_block in zip(blocks(x), blocks(grad), strict=True)
    )
    grad_weight = channel_sum(products, channels)
    gain = scale * weight
    slope = -gain * scale * grad_weight / count
    offset = tile(-gain * grad_bias / count - slope * mean)
    slope = tile(slope)
    gain = tile(gain)
    grad_x = torch.empty_like(x)
    for block, grad_block, out in zip(blocks(x), blocks(grad), blocks(grad_x), strict=True):
        result = torch.addcmul(offset, block.float(), slope)
        out.copy_(result.addcmul_(grad_block.float(), gain))
    return grad_x, grad_weight, grad_bias


def blocks(x: Float[Tensor, "b c *size"]) -> tuple[Float[Tensor, "rows row"], ...]:
    """The rows of a channels-last tensor, a few voxels or pixels each, some at a time; without a
    copy."""
    return x.movedim(1, -1).view(-1, thresholds.ROW).split(thresholds.ROWS)


def channel_sum(
    blocks: Iterable[Float[Tensor, "rows row"]], channels: int
) -> Float[Tensor, "channels"]:
    return sum(block.sum(dim=0) for block in blocks).view(-1, channels).sum(dim=0)


def tile(values: Float[Tensor, "channels"]) -> Float[Tensor, "row"]:
    return values.repeat(thresholds.ROW // len(values))
