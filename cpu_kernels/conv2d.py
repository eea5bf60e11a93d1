"""2D convolutions that go, on the CPU, the fastest way for their input: `few_pixels.py`, `winograd.py`, PyTorch's."""
from jaxtyping import Float
from torch import Tensor, nn

from cpu_kernels.few_pixels import conv2d_of_few_pixels, double_few_pixels, few_pixels
from cpu_kernels.winograd import WinogradConv2d, convolve, fits_tiles, transform_kernel


class Conv2d(nn.Conv2d):
    """A convolution without padding."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, bias: bool = True):
        super().__init__(in_channels, out_channels, kernel_size, stride, bias=bias)
        self.frozen = False  # whether the weights no longer change (`freeze_`)
        self.transformed = None  # the frozen kernel for tiles, made in the first call that needs it

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c_out h_out w_out"]:
        kernel, stride = self.kernel_size[0], self.stride[0]
        height, width = ((pixels - kernel) // stride + 1 for pixels in x.shape[2:])
        if few_pixels(x, height * width):
            return conv2d_of_few_pixels(x, self.weight, self.bias, stride)
        if stride != 1 or not fits_tiles(x, self.weight):
            return super().forward(x)
        if not self.frozen:
            return WinogradConv2d.apply(x, self.weight, self.bias)
        if self.transformed is None:
            self.transformed = transform_kernel(self.weight)
        return convolve(x, self.transformed, self.bias)


class DoublingConv2d(nn.ConvTranspose2d):
    """A 4x4 transposed convolution of stride 2 and padding 1."""

    def __init__(self, in_channels: int, out_channels: int, bias: bool):
        super().__init__(in_channels, out_channels, 4, stride=2, padding=1, bias=bias)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c_out 2*h 2*w"]:
        if few_pixels(x, 4 * x.shape[2:].numel()):
            return double_few_pixels(x, self.weight, self.bias)
        return super().forward(x)


def freeze_(module: nn.Module) -> nn.Module:
    """For evaluation alone: kernels for tiles are transformed once, and then no change of the weights is seen."""
    for layer in module.modules():
        if isinstance(layer, Conv2d):
            layer.requires_grad_(False)
            layer.frozen = True
    return module
