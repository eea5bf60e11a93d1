"""3D convolutions and batch norm of few channels on the CPU, several times as fast as PyTorch's own there.

A vector register holds 16 float32, so layers of few channels leave most of it empty. Here neighbouring pixels are seen
as channels: the same sums, in fuller registers.
"""
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.amp import custom_bwd, custom_fwd
from torch.autograd.function import once_differentiable

from cpu_kernels.padding import gradient_of_padding_, pad_by_copies

LANES = 16  # float32 in a register
MOST_CHANNELS = 4  # of the batch norm
MOST_REMEMBERED = 2 ** 20  # elements of an input of which a padded copy is kept for the backward pass
ROW = 64  # floats that the batch norm takes as one row


def fills(x: Float[Tensor, "b c d h w"], lanes: int) -> bool:
    """Whether a convolution of this input that fills so many lanes with pixels and channels is the faster one.

    A compiled graph stays smaller without.
    """
    return x.is_cpu and lanes <= LANES and not takes_slow_path(x) and not torch.compiler.is_compiling()


def takes_slow_path(x: Float[Tensor, "b c d h w"]) -> bool:
    """Whether PyTorch leaves a convolution of this input to an im2col loop, about a third as fast as oneDNN: it does so
    for a small batch of one."""
    return x.is_cpu and len(x) == 1 and x.shape[1:4].numel() <= 20480


class FoldedConv3d(torch.autograd.Function):
    """A 3x3x3 convolution with replication padding to few channels, 2x2 pixels of whose output are computed as one.

    The gradient of the input is the same convolution of the output's, two pixels at once if it has few channels too.
    Of a large input what it is padded to is not remembered: that takes more memory than time.
    """

    @staticmethod
    @custom_fwd(device_type="cpu", cast_inputs=torch.bfloat16)
    def forward(ctx, x: Float[Tensor, "b c d h w"], weight: Float[Tensor, "c_out c 3 3 3"],
                bias: Float[Tensor, "c_out"] | None) -> Float[Tensor, "b c_out d h w"]:
        padded = pad_by_copies(x, 1)
        ctx.is_padded = x.numel() <= MOST_REMEMBERED
        ctx.save_for_backward(padded if ctx.is_padded else x, weight)
        ctx.has_bias = bias is not None
        return folded_conv3d(padded, weight, bias, rows=2, columns=2)

    @staticmethod
    @custom_bwd(device_type="cpu")
    @once_differentiable
    def backward(ctx, gradient: Float[Tensor, "b c_out d h w"]) -> tuple[Tensor | None, Tensor, Tensor | None]:
        x, weight = ctx.saved_tensors
        gradient = gradient.contiguous(memory_format=torch.channels_last_3d)
        of_kernel = torch.ops.aten.convolution_backward(
            fold(gradient, 2, 2), as_cells(x if ctx.is_padded else pad_by_copies(x, 1), 2), fold_kernel(weight, 2, 2),
            None, [1, 2, 1], [0, 0, 0], [1, 1, 1], False, [0, 0, 0], 1, [False, True, False])[1]
        of_x = None
        if ctx.needs_input_grad[0]:
            mirrored = weight.flip(2, 3, 4).transpose(0, 1)
            of_padded = folded_conv3d(F.pad(gradient, 6 * [2]), mirrored, None, rows=1,
                                      columns=2 if x.shape[1] < LANES else 1)
            of_x = gradient_of_padding_(of_padded, 1)
        of_bias = gradient.sum(dim=(0, 2, 3, 4)) if ctx.has_bias else None
        return of_x, unfold_kernel(of_kernel, 2, 2), of_bias


def folded_conv3d(x: Float[Tensor, "b c d h w"], weight: Float[Tensor, "c_out c 3 3 3"],
                  bias: Float[Tensor, "c_out"] | None, rows: int, columns: int,
                  ) -> Float[Tensor, "b c_out d-2 h-2 w-2"]:
    """`F.conv3d` of a channels-last volume, `rows` x `columns` pixels of whose output are computed as the channels of
    one: several rows are a stride, several pixels of a row lie side by side in memory."""
    folded = F.conv3d(as_cells(x, columns), fold_kernel(weight, rows, columns),
                      None if bias is None else bias.repeat(rows * columns), stride=(1, rows, 1))
    return unfold(folded, rows, columns)


