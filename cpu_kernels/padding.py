"""Padding that keeps nothing for the backward pass, by copies of slices.

Under autocast it keeps the dtype, where PyTorch pads in float32.
"""
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from cpu_kernels import thresholds


def pad_in_own_dtype(x: Float[Tensor, "b c *size"], padding: tuple[int, ...], mode: str,
                     ) -> Float[Tensor, "b c *size_out"]:
    """`F.pad`, which autocast would compute in float32."""
    if not torch.is_autocast_enabled("cpu"):  # the usual case, without the price of a context
        return F.pad(x, padding, mode)
    with torch.autocast("cpu", enabled=False):
        return F.pad(x, padding, mode)


class FastReflectionPad2d(nn.ReflectionPad2d):
    """Reflection padding by one pixel."""

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
        border, inner = (0, -1), (1, -2)
        for outside, inside in zip(border, inner, strict=True):
            grad_x[:, :, inside] += grad[:, :, outside, 1:-1]
            grad_x[:, :, :, inside] += grad[:, :, 1:-1, outside]
            for outside_column, inside_column in zip(border, inner, strict=True):
                grad_x[:, :, inside, inside_column] += grad[:, :, outside, outside_column]
        return grad_x


class FastReplicationPad3d(nn.ReplicationPad3d):
    """Replication padding by the same number of voxels on each side."""

    @staticmethod
    def supports(pad: nn.ReplicationPad3d) -> bool:
        return len(set(pad.padding)) == 1

    def forward(self, x: Float[Tensor, "b c d h w"]) -> Float[Tensor, "b c d_out h_out w_out"]:
        if x.numel() >= thresholds.REPLICATION_MIN_ELEMENTS:
            return _ReplicationPad3d.apply(x, self.padding[0])
        return pad_in_own_dtype(x, self.padding, "replicate")


class _ReplicationPad3d(torch.autograd.Function):

    @staticmethod
    def forward(ctx, x: Float[Tensor, "b c d h w"], margin: int) -> Float[Tensor, "b c d_out h_out w_out"]:
        ctx.margin = margin
        return replication_pad3d(x, margin)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Float[Tensor, "b c d_out h_out w_out"]) -> tuple[Float[Tensor, "b c d h w"], None]:
        return replication_pad3d_backward_(grad.clone(memory_format=torch.channels_last_3d), ctx.margin), None


def replication_pad3d(x: Float[Tensor, "b c d h w"], margin: int) -> Float[Tensor, "b c d_out h_out w_out"]:
    """Replication padding, channels-last: copies the volume, then its faces outwards."""
    padded = torch.empty(*x.shape[:2], *(size + 2 * margin for size in x.shape[2:]), dtype=x.dtype,
                         memory_format=torch.channels_last_3d)
    d, h, w = (slice(margin, margin + size) for size in x.shape[2:])
    padded[:, :, d, h, w] = x
    for dim in (4, 3, 2):
        for i in range(margin):
            padded.select(dim, i).copy_(padded.select(dim, margin))
            padded.select(dim, -1 - i).copy_(padded.select(dim, -1 - margin))
    return padded


def replication_pad3d_backward_(grad: Float[Tensor, "b c d_out h_out w_out"], margin: int,
                                ) -> Float[Tensor, "b c d h w"]:
    """The gradient of the unpadded volume. Overwrites that of the padded one."""
    for dim in (2, 3, 4):
        for i in range(margin):
            grad.select(dim, margin).add_(grad.select(dim, i))
            grad.select(dim, -1 - margin).add_(grad.select(dim, -1 - i))
        grad = grad.narrow(dim, margin, grad.shape[dim] - 2 * margin)
    return grad.contiguous(memory_format=torch.channels_last_3d)
