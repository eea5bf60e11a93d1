"""Replication padding of volumes on the CPU, by copies.

That is faster than PyTorch's own, keeps nothing for the backward pass, and leaves the dtype as it is where autocast
would pad in float32.
"""
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

LEAST_ELEMENTS = 2 ** 18  # of a volume; with fewer, PyTorch is as fast


class ReplicationPad3d(nn.ReplicationPad3d):
    """Replication padding by as many voxels on each side."""

    def forward(self, x: Float[Tensor, "b c d h w"]) -> Float[Tensor, "b c d_out h_out w_out"]:
        return replication_pad3d(x, self.padding[0])


def replication_pad3d(x: Float[Tensor, "b c d h w"], margin: int) -> Float[Tensor, "b c d_out h_out w_out"]:
    """`F.pad` with replication, by copies where that is faster."""
    if x.is_cpu and x.numel() >= LEAST_ELEMENTS and not torch.compiler.is_compiling():
        return _ReplicationPad3d.apply(x, margin)
    with torch.autocast(x.device.type, enabled=False):
        return F.pad(x, 6 * [margin], mode="replicate")


class _ReplicationPad3d(torch.autograd.Function):

    @staticmethod
    def forward(ctx, x: Float[Tensor, "b c d h w"], margin: int) -> Float[Tensor, "b c d_out h_out w_out"]:
        ctx.margin = margin
        return pad_by_copies(x, margin)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Float[Tensor, "b c d_out h_out w_out"]) -> tuple[Float[Tensor, "b c d h w"], None]:
        return gradient_of_padding_(gradient.clone(memory_format=torch.channels_last_3d), ctx.margin), None


def pad_by_copies(x: Float[Tensor, "b c d h w"], margin: int) -> Float[Tensor, "b c d_out h_out w_out"]:
    """Replication padding to a channels-last volume, by copies of the inside and then of its faces."""
    padded = torch.empty(*x.shape[:2], *(size + 2 * margin for size in x.shape[2:]), dtype=x.dtype,
                         memory_format=torch.channels_last_3d)
    d, h, w = (slice(margin, margin + size) for size in x.shape[2:])
    padded[:, :, d, h, w] = x
    for dim in (4, 3, 2):
        for i in range(margin):
            padded.select(dim, i).copy_(padded.select(dim, margin))
            padded.select(dim, -1 - i).copy_(padded.select(dim, -1 - margin))
    return padded


def gradient_of_padding_(of_padded: Float[Tensor, "b c d_out h_out w_out"], margin: int) -> Float[Tensor, "b c d h w"]:
    """The gradient of what was padded by replication, from that of the result, which it changes."""
    for dim in (2, 3, 4):
        for i in range(margin):
            of_padded.select(dim, margin).add_(of_padded.select(dim, i))
            of_padded.select(dim, -1 - margin).add_(of_padded.select(dim, -1 - i))
        of_padded = of_padded.narrow(dim, margin, of_padded.shape[dim] - 2 * margin)
    return of_padded.contiguous(memory_format=torch.channels_last_3d)
