"""Strided convolutions of maps of few pixels as matrix products, on the CPU.

The inner levels of a U-Net have many channels and hardly a pixel: their time goes into rearranging the weights, which
PyTorch's convolution does in every call. A matrix product takes them as they lie in memory, channels-last.
"""
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

MOST_PIXELS = 64  # of the smaller map, over the batch
LEAST_CHANNELS = 64  # of the input; with fewer, the weights are few


def few_pixels(x: Float[Tensor, "b c h w"], pixels: int) -> bool:
    """Whether a product of `pixels` rows is the faster way for this input."""
    return x.is_cpu and pixels <= MOST_PIXELS and x.shape[1] >= LEAST_CHANNELS and not torch.is_autocast_enabled("cpu")


class HalvingConv2d(nn.Conv2d):
    """A 4x4 convolution of stride 2 without padding."""

    def __init__(self, in_channels: int, out_channels: int, bias: bool):
        super().__init__(in_channels, out_channels, 4, stride=2, bias=bias)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c_out h//2-1 w//2-1"]:
        b, c, h, w = x.shape
        if not few_pixels(x, b * (h // 2 - 1) * (w // 2 - 1)):
            return super().forward(x)
        windows = x.permute(0, 2, 3, 1).unfold(1, 4, 2).unfold(2, 4, 2).permute(0, 1, 2, 4, 5, 3)
        weight = self.weight.permute(0, 2, 3, 1).reshape(-1, 16 * c)
        return F.linear(windows.reshape(*windows.shape[:3], -1), weight, self.bias).permute(0, 3, 1, 2)


class DoublingConv2d(nn.ConvTranspose2d):
    """A 4x4 transposed convolution of stride 2 and padding 1."""

    def __init__(self, in_channels: int, out_channels: int, bias: bool):
        super().__init__(in_channels, out_channels, 4, stride=2, padding=1, bias=bias)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c_out 2*h 2*w"]:
        b, c, h, w = x.shape
        if not few_pixels(x, b * h * w):
            return super().forward(x)
        weight = self.weight.permute(0, 2, 3, 1).reshape(c, -1)
        patches = (x.permute(0, 2, 3, 1).reshape(-1, c) @ weight).view(b, h, w, 2, 2, 2, 2, -1)
        # Patches overlap by half: quarter (p, q) of each is added one cell of 2x2 pixels further down or right.
        padded = F.pad(patches[:, :, :, 0, :, 0], (0, 0, 0, 0, 0, 0, 0, 1, 0, 1))
        for p, q in [(0, 1), (1, 0), (1, 1)]:
            padded[:, p:p + h, q:q + w] += patches[:, :, :, p, :, q]
        pixels = padded.permute(0, 1, 3, 2, 4, 5).reshape(b, 2 * h + 2, 2 * w + 2, -1)[:, 1:-1, 1:-1]
        return (pixels if self.bias is None else pixels + self.bias).permute(0, 3, 1, 2)
