"""2D convolutions of maps of few pixels as matrix products.

The inner levels of a U-Net have many channels and hardly a pixel. PyTorch's convolution spends
their time on rearranging the weights in every call. A matrix product takes them as they lie in
memory, channels-last; another one gathers the pixels of each window.
"""

from functools import cache

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from cpu_kernels import thresholds


def has_few_pixels(x: Float[Tensor, "b c h w"], pixels_out: int) -> bool:
    """Whether matrix products are the faster way from this input to maps of `pixels_out` pixels."""
    return (
        pixels_out * x.shape[2:].numel() <= thresholds.FEW_PIXELS_MAX_PAIRS
        and x.shape[1] >= thresholds.FEW_PIXELS_MIN_CHANNELS
        and not torch.is_autocast_enabled("cpu")
    )


@cache
def window_matrix(
    height: int,
    width: int,
    kernel: int,
    stride: int,
    padding: int,
    dtype: torch.dtype,
) -> Float[Tensor, "taps pixels"]:
    """The matrix of zeros and ones that gathers the pixels of each window of a map, row by row;
    zeros outside."""
    with torch.inference_mode(
        False
    ):  # training cannot use a tensor that was made in inference mode
        pixels = torch.eye(height * width, dtype=dtype).view(-1, height, width)
        taps = F.pad(pixels, 4 * [padding]).unfold(1, kernel, stride).unfold(2, kernel, stride)
        return taps.flatten(1).T.contiguous()


def conv2d_few_pixels(
    x: Float[Tensor, "b c h w"],
    weight: Float[Tensor, "c_out c k k"],
    bias: Float[Tensor, "c_out"] | None,
    stride: int,
) -> Float[Tensor, "b c_out h_out w_out"]:
    """`F.conv2d` without padding."""
    b, c, h, w = x.shape
    c_out, _, kernel, _ = weight.shape
    taps = window_matrix(h, w, kernel, stride, 0, x.dtype) @ x.permute(0, 2, 3, 1).reshape(
        b, h * w, c
    )
    pixels = F.linear(
        taps.view(b, -1, kernel * kernel * c), weight.permute(0, 2, 3, 1).reshape(c_out, -1), bias
    )
    return pixels.view(b, (h - kernel) // stride + 1, -1, c_out).permute(0, 3, 1, 2)


def conv_transpose2d_few_pixels(
    x: Float[Tensor, "b c h w"],
    weight: Float[Tensor, "c c_out 4 4"],
    bias: Float[Tensor, "c_out"] | None,
) -> Float[Tensor, "b c_out 2*h 2*w"]:
    """`F.conv_transpose2d` of stride 2 and padding 1: the transpose of gathering windows of the
    output."""
    b, c, h, w = x.shape
    taps = x.permute(0, 2, 3, 1).reshape(-1, c) @ weight.permute(0, 2, 3, 1).reshape(c, -1)
    pixels = window_matrix(2 * h, 2 * w, 4, 2, 1, x.dtype).T @ taps.view(b, 16 * h * w, -1)
    pixels = pixels.view(b, 2 * h, 2 * w, -1)
    return (pixels if bias is None else pixels + bias).permute(0, 3, 1, 2)
