"""3x3 convolutions of many channels with a quarter of the multiplications.

Winograd's F(4x4, 3x3) as Lavin and Gray give it (CVPR 2016, section 4.3): the kernel and tiles of
6x6 pixels that overlap by 2 are transformed, multiplied channel by channel, and transformed back to
4x4 pixels. The gradient of the input is the convolution of the output's gradient with the mirrored
kernel; that of the kernel is the transpose.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from cpu_kernels import thresholds


def transform_of_square(*rows: list[float]) -> Tensor:
    """The matrix that transforms a square, flattened to a vector, from the one that transforms rows
    and columns."""
    matrix = torch.tensor(rows)
    return torch.kron(matrix, matrix)


INPUT_TRANSFORM = transform_of_square(
    [4.0, 0.0, -5.0, 0.0, 1.0, 0.0],
    [0.0, -4.0, -4.0, 1.0, 1.0, 0.0],
    [0.0, 4.0, -4.0, -1.0, 1.0, 0.0],
    [0.0, -2.0, -1.0, 2.0, 1.0, 0.0],
    [0.0, 2.0, -1.0, -2.0, 1.0, 0.0],
    [0.0, 4.0, 0.0, -5.0, 0.0, 1.0],
)
KERNEL_TRANSFORM = transform_of_square(
    [1 / 4, 0.0, 0.0],
    [-1 / 6, -1 / 6, -1 / 6],
    [-1 / 6, 1 / 6, -1 / 6],
    [1 / 24, 1 / 12, 1 / 6],
    [1 / 24, -1 / 12, 1 / 6],
    [0.0, 0.0, 1.0],
)
OUTPUT_TRANSFORM = transform_of_square(
    [1.0, 1.0, 1.0, 1.0, 1.0, 0.0],
    [0.0, 1.0, -1.0, 2.0, -2.0, 0.0],
    [0.0, 1.0, 1.0, 4.0, 4.0, 0.0],
    [0.0, 1.0, -1.0, 8.0, -8.0, 1.0],
)


def fits_tiles(x: Float[Tensor, "b c h w"], weight: Float[Tensor, "c_out c k k"]) -> bool:
    """Whether tiles cover the output of a convolution of stride 1 without padding, and are the
    faster way."""
    b, _, h, w = x.shape
    return (
        tuple(weight.shape[2:]) == (3, 3)
        and min(weight.shape[:2]) >= thresholds.WINOGRAD_MIN_CHANNELS
        and (h - 2) % 4 == (w - 2) % 4 == 0
        and b * (h - 2) * (w - 2) >= 16 * thresholds.WINOGRAD_MIN_TILES
        and x.dtype == torch.float32
        and not torch.is_autocast_enabled("cpu")
        and (weight.numel() <= thresholds.WINOGRAD_MAX_WEIGHTS or not torch.is_grad_enabled())
    )


class WinogradConv2d(torch.autograd.Function):
    """`F.conv2d` where `fits_tiles`."""

    @staticmethod
    def forward(
        ctx,
        x: Float[Tensor, "b c h w"],
        weight: Float[Tensor, "c_out c 3 3"],
        bias: Float[Tensor, "c_out"] | None,
    ) -> Float[Tensor, "b c_out h-2 w-2"]:
        ctx.save_for_backward(x, weight)
        return convolve_tiles(x, transform_kernel(weight), bias)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Float[Tensor, "b c_out h_out w_out"]) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        grad_x = grad_weight = None
        grad_bias = grad.sum(dim=(0, 2, 3)) if ctx.needs_input_grad[2] else None
        if ctx.needs_input_grad[0]:
            h, w = x.shape[2:]
            padded = F.pad(grad, (2, 2 + -w % 4, 2, 2 + -h % 4))
            grad_x = convolve_tiles(
                padded, transform_kernel(weight.flip(2, 3).transpose(0, 1)), None
            )[:, :, :h, :w]
        if ctx.needs_input_grad[1]:
            grad_kernel = transform_input(x).transpose(1, 2) @ transform_grad_output(grad)
            taps = KERNEL_TRANSFORM.T @ grad_kernel.view(36, -1)
            grad_weight = taps.view(3, 3, *weight.shape[1::-1]).permute(3, 2, 0, 1)
        return grad_x, grad_weight, grad_bias


def transform_kernel(weight: Float[Tensor, "c_out c 3 3"]) -> Float[Tensor, "36 c c_out"]:
    c_out, c = weight.shape[:2]
    return (KERNEL_TRANSFORM @ weight.permute(2, 3, 1, 0).reshape(9, -1)).view(36, c, c_out)


def transform_input(x: Float[Tensor, "b c h w"]) -> Float[Tensor, "36 tiles c"]:
    tiles = x.permute(0, 2, 3, 1).unfold(1, 6, 4).unfold(2, 6, 4).permute(4, 5, 0, 1, 2, 3)
    return (INPUT_TRANSFORM @ tiles.reshape(36, -1)).view(36, -1, x.shape[1])


def transform_grad_output(grad: Float[Tensor, "b c_out h w"]) -> Float[Tensor, "36 tiles c_out"]:
    b, c_out, h, w = grad.shape
    tiles = (
        grad.permute(0, 2, 3, 1).reshape(b, h // 4, 4, w // 4, 4, c_out).permute(2, 4, 0, 1, 3, 5)
    )
    return (OUTPUT_TRANSFORM.T @ tiles.reshape(16, -1)).view(36, -1, c_out)


def convolve_tiles(
    x: Float[Tensor, "b c h w"],
    kernel: Float[Tensor, "36 c c_out"],
    bias: Float[Tensor, "c_out"] | None,
) -> Float[Tensor, "b c_out h-2 w-2"]:
    """The convolution with a transformed kernel."""
    b, _, h, w = x.shape
    c_out = kernel.shape[2]
    output = torch.empty(b, c_out, h - 2, w - 2, memory_format=torch.channels_last)
    pixels = OUTPUT_TRANSFORM @ (transform_input(x) @ kernel).view(36, -1)
    pixels = pixels.view(4, 4, b, (h - 2) // 4, (w - 2) // 4, c_out).permute(2, 3, 0, 4, 1, 5)
    output.permute(0, 2, 3, 1).view(pixels.shape).copy_(pixels)
    return output if bias is None else output.add_(bias[:, None, None])
