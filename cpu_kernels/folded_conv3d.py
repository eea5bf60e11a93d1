"""3x3x3 convolutions with replication padding to few channels: 2x2 voxels of the output are
computed as one, or 1x2 where they fill a vector register.

Two rows are a stride. Two voxels of a row are a stride too, or one cell, since they lie side by
side in memory (`thresholds.FOLDED_CELL`). The input is moved for neither.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.amp import custom_bwd, custom_fwd
from torch.autograd.function import once_differentiable
from torch.nn.grad import conv3d_weight

from cpu_kernels import thresholds
from cpu_kernels.conv3d import takes_slow_path
from cpu_kernels.hooks import plain_type


def keeps_size(layers: list[nn.Module]) -> bool:
    """Whether the first two layers are replication padding by a voxel and a plain 3x3x3
    convolution."""
    if len(layers) < 2:
        return False
    pad, conv = layers[:2]
    return (
        plain_type(pad) is nn.ReplicationPad3d
        and plain_type(conv) is nn.Conv3d
        and pad.padding == 6 * (1,)
        and conv.kernel_size == (3, 3, 3)
        and conv.stride == (1, 1, 1)
        and conv.padding == (0, 0, 0)
        and conv.dilation == (1, 1, 1)
        and conv.groups == 1
    )


def folds(layers: list[nn.Module], x: Tensor) -> bool:
    """Whether the first two layers `keeps_size`, and folding is the faster way for this input."""
    # The gradient of a folded kernel from a batch of one would take the slow path.
    one_learns = len(x) == 1 and torch.is_grad_enabled()
    return (
        keeps_size(layers)
        and layers[1].out_channels <= thresholds.FOLDED_MAX_CHANNELS
        and x.shape[3] % 2 == x.shape[4] % 2 == 0
        and not one_learns
        and not takes_slow_path(x)
    )


class FoldedConv3d(torch.autograd.Function):
    """`F.conv3d` of `F.pad(x, 6 * [1], mode="replicate")`.

    The gradient of the input is the same convolution of the output's gradient, two voxels at a time
    if the input has few channels too. Large inputs are padded again in backward, to save memory.
    """

    @staticmethod
    @custom_fwd(device_type="cpu", cast_inputs=torch.bfloat16)
    def forward(
        ctx,
        x: Float[Tensor, "b c d h w"],
        weight: Float[Tensor, "c_out c 3 3 3"],
        bias: Float[Tensor, "c_out"] | None,
    ) -> Float[Tensor, "b c_out d h w"]:
        padded = replication_pad3d(x)
        ctx.kept_padded = x.numel() <= thresholds.FOLDED_MAX_KEPT
        ctx.save_for_backward(padded if ctx.kept_padded else x, weight)
        return folded_conv3d(padded, weight, bias, num_rows(weight), columns=2)

    @staticmethod
    @custom_bwd(device_type="cpu")
    @once_differentiable
    def backward(
        ctx, grad: Float[Tensor, "b c_out d h w"]
    ) -> tuple[Tensor | None, Tensor, Tensor | None]:
        x, weight = ctx.saved_tensors
        rows = num_rows(weight)
        grad = grad.contiguous(memory_format=torch.channels_last_3d)
        cell = thresholds.FOLDED_CELL
        grad_kernel = conv3d_weight(
            as_cells(x if ctx.kept_padded else replication_pad3d(x), cell),
            fold_kernel(weight, rows, 2, cell).shape,
            fold(grad, rows, 2),
            stride=(1, rows, 2 // cell),
        )
        grad_x = None
        if ctx.needs_input_grad[0]:
            mirrored = weight.flip(2, 3, 4).transpose(0, 1)
            grad_padded = folded_conv3d(
                F.pad(grad, 6 * [2]),
                mirrored,
                None,
                rows=1,
                columns=2 if x.shape[1] < thresholds.LANES else 1,
            )
            grad_x = replication_pad3d_backward_(grad_padded)
        grad_bias = grad.sum(dim=(0, 2, 3, 4)) if ctx.needs_input_grad[2] else None
        return grad_x, unfold_kernel(grad_kernel, rows, 2, cell), grad_bias


def num_rows(weight: Float[Tensor, "c_out c 3 3 3"]) -> int:
    """How many rows of the output are computed as one, two voxels of each."""
    return 2 if 4 * len(weight) <= thresholds.LANES else 1


def replication_pad3d(x: Float[Tensor, "b c d h w"]) -> Float[Tensor, "b c d+2 h+2 w+2"]:
    """Replication padding by one voxel, channels-last: copies the volume, then its faces
    outwards."""
    padded = torch.empty(
        *x.shape[:2],
        *(size + 2 for size in x.shape[2:]),
        dtype=x.dtype,
        memory_format=torch.channels_last_3d,
    )
    padded[:, :, 1:-1, 1:-1, 1:-1] = x
    for dim in (4, 3, 2):
        padded.select(dim, 0).copy_(padded.select(dim, 1))
        padded.select(dim, -1).copy_(padded.select(dim, -2))
    return padded


def replication_pad3d_backward_(
    grad: Float[Tensor, "b c d h w"],
) -> Float[Tensor, "b c d-2 h-2 w-2"]:
    """The gradient of the unpadded volume. Overwrites that of the padded one."""
    for dim in (2, 3, 4):
        grad.select(dim, 1).add_(grad.select(dim, 0))
        grad.select(dim, -2).add_(grad.select(dim, -1))
        grad = grad.narrow(dim, 1, grad.shape[dim] - 2)
    return grad.contiguous(memory_format=torch.channels_last_3d)


def folded_conv3d(
    x: Float[Tensor, "b c d h w"],
    weight: Float[Tensor, "c_out c 3 3 3"],
    bias: Float[Tensor, "c_out"] | None,
    rows: int,
    columns: int,
) -> Float[Tensor, "b c_out d-2 h-2 w-2"]:
    """`F.conv3d` of a channels-last volume, `rows` x `columns` voxels of whose output are the
    channels of one cell."""
    cell = min(columns, thresholds.FOLDED_CELL)
    folded = F.conv3d(
        as_cells(x, cell),
        fold_kernel(weight, rows, columns, cell),
        None if bias is None else bias.repeat(rows * columns),
        stride=(1, rows, columns // cell),
    )
    return unfold(folded, rows, columns)


def as_cells(x: Float[Tensor, "b c d h w"], cell: int) -> Float[Tensor, "b cell d h w_cells"]:
    """A channels-last volume seen so that `cell` neighbouring voxels of a row are the channels of
    one cell."""
    b, c, d, h, w = x.shape
    return x.permute(0, 2, 3, 4, 1).view(b, d, h, w // cell, cell * c).permute(0, 4, 1, 2, 3)


def fold(
    x: Float[Tensor, "b c d h w"], rows: int, columns: int
) -> Float[Tensor, "b cell d h_cells w_cells"]:
    """Moves `rows` x `columns` voxels into the channels, voxel before channel."""
    b, c, d, h, w = x.shape
    voxels = (
        x.permute(0, 2, 3, 4, 1)
        .view(b, d, h // rows, rows, w // columns, columns * c)
        .transpose(3, 4)
    )
    return voxels.reshape(b, d, h // rows, w // columns, -1).permute(0, 4, 1, 2, 3)


def unfold(
    x: Float[Tensor, "b cell d h_cells w_cells"], rows: int, columns: int
) -> Float[Tensor, "b c d h w"]:
    """The inverse of `fold`."""
    b, c, d, h, w = x.shape
    voxels = x.permute(0, 2, 3, 4, 1).view(b, d, h, w, rows, c // rows).transpose(3, 4)
    return voxels.reshape(b, d, rows * h, columns * w, -1).permute(0, 4, 1, 2, 3)


def fold_kernel(
    weight: Float[Tensor, "c_out c 3 3 3"],
    rows: int,
    columns: int,
    cell: int,
) -> Float[Tensor, "cell_out cell 3 height width"]:
    """The kernel that gives `rows` x `columns` voxels: a shifted copy of `weight` for each of
    them. It sees the input as cells of `cell` voxels."""
    c_out, c = weight.shape[:2]
    wide = weight.new_zeros(rows, columns, c_out, c, 3, rows + 2, columns + 2)
    for y in range(rows):
        for x in range(columns):
            wide[y, x, ..., y : y + 3, x : x + 3] = weight
    taps = wide.unflatten(-1, (-1, cell)).movedim(-1, 3)
    return taps.reshape(rows * columns * c_out, cell * c, *taps.shape[5:]).contiguous(
        memory_format=torch.channels_last_3d
    )


def unfold_kernel(
    kernel: Float[Tensor, "cell_out cell 3 height width"],
    rows: int,
    columns: int,
    cell: int,
) -> Float[Tensor, "c_out c 3 3 3"]:
    """The transpose of `fold_kernel`: the gradient of the kernel from that of the folded one."""
    c_out = kernel.shape[0] // (rows * columns)
    c = kernel.shape[1] // cell
    taps = kernel.reshape(rows, columns, c_out, cell, c, *kernel.shape[2:])
    wide = taps.movedim(3, -1).flatten(-2)
    return sum(wide[y, x, ..., y : y + 3, x : x + 3] for y in range(rows) for x in range(columns))