def as_cells(x: Float[Tensor, "b c d h w"], columns: int) -> Float[Tensor, "b cell d h w_cells"]:
    """The same memory, neighbouring pixels of a row as one."""
    b, c, d, h, w = x.shape
    return x.permute(0, 2, 3, 4, 1).view(b, d, h, w // columns, columns * c).permute(0, 4, 1, 2, 3)


def fold(x: Float[Tensor, "b c d h w"], rows: int, columns: int) -> Float[Tensor, "b cell d h_cells w_cells"]:
    """Moves `rows` x `columns` pixels into the channels, pixel before channel."""
    b, c, d, h, w = x.shape
    pixels = x.permute(0, 2, 3, 4, 1).view(b, d, h // rows, rows, w // columns, columns * c).transpose(3, 4)
    return pixels.reshape(b, d, h // rows, w // columns, -1).permute(0, 4, 1, 2, 3)


def unfold(x: Float[Tensor, "b cell d h_cells w_cells"], rows: int, columns: int) -> Float[Tensor, "b c d h w"]:
    """The inverse of `fold`."""
    b, c, d, h, w = x.shape
    pixels = x.permute(0, 2, 3, 4, 1).view(b, d, h, w, rows, c // rows).transpose(3, 4)
    return pixels.reshape(b, d, rows * h, columns * w, -1).permute(0, 4, 1, 2, 3)


def fold_kernel(weight: Float[Tensor, "c_out c 3 3 3"], rows: int, columns: int,
                ) -> Float[Tensor, "cell_out cell 3 height width"]:
    """The kernel that gives all pixels of a cell: a copy of `weight`, shifted, for each of them."""
    c_out, c = weight.shape[:2]
    wide = weight.new_zeros(rows, columns, c_out, c, 3, rows + 2, columns + 2)
    for y in range(rows):
        for x in range(columns):
            wide[y, x, ..., y:y + 3, x:x + 3] = weight
    taps = wide.unflatten(-1, (-1, columns)).movedim(-1, 3)
    return taps.reshape(rows * columns * c_out, columns * c, *taps.shape[5:]).contiguous(
        memory_format=torch.channels_last_3d)


def unfold_kernel(kernel: Float[Tensor, "cell_out cell 3 height width"], rows: int, columns: int,
                  ) -> Float[Tensor, "c_out c 3 3 3"]:
    """The transpose of `fold_kernel`: the gradient of the kernel from that of the folded one."""
    c_out, c = kernel.shape[0] // (rows * columns), kernel.shape[1] // columns
    taps = kernel.reshape(rows, columns, c_out, columns, c, *kernel.shape[2:])
    wide = taps.movedim(3, -1).flatten(-2)
    return sum(wide[y, x, ..., y:y + 3, x:x + 3] for y in range(rows) for x in range(columns))


class HalvingConv3d(nn.Conv3d):
    """A 4x4x4 convolution of stride 2 without padding."""

    def __init__(self, in_channels: int, out_channels: int, bias: bool):
        super().__init__(in_channels, out_channels, 4, stride=2, bias=bias)

    def forward(self, x: Float[Tensor, "b c d h w"]) -> Float[Tensor, "b c_out d//2-1 h//2-1 w//2-1"]:
        if x.is_cpu and self.in_channels <= LANES and x.shape[4] % 2 == 0:
            cells = as_cells(x.contiguous(memory_format=torch.channels_last_3d), 2)
            if not takes_slow_path(cells):
                kernel = self.weight.unflatten(-1, (2, 2)).movedim(-1, 1).flatten(1, 2)
                return F.conv3d(cells, kernel, self.bias, stride=(2, 2, 1))
        return super().forward(x)


class DoublingConv3d(nn.ConvTranspose3d):
    """A 4x4x4 transposed convolution of stride 2 and padding 1."""

    def __init__(self, in_channels: int, out_channels: int, bias: bool):
        super().__init__(in_channels, out_channels, 4, stride=2, padding=1, bias=bias)

    def forward(self, x: Float[Tensor, "b c d h w"]) -> Float[Tensor, "b c_out 2*d 2*h 2*w"]:
        if fills(x, 2 * self.out_channels):
            return _DoubledConv3d.apply(x, self.weight, self.bias)
        return super().forward(x)


class _DoubledConv3d(torch.autograd.Function):
    """The transposed convolution as a convolution: in each direction pixels 2i-1 and 2i of the output depend on i-1 and
    i of the input. The gradients are those of the transposed convolution, which PyTorch computes fast."""

    @staticmethod
    @custom_fwd(device_type="cpu", cast_inputs=torch.bfloat16)
    def forward(ctx, x: Float[Tensor, "b c d h w"], weight: Float[Tensor, "c c_out 4 4 4"],
                bias: Float[Tensor, "c_out"] | None) -> Float[Tensor, "b c_out 2*d 2*h 2*w"]:
        ctx.save_for_backward(x, weight)
        ctx.has_bias = bias is not None
        c, c_out = weight.shape[:2]
        taps = weight.view(c, c_out, 2, 2, 2, 2, 2, 2).flip(2, 4, 6)  # of i-1 and i; pixels 2i-1 and 2i
        kernel = taps.permute(3, 5, 7, 1, 0, 2, 4, 6).reshape(8 * c_out, c, 2, 2, 2)
        cells = F.conv3d(x, kernel.contiguous(memory_format=torch.channels_last_3d),
                         None if bias is None else bias.repeat(8), padding=1)
        b, _, d, h, w = cells.shape
        pixels = cells.permute(0, 2, 3, 4, 1).reshape(b, d, h, w, 2, 2, 2 * c_out).permute(0, 1, 4, 2, 5, 3, 6)
        # The outermost pixels are half of a pair, whose other half is outside.
        pixels = pixels.reshape(b, 2 * d, 2 * h, 2 * w, c_out)[:, 1:-1, 1:-1, 1:-1].permute(0, 4, 1, 2, 3)
        return torch.empty_like(pixels, memory_format=torch.channels_last_3d).copy_(pixels)

    @staticmethod
    @custom_bwd(device_type="cpu")
    @once_differentiable
    def backward(ctx, gradient):
        x, weight = ctx.saved_tensors
        needed = [*ctx.needs_input_grad[:2], ctx.has_bias]
        return torch.ops.aten.convolution_backward(gradient, x, weight, [weight.shape[1]], [2, 2, 2], [1, 1, 1],
                                                   [1, 1, 1], True, [0, 0, 0], 1, needed)


class NarrowBatchNorm3d(nn.BatchNorm3d):
    """Batch norm whose channels may be few."""

    def forward(self, x: Float[Tensor, "b c d h w"]) -> Float[Tensor, "b c d h w"]:
        fits = self.num_features <= MOST_CHANNELS and x.numel() % ROW == 0 and ROW % self.num_features == 0
        if not (self.training and fits and x.is_cpu and x.is_contiguous(memory_format=torch.channels_last_3d)):
            return super().forward(x)
        y, mean, variance = _BatchNormOfRows.apply(x.to(self.weight.dtype), self.weight, self.bias, self.eps)
        with torch.no_grad():
            count = x.numel() // self.num_features
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * (count / (count - 1)), self.momentum)
            self.num_batches_tracked += 1
        return y.to(x.dtype)


class _BatchNormOfRows(torch.autograd.Function):
    """Batch norm of a channels-last tensor seen as rows of `ROW` floats, some pixels each."""

    @staticmethod
    def forward(ctx, x, weight, bias, eps):
        rows, channels = as_rows(x), x.shape[1]
        mean = channel_mean(rows, channels)
        variance = channel_mean((rows - tile(mean)).square_(), channels)
        scale = (variance + eps).rsqrt()
        ctx.save_for_backward(x, weight, mean, scale)
        ctx.mark_non_differentiable(mean, variance)
        y = torch.empty_like(x)
        torch.addcmul(tile(bias - mean * scale * weight), rows, tile(scale * weight), out=as_rows(y))
        return y, mean, variance

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient, *_):
        x, weight, mean, scale = ctx.saved_tensors
        channels, pixels = x.shape[1], x.numel() // x.shape[1]
        normal = torch.addcmul(tile(-mean * scale), as_rows(x), tile(scale))
        rows = as_rows(gradient.contiguous(memory_format=torch.channels_last_3d))
        of_bias, of_weight = channel_mean(rows, channels), channel_mean(rows * normal, channels)
        of_x = torch.empty_like(x)
        torch.sub(rows, tile(of_bias), out=as_rows(of_x)).sub_(normal.mul_(tile(of_weight))).mul_(tile(scale * weight))
        return of_x, of_weight * pixels, of_bias * pixels, None


def as_rows(x: Float[Tensor, "b c d h w"]) -> Float[Tensor, "rows row"]:
    """The rows of `ROW` floats of a channels-last tensor, without a copy."""
    return x.permute(0, 2, 3, 4, 1).view(-1, ROW)


def channel_mean(rows: Float[Tensor, "rows row"], channels: int) -> Float[Tensor, "channels"]:
    return rows.mean(dim=0).view(-1, channels).mean(dim=0)


def tile(values: Float[Tensor, "channels"]) -> Float[Tensor, "row"]:
    return values.repeat(ROW // len(values))
