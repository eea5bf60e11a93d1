"""2D convolutions of maps of few pixels as matrix products, on the CPU.

The inner levels of a U-Net have many channels and hardly a pixel: their time goes into rearranging the weights, which
PyTorch's convolution does in every call. A matrix product takes them as they lie in memory, channels-last. Another
picks the pixels of each window.
"""
from functools import cache

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

MOST_PAIRS = 2048  # of a pixel of the input and one of the output; with more, picking takes longer than it saves
LEAST_CHANNELS = 64  # of the input; with fewer, the weights are few


def few_pixels(x: Float[Tensor, "b c h w"], pixels: int) -> bool:
    """Whether matrix products are the faster way from this input to maps of so many pixels."""
    return (x.is_cpu and pixels * x.shape[2:].numel() <= MOST_PAIRS and x.shape[1] >= LEAST_CHANNELS
            and not torch.is_autocast_enabled("cpu") and not torch.compiler.is_compiling())


@cache
def windows(height: int, width: int, kernel: int, stride: int, padding: int, dtype: torch.dtype,
            ) -> Float[Tensor, "window_taps pixels"]:
    """The matrix of zeros and ones that picks the pixels of each of a map's windows, row by row; zeros outside."""
    with torch.inference_mode(False):  # what is made within could not be remembered by a training step
        pixels = torch.eye(height * width, dtype=dtype).view(-1, height, width)
        taps = F.pad(pixels, 4 * [padding]).unfold(1, kernel, stride).unfold(2, kernel, stride)
        return taps.flatten(1).T.contiguous()


def conv2d_of_few_pixels(x: Float[Tensor, "b c h w"], weight: Float[Tensor, "c_out c k k"],
                         bias: Float[Tensor, "c_out"] | None, stride: int) -> Float[Tensor, "b c_out h_out w_out"]:
    """`F.conv2d` without padding."""
    b, c, h, w = x.shape
    c_out, _, kernel, _ = weight.shape
    taps = windows(h, w, kernel, stride, 0, x.dtype) @ x.permute(0, 2, 3, 1).reshape(b, h * w, c)
    pixels = F.linear(taps.view(b, -1, kernel * kernel * c), weight.permute(0, 2, 3, 1).reshape(c_out, -1), bias)
    return pixels.view(b, (h - kernel) // stride + 1, -1, c_out).permute(0, 3, 1, 2)


def double_few_pixels(x: Float[Tensor, "b c h w"], weight: Float[Tensor, "c c_out 4 4"],
                      bias: Float[Tensor, "c_out"] | None) -> Float[Tensor, "b c_out 2*h 2*w"]:
    """`F.conv_transpose2d` of stride 2 and padding 1: the transpose of a convolution of what it returns."""
    b, c, h, w = x.shape
    taps = x.permute(0, 2, 3, 1).reshape(-1, c) @ weight.permute(0, 2, 3, 1).reshape(c, -1)
    pixels = windows(2 * h, 2 * w, 4, 2, 1, x.dtype).T @ taps.view(b, 16 * h * w, -1)
    pixels = pixels.view(b, 2 * h, 2 * w, -1)
    return (pixels if bias is None else pixels + bias).permute(0, 3, 1, 2)
