"""3D convolution and batch norm of few channels on the CPU, several times as fast as PyTorch's own there.

A vector register holds 16 float32, so layers of 1 to 4 channels leave most of it empty. Both functions move
neighbouring pixels into the channels: the same sums, in fuller registers.
"""
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

MOST_CHANNELS = 4
ROW = 64  # floats that the batch norm takes as one row


class FoldedConv3d(torch.autograd.Function):
    """A 3x3x3 convolution with replication padding to few channels, on an input folded 2x2 in height and width.

    The folded input has 4 times the channels at half the size; the folded kernel is 3x2x2, partly zero. The gradient of
    the input, whose channels are not few, is an ordinary convolution of the output's, unless that is a single channel.
    Only the input is remembered: what it is padded and folded to takes more memory than time.
    """

    @staticmethod
    def forward(ctx, x: Float[Tensor, "b c d h w"], weight: Float[Tensor, "c_out c 3 3 3"],
                bias: Float[Tensor, "c_out"] | None) -> Float[Tensor, "b c_out d h w"]:
        ctx.save_for_backward(x, weight)
        ctx.has_bias = bias is not None
        return unfold(F.conv3d(fold(pad(x)), fold_kernel(weight), None if bias is None else bias.repeat(4)))

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Float[Tensor, "b c_out d h w"]) -> tuple[Tensor | None, Tensor, Tensor | None]:
        x, weight = ctx.saved_tensors
        from_folded = len(weight) == 1
        of_folded, of_kernel, _ = torch.ops.aten.convolution_backward(
            fold(gradient), fold(pad(x)), fold_kernel(weight), None, [1, 1, 1], [0, 0, 0], [1, 1, 1], False, [0, 0, 0],
            1, [from_folded and ctx.needs_input_grad[0], True, False])
        of_x = None
        if ctx.needs_input_grad[0]:
            if from_folded:
                of_padded = unfold(of_folded)
            else:
                mirrored = weight.flip(2, 3, 4).transpose(0, 1).contiguous(memory_format=torch.channels_last_3d)
                of_padded = F.conv3d(F.pad(gradient, 6 * [2]), mirrored)
            of_x = torch.ops.aten.replication_pad3d_backward(of_padded, x, 6 * [1])
        return of_x, unfold_kernel(of_kernel), gradient.sum(dim=(0, 2, 3, 4)) if ctx.has_bias else None


def pad(x: Float[Tensor, "b c d h w"]) -> Float[Tensor, "b c d+2 h+2 w+2"]:
    """Replication padding by one voxel."""
    return F.pad(x, 6 * [1], mode="replicate")


def fold(x: Float[Tensor, "b c d h w"]) -> Float[Tensor, "b 4*c d h//2 w//2"]:
    """Moves every 2x2 pixels of height and width into the channels, pixel before channel."""
    b, c, d, h, w = x.shape
    pixels = x.permute(0, 2, 3, 4, 1).reshape(b, d, h // 2, 2, w // 2, 2, c).transpose(3, 4)
    return pixels.reshape(b, d, h // 2, w // 2, 4 * c).permute(0, 4, 1, 2, 3)


def unfold(x: Float[Tensor, "b c4 d h w"]) -> Float[Tensor, "b c4//4 d 2*h 2*w"]:
    """The inverse of `fold`."""
    b, c, d, h, w = x.shape
    pixels = x.permute(0, 2, 3, 4, 1).reshape(b, d, h, w, 2, 2, c // 4).transpose(3, 4)
    return pixels.reshape(b, d, 2 * h, 2 * w, c // 4).permute(0, 4, 1, 2, 3)


def fold_kernel(weight: Float[Tensor, "c_out c 3 3 3"]) -> Float[Tensor, "4*c_out 4*c 3 2 2"]:
    """The kernel that does on a folded input what `weight` does on the input: a copy, shifted, for each of 4 pixels."""
    c_out, c = weight.shape[:2]
    wide = weight.new_zeros(2, 2, c_out, c, 3, 4, 4)
    for y in range(2):
        for x in range(2):
            wide[y, x, ..., y:y + 3, x:x + 3] = weight
    taps = wide.view(2, 2, c_out, c, 3, 2, 2, 2, 2).permute(0, 1, 2, 6, 8, 3, 4, 5, 7)
    return taps.reshape(4 * c_out, 4 * c, 3, 2, 2).contiguous(memory_format=torch.channels_last_3d)


def unfold_kernel(weight: Float[Tensor, "o4 c4 3 2 2"]) -> Float[Tensor, "o4//4 c4//4 3 3 3"]:
    """The transpose of `fold_kernel`: the gradient of the kernel from that of the folded one."""
    c_out, c = weight.shape[0] // 4, weight.shape[1] // 4
    taps = weight.reshape(2, 2, c_out, 2, 2, c, 3, 2, 2).permute(0, 1, 2, 5, 6, 7, 3, 8, 4)
    wide = taps.reshape(2, 2, c_out, c, 3, 4, 4)
    return sum(wide[y, x, ..., y:y + 3, x:x + 3] for y in range(2) for x in range(2))


class NarrowBatchNorm3d(nn.BatchNorm3d):
    """Batch norm whose channels may be few."""

    def forward(self, x: Float[Tensor, "b c d h w"]) -> Float[Tensor, "b c d h w"]:
        fits = self.num_features <= MOST_CHANNELS and x.numel() % ROW == 0 and ROW % self.num_features == 0
        if not (self.training and fits and x.is_cpu and x.dtype == torch.float32
                and x.is_contiguous(memory_format=torch.channels_last_3d)):
            return super().forward(x)
        y, mean, variance = _BatchNormOfRows.apply(x, self.weight, self.bias, self.eps)
        with torch.no_grad():
            count = x.numel() // self.num_features
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * (count / (count - 1)), self.momentum)
            self.num_batches_tracked += 1
        return y


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
