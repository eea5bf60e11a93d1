"""2D convolutions that choose the fastest way for their input: matrix products, Winograd's tiles,
or PyTorch's own."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cpu_kernels.few_pixels import conv2d_few_pixels, conv_transpose2d_few_pixels, has_few_pixels
from cpu_kernels.weight_gradient import CopyingConv, gains_from_copies
from cpu_kernels.winograd import WinogradConv2d, convolve_tiles, fits_tiles, transform_kernel


class FastConv2d(nn.Conv2d):
    """A convolution without padding. `prepare_for_frames_` freezes it."""

    STANDS_FOR = ("torch.nn:Conv2d.forward",)
    frozen = False  # whether the weights no longer change
    # The frozen kernel transformed for tiles, made by the first call that needs it.
    tile_kernel = None

    @staticmethod
    def supports(conv: nn.Conv2d) -> bool:
        kernel, other = conv.kernel_size
        stride, across = conv.stride
        return (
            kernel == other
            and stride == across
            and conv.padding == (0, 0)
            and conv.dilation == (1, 1)
            and conv.groups == 1
        )

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c_out h_out w_out"]:
        kernel = self.kernel_size[0]
        stride = self.stride[0]
        height, width = ((pixels - kernel) // stride + 1 for pixels in x.shape[2:])
        if has_few_pixels(x, height * width):
            return conv2d_few_pixels(x, self.weight, self.bias, stride)
        if stride != 1 or not fits_tiles(x, self.weight):
            if gains_from_copies(x, self.weight):
                return CopyingConv.apply(x, self.weight, self.bias, stride)
            if stride > 1 and torch.is_autocast_enabled("cpu"):
                x = without_unseen(x, kernel, stride)
            return super().forward(x)
        if not self.frozen:
            return WinogradConv2d.apply(x, self.weight, self.bias)
        if self.tile_kernel is None:
            self.tile_kernel = transform_kernel(self.weight)
        return convolve_tiles(x, self.tile_kernel, self.bias)


def without_unseen(
    x: Float[Tensor, "b c h w"], kernel: int, stride: int
) -> Float[Tensor, "b c h_seen w_seen"]:
    """x without the last rows and columns that no window reaches.

    With AMX, oneDNN 3.12 computes the gradient of the weights in bfloat16 from memory that it never
    wrote if there are such columns, and some of it is NaN now and then (docs/performance.md).
    """
    height, width = (pixels - (pixels - kernel) % stride for pixels in x.shape[2:])
    return x[:, :, :height, :width]


class FastConvTranspose2d(nn.ConvTranspose2d):
    """A 4x4 transposed convolution of stride 2 and padding 1."""

    STANDS_FOR = ("torch.nn:ConvTranspose2d.forward",)

    @staticmethod
    def supports(conv: nn.ConvTranspose2d) -> bool:
        return (
            conv.kernel_size == (4, 4)
            and conv.stride == (2, 2)
            and conv.padding == (1, 1)
            and conv.output_padding == (0, 0)
            and conv.dilation == (1, 1)
            and conv.groups == 1
        )

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c_out 2*h 2*w"]:
        if has_few_pixels(x, 4 * x.shape[2:].numel()):
            return conv_transpose2d_few_pixels(x, self.weight, self.bias)
        return super().forward(x)
