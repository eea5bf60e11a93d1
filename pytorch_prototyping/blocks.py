"""Convolution blocks that keep the size of a map or volume, halve it or double it.

Sub-module names (`net.1`, ...) are those of the original's checkpoints.
"""

from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor, nn

LEAKY_SLOPE = 0.2

# Makes the norm layer for a number of channels.
Norm = Callable[[int], nn.Module]


def norm_act_dropout(
    channels: int, slope: float = 0.0, dropout: float = 0.0, norm: Norm | None = nn.BatchNorm2d
) -> list[nn.Module]:
    """The layers that follow a convolution: norm, activation, channel dropout.

    norm: None for no norm. slope: of the LeakyReLU; 0 for a ReLU. dropout: its probability; 0 for
    no dropout.
    """
    layers = [] if norm is None else [norm(channels)]
    layers.append(nn.LeakyReLU(slope, inplace=True) if slope else nn.ReLU(inplace=True))
    if dropout:
        layers.append(nn.Dropout2d(dropout))
    return layers


class Block(nn.Module):
    """Layers in a row, under the name `net`."""

    def __init__(self, *layers: nn.Module):
        super().__init__()
        self.net = nn.Sequential(*layers)

    def forward(self, x: Float[Tensor, "b c *size"]) -> Float[Tensor, "b c_out *size_out"]:
        return self.net(x)


class Conv2dSame(Block):
    """2D convolution that keeps height and width (odd kernel): reflection padding, then the
    convolution."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, bias: bool = True):
        super().__init__(
            nn.ReflectionPad2d(kernel_size // 2),
            nn.Conv2d(in_channels, out_channels, kernel_size, bias=bias),
        )


class Conv3dSame(Block):
    """3D convolution that keeps depth, height and width (odd kernel): replication padding, then the
    convolution."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, bias: bool = True):
        super().__init__(
            nn.ReplicationPad3d(kernel_size // 2),
            nn.Conv3d(in_channels, out_channels, kernel_size, bias=bias),
        )


class DownBlock(Block):
    """Halves a map: 3x3 convolution, then 4x4 convolution of stride 2, both with reflection
    padding.

    Convolutions have a bias only without `norm`.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        middle_channels: int | None = None,
        norm: Norm | None = nn.BatchNorm2d,
        dropout: float = 0.0,
    ):
        middle = in_channels if middle_channels is None else middle_channels
        super().__init__(
            nn.ReflectionPad2d(1),
            nn.Conv2d(in_channels, middle, 3, bias=norm is None),
            *norm_act_dropout(middle, LEAKY_SLOPE, dropout, norm),
            nn.ReflectionPad2d(1),
            nn.Conv2d(middle, out_channels, 4, stride=2, bias=norm is None),
            *norm_act_dropout(out_channels, LEAKY_SLOPE, dropout, norm),
        )


class UpBlock(Block):
    """Doubles a map: 4x4 transposed convolution of stride 2, then a 3x3 `Conv2dSame`.

    Convolutions have a bias only without `norm`.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        norm: Norm | None = nn.BatchNorm2d,
        dropout: float = 0.0,
    ):
        super().__init__(
            nn.ConvTranspose2d(
                in_channels, out_channels, 4, stride=2, padding=1, bias=norm is None
            ),
            *norm_act_dropout(out_channels, dropout=dropout, norm=norm),
            Conv2dSame(out_channels, out_channels, 3, bias=norm is None),
            *norm_act_dropout(out_channels, dropout=dropout, norm=norm),
        )


class DownBlock3d(Block):
    """Halves a volume: 4x4x4 convolution of stride 2 with replication padding, with a bias only
    without `norm`."""

    def __init__(self, in_channels: int, out_channels: int, norm: Norm | None = nn.BatchNorm3d):
        super().__init__(
            nn.ReplicationPad3d(1),
            nn.Conv3d(in_channels, out_channels, 4, stride=2, bias=norm is None),
            *norm_act_dropout(out_channels, LEAKY_SLOPE, norm=norm),
        )


class UpBlock3d(Block):
    """Doubles a volume: 4x4x4 transposed convolution of stride 2, with a bias only without
    `norm`."""

    def __init__(self, in_channels: int, out_channels: int, norm: Norm | None = nn.BatchNorm3d):
        super().__init__(
            nn.ConvTranspose3d(
                in_channels, out_channels, 4, stride=2, padding=1, bias=norm is None
            ),
            *norm_act_dropout(out_channels, norm=norm),
        )
