"""2D convolutions of maps of few pixels as matrix products, on the CPU.

The inner levels of a U-Net have many channels and hardly a pixel: their time goes into rearranging the weights, which
PyTorch's convolution does in every call. A matrix product takes them as they lie in memory, channels-last. Another
picks the pixels of each window.
"""
from functools import cache

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

MOST_PAIRS = 2048  # of a pixel of the input and one of the output; with more, picking takes longer than it saves
LEAST_CHANNELS = 64  # of the input; with fewer, the weights are few


def few_pixels(x: Float[Tensor, "b c h w"], pixels: int) -> bool:
    """Whether matrix products are the faster way from this input to maps of so many pixels."""
    return (x.is_cpu and pixels * x.shape[2:].numel() <= MOST_PAIRS and x.shape[1] >= LEAST_CHANNELS
            and not torch.is_autocast_enabled("cpu") and not torch.compiler.is_compiling())


@cache
def windows(height: int, width: int, kernel: int, stride: int, padding: int, dtype: torch.dtype,
            ) -> Float[Tensor, "taps pixels"]:
    """The matrix of zeros and ones that picks the pixels of each of a map's windows, row by row; zeros outside."""
    with torch.inference_mode(False):  # what is made within could not be remembered by a training step
        pixels = torch.eye(height * width, dtype=dtype).view(-1, height, width)
        taps = F.pad(pixels, 4 * [padding]).unfold(1, kernel, stride).unfold(2, kernel, stride)
        return taps.flatten(1).T.contiguous()


class Conv2d(nn.Conv2d):
    """A convolution without padding."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, bias: bool = True):
        super().__init__(in_channels, out_channels, kernel_size, stride, bias=bias)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c_out h_out w_out"]:
        (b, c, *size), kernel, stride = x.shape, self.kernel_size[0], self.stride[0]
        height, width = ((pixels - kernel) // stride + 1 for pixels in size)
        if not few_pixels(x, height * width):
            return super().forward(x)
        taps = windows(*size, kernel, stride, 0, x.dtype) @ x.permute(0, 2, 3, 1).reshape(b, -1, c)
        weight = self.weight.permute(0, 2, 3, 1).reshape(self.out_channels, -1)
        return F.linear(taps.view(b, height, width, -1), weight, self.bias).permute(0, 3, 1, 2)


class DoublingConv2d(nn.ConvTranspose2d):
    """A 4x4 transposed convolution of stride 2 and padding 1."""

    def __init__(self, in_channels: int, out_channels: int, bias: bool):
        super().__init__(in_channels, out_channels, 4, stride=2, padding=1, bias=bias)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c_out 2*h 2*w"]:
        b, c, h, w = x.shape
        if not few_pixels(x, 4 * h * w):
            return super().forward(x)
        weight = self.weight.permute(0, 2, 3, 1).reshape(c, -1)
        taps = (x.permute(0, 2, 3, 1).reshape(-1, c) @ weight).view(b, 16 * h * w, -1)
        pixels = (windows(2 * h, 2 * w, 4, 2, 1, x.dtype).T @ taps).view(b, 2 * h, 2 * w, -1)
        return (pixels if self.bias is None else pixels + self.bias).permute(0, 3, 1, 2)
