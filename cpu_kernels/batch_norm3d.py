"""Batch norm of volumes with few channels, by rows of 64 floats.

PyTorch's channels-last kernel runs over the channels innermost, which leaves most of a vector
register empty, and on one thread.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from cpu_kernels import thresholds


class FastBatchNorm3d(nn.BatchNorm3d):
    """Batch norm of 1, 2 or 4 channels."""

    STANDS_FOR = ("torch.nn:BatchNorm3d.forward",)

    @staticmethod
    def supports(norm: nn.BatchNorm3d) -> bool:
        return (
            norm.num_features <= thresholds.NARROW_NORM_MAX_CHANNELS
            and thresholds.NARROW_NORM_ROW % norm.num_features == 0
            and norm.weight is not None
            and norm.bias is not None
            and norm.track_running_stats
            and norm.momentum is not None
        )

    def forward(self, x: Float[Tensor, "b c d h w"]) -> Float[Tensor, "b c d h w"]:
        if not (
            self.training
            and x.numel() % thresholds.NARROW_NORM_ROW == 0
            and x.is_contiguous(memory_format=torch.channels_last_3d)
        ):
            return super().forward(x)
        y, mean, variance = _BatchNormOfRows.apply(
            x.to(self.weight.dtype), self.weight, self.bias, self.eps
        )
        with torch.no_grad():
            count = x.numel() // self.num_features
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * (count / (count - 1)), self.momentum)
            self.num_batches_tracked += 1
        return y.to(x.dtype)


class _BatchNormOfRows(torch.autograd.Function):
    """Batch norm of a channels-last tensor seen as rows, a few voxels each."""

    @staticmethod
    def forward(ctx, x, weight, bias, eps):
        rows = as_rows(x)
        channels = x.shape[1]
        mean = channel_mean(rows, channels)
        variance = channel_mean((rows - tile(mean)).square_(), channels)
        scale = (variance + eps).rsqrt()
        ctx.save_for_backward(x, weight, mean, scale)
        ctx.mark_non_differentiable(mean, variance)
        y = torch.empty_like(x)
        torch.addcmul(
            tile(bias - mean * scale * weight), rows, tile(scale * weight), out=as_rows(y)
        )
        return y, mean, variance

    @staticmethod
    @once_differentiable
    def backward(ctx, grad, *_):
        x, weight, mean, scale = ctx.saved_tensors
        channels = x.shape[1]
        voxels = x.numel() // x.shape[1]
        normalised = torch.addcmul(tile(-mean * scale), as_rows(x), tile(scale))
        rows = as_rows(grad.contiguous(memory_format=torch.channels_last_3d))
        mean_grad = channel_mean(rows, channels)
        mean_product = channel_mean(rows * normalised, channels)
        grad_x = torch.empty_like(x)
        torch.sub(rows, tile(mean_grad), out=as_rows(grad_x))
        as_rows(grad_x).sub_(normalised.mul_(tile(mean_product))).mul_(tile(scale * weight))
        return grad_x, mean_product * voxels, mean_grad * voxels, None


def as_rows(x: Float[Tensor, "b c d h w"]) -> Float[Tensor, "rows row"]:
    """The rows of a channels-last tensor, without a copy."""
    return x.permute(0, 2, 3, 4, 1).view(-1, thresholds.NARROW_NORM_ROW)


def channel_mean(rows: Float[Tensor, "rows row"], channels: int) -> Float[Tensor, "channels"]:
    return rows.mean(dim=0).view(-1, channels).mean(dim=0)


def tile(values: Float[Tensor, "channels"]) -> Float[Tensor, "row"]:
    return values.repeat(thresholds.NARROW_NORM_ROW // len(values))
