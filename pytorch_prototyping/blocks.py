"""Convolution blocks that keep a map's size, halve it or double it.

They know nothing about scenes or cameras. Sub-module names (`net.1`, ...) are those of the original's checkpoints.
"""
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from cpu_kernels.conv2d import Conv2d, DoublingConv2d
from cpu_kernels.lean import BatchNormAct2d, ReflectionPad2d, activation
from cpu_kernels.narrow import (
    DoublingConv3d,
    FoldedConv3d,
    HalvingConv3d,
    NarrowBatchNorm3d,
    fills,
    takes_slow_path,
)
from cpu_kernels.padding import ReplicationPad3d, replication_pad3d

LEAKY_SLOPE = 0.2


class Conv2dSame(nn.Module):
    """2D convolution that keeps height and width (odd kernel): reflection padding, then the convolution."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, bias: bool = True):
        super().__init__()
        self.net = nn.Sequential(ReflectionPad2d(kernel_size // 2),
                                 Conv2d(in_channels, out_channels, kernel_size, bias=bias))

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c_out h w"]:
        return self.net(x)


class Conv3dSame(nn.Module):
    """3D convolution that keeps depth, height and width (odd kernel): replication padding, then the convolution."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, bias: bool = True):
        super().__init__()
        self.net = nn.Sequential(ReplicationPad3d(kernel_size // 2),
                                 nn.Conv3d(in_channels, out_channels, kernel_size, bias=bias))

    def forward(self, x: Float[Tensor, "b c d h w"]) -> Float[Tensor, "b c_out d h w"]:
        _, conv = self.net
        return conv3d_same(x, conv.weight, conv.bias)


def norm_act_dropout(channels: int, slope: float = 0.0, dropout: float = 0.0, norm: bool = True) -> list[nn.Module]:
    """What follows a 2D convolution: batch norm (unless not `norm`), LeakyReLU, channel dropout (if `dropout` > 0).

    `BatchNormAct2d` holds the others; the places that these have in original checkpoints stay.
    """
    if norm:
        return [BatchNormAct2d(channels, slope, dropout), nn.Identity(), *([nn.Identity()] if dropout else [])]
    return [activation(slope), *([nn.Dropout2d(dropout)] if dropout else [])]


class DownBlock(nn.Module):
    """Halves a map: 3x3 convolution, then 4x4 of stride 2, both with reflection padding.

    Convolutions have a bias only without `norm`.
    """

    def __init__(self, in_channels: int, out_channels: int, middle_channels: int | None = None,
                 norm: bool = True, dropout: float = 0.0):
        super().__init__()
        middle = in_channels if middle_channels is None else middle_channels
        self.net = nn.Sequential(
            ReflectionPad2d(1),
            Conv2d(in_channels, middle, 3, bias=not norm),
            *norm_act_dropout(middle, LEAKY_SLOPE, dropout, norm),
            ReflectionPad2d(1),
            Conv2d(middle, out_channels, 4, stride=2, bias=not norm),
            *norm_act_dropout(out_channels, LEAKY_SLOPE, dropout, norm))

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c_out h//2 w//2"]:
        return self.net(x)


class UpBlock(nn.Module):
    """Doubles a map: 4x4 transposed convolution of stride 2, then a 3x3 `Conv2dSame`.

    Convolutions have a bias only without `norm`.
    """

    def __init__(self, in_channels: int, out_channels: int, norm: bool = True, dropout: float = 0.0):
        super().__init__()
        self.net = nn.Sequential(
            DoublingConv2d(in_channels, out_channels, bias=not norm),
            *norm_act_dropout(out_channels, 0.0, dropout, norm),
            Conv2dSame(out_channels, out_channels, 3, bias=not norm),
            *norm_act_dropout(out_channels, 0.0, dropout, norm))

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c_out 2*h 2*w"]:
        return self.net(x)


class DownBlock3d(nn.Module):
    """Halves a volume: 4x4x4 convolution of stride 2 with replication padding. A bias only without `norm`."""

    def __init__(self, in_channels: int, out_channels: int, norm: bool = True):
        super().__init__()
        self.net = nn.Sequential(
            ReplicationPad3d(1),
            HalvingConv3d(in_channels, out_channels, bias=not norm),
            *([NarrowBatchNorm3d(out_channels)] if norm else []),
            nn.LeakyReLU(LEAKY_SLOPE, True))

    def forward(self, x: Float[Tensor, "b c d h w"]) -> Float[Tensor, "b c_out d//2 h//2 w//2"]:
        return self.net(x)


class UpBlock3d(nn.Module):
    """Doubles a volume: 4x4x4 transposed convolution of stride 2. A bias only without `norm`."""

    def __init__(self, in_channels: int, out_channels: int, norm: bool = True):
        super().__init__()
        self.net = nn.Sequential(
            DoublingConv3d(in_channels, out_channels, bias=not norm),
            *([NarrowBatchNorm3d(out_channels)] if norm else []),
            nn.ReLU(True))

    def forward(self, x: Float[Tensor, "b c d h w"]) -> Float[Tensor, "b c_out 2*d 2*h 2*w"]:
        return self.net(x)


def conv3d_same(x: Float[Tensor, "b c d h w"], weight: Float[Tensor, "c_out c k k k"],
                bias: Float[Tensor, "c_out"] | None = None) -> Float[Tensor, "b c_out d h w"]:
    """3D convolution that keeps depth, height and width: replication padding, then the convolution."""
    one_learns = len(x) == 1 and torch.is_grad_enabled()  # the folded convolution's gradient would take the slow path
    if (fills(x, 4 * weight.shape[0]) and not one_learns and tuple(weight.shape[2:]) == (3, 3, 3)
            and x.shape[3] % 2 == x.shape[4] % 2 == 0):
        return FoldedConv3d.apply(x, weight, bias)
    return conv3d(replication_pad3d(x, weight.shape[2] // 2), weight, bias)


def conv3d(x: Float[Tensor, "b c d h w"], weight: Float[Tensor, "c_out c k k k"],
           bias: Float[Tensor, "c_out"] | None = None) -> Float[Tensor, "b c_out d_out h_out w_out"]:
    """`F.conv3d` without padding. What would take PyTorch's slow path, a small batch of one, is cut in two along depth
    and so a batch of two."""
    if takes_slow_path(x) and x.shape[2] > 2 * weight.shape[2]:
        kernel = weight.shape[2]
        half = (x.shape[2] - kernel + 1) // 2
        if x.shape[2] - kernel + 1 == 2 * half:
            halves = torch.cat([x[:, :, :half + kernel - 1], x[:, :, half:]])
            return torch.cat(F.conv3d(halves, weight, bias).split(1), dim=2)
    return F.conv3d(x, weight, bias)


def fold_batch_norms_(module: nn.Module) -> nn.Module:
    """Replaces every batch norm that directly follows a convolution by an equal change of the convolution's weights.

    For evaluation alone: what is left has no statistics to learn.
    """
    for layers in [part for part in module.modules() if isinstance(part, nn.Sequential)]:
        for i in range(len(layers) - 1):
            holder, index = (layers[i].net, 1) if isinstance(layers[i], (Conv2dSame, Conv3dSame)) else (layers, i)
            if isinstance(layers[i + 1], nn.modules.batchnorm._BatchNorm) and hasattr(holder[index], "kernel_size"):
                holder[index] = fuse_conv_bn_eval(holder[index], layers[i + 1], transpose=holder[index].transposed)
                layers[i + 1] = layers[i + 1].activation if isinstance(layers[i + 1], BatchNormAct2d) else nn.Identity()
    return channels_last_(module)


def channels_last_(module: nn.Module) -> nn.Module:
    """Stores a module's convolution weights channels-last, the layout in which convolutions run fastest."""
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    for parameter in module.parameters():
        if parameter.dim() in formats:
            parameter.data = parameter.data.contiguous(memory_format=formats[parameter.dim()])
    return module
