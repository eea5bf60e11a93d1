"""U-Nets (Ronneberger et al., 2015) for maps and for volumes, from nested skip blocks."""

from collections.abc import Callable
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pytorch_prototyping.blocks import (
    LEAKY_SLOPE,
    Conv2dSame,
    Conv3dSame,
    DownBlock,
    DownBlock3d,
    Norm,
    UpBlock,
    UpBlock3d,
    norm_act_dropout,
)


class SkipBlock(nn.Module):
    """One level of a U-Net: a down block, the levels inside it (None for the innermost), an up
    block. Returns the input and the up block's output, concatenated."""

    def __init__(self, down: nn.Module, inside: nn.Module | None, up: nn.Module):
        super().__init__()
        self.model = nn.Sequential(*(block for block in (down, inside, up) if block is not None))

    def forward(self, x: Float[Tensor, "b c *size"]) -> Float[Tensor, "b 2*c *size"]:
        return torch.cat([x, self.model(x)], dim=1)


def nested_skip_blocks(
    down_block: Callable[..., nn.Module],
    up_block: Callable[..., nn.Module],
    norm: Norm,
    nf0: int,
    num_down: int,
    max_channels: int,
) -> SkipBlock:
    """The `num_down` levels of a U-Net, built from the innermost outwards.

    Channels double per level, from nf0 up to `max_channels`. The innermost level keeps its number
    of channels and has no norm: there a map may be 1x1, which has no variance.

    `down_block` and `up_block` are called with (in_channels, out_channels, norm=...).
    """
    channels = [  # outside of each level, and inside the innermost
        min(nf0 * 2 ** min(level, num_down - 1), max_channels) for level in range(num_down + 1)
    ]
    block = None
    for outer, inner in reversed(list(pairwise(channels))):
        if block is None:
            block = SkipBlock(
                down_block(outer, inner, norm=None), None, up_block(inner, outer, norm=None)
            )
        else:
            block = SkipBlock(
                down_block(outer, inner, norm=norm), block, up_block(2 * inner, outer, norm=norm)
            )
    return block


class Unet(nn.Module):
    """2D U-Net: 3x3 in-layer to nf0 channels (at most max_channels), skip blocks, 3x3 out-layer.

    Height and width must be divisible by 2^num_down. With `linear_out` the out-layer is a plain
    convolution with bias; otherwise norm, ReLU and dropout follow it. `dropout` is the probability
    of channel dropout after every activation, 0 for none.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        nf0: int,
        num_down: int,
        max_channels: int,
        dropout: float = 0.0,
        linear_out: bool = False,
        norm: Norm = nn.BatchNorm2d,
    ):
        super().__init__()
        nf0 = min(nf0, max_channels)
        self.in_layer = nn.Sequential(
            Conv2dSame(in_channels, nf0, 3, bias=False),
            *norm_act_dropout(nf0, LEAKY_SLOPE, dropout, norm),
        )
        self.unet_block = nested_skip_blocks(
            lambda *channels, norm: DownBlock(*channels, norm=norm, dropout=dropout),
            lambda *channels, norm: UpBlock(*channels, norm=norm, dropout=dropout),
            norm,
            nf0,
            num_down,
            max_channels,
        )
        self.out_layer = nn.Sequential(
            Conv2dSame(2 * nf0, out_channels, 3, bias=linear_out),
            *([] if linear_out else norm_act_dropout(out_channels, dropout=dropout, norm=norm)),
        )

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c_out h w"]:
        return self.out_layer(self.unet_block(self.in_layer(x)))


class Unet3d(nn.Module):
    """3D U-Net: as `Unet`, but a level has one strided convolution down and one transposed
    convolution up, and there is no dropout.

    Depth, height and width must be divisible by 2^num_down.
    """

    def __init__(
        self, in_channels: int, out_channels: int, nf0: int, num_down: int, max_channels: int
    ):
        super().__init__()
        self.in_layer = nn.Sequential(
            Conv3dSame(in_channels, nf0, 3, bias=False),
            *norm_act_dropout(nf0, LEAKY_SLOPE, norm=nn.BatchNorm3d),
        )
        self.unet_block = nested_skip_blocks(
            DownBlock3d, UpBlock3d, nn.BatchNorm3d, nf0, num_down, max_channels
        )
        self.out_layer = nn.Sequential(
            Conv3dSame(2 * nf0, out_channels, 3, bias=False),
            *norm_act_dropout(out_channels, norm=nn.BatchNorm3d),
        )

    def forward(self, x: Float[Tensor, "b c d h w"]) -> Float[Tensor, "b c_out d h w"]:
        return self.out_layer(self.unet_block(self.in_layer(x)))
