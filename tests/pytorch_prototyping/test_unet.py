"""The blocks and U-Nets that all networks are built of: sizes, channels, padding, skips."""

import pytest
import torch
from torch import nn

from pytorch_prototyping.blocks import (
    Conv2dSame,
    Conv3dSame,
    DownBlock,
    DownBlock3d,
    UpBlock,
    UpBlock3d,
)
from pytorch_prototyping.unet import SkipBlock, Unet, Unet3d


@pytest.mark.parametrize(
    ("block", "size", "expected"),
    [
        (Conv2dSame(2, 3, 3), (6, 4), (6, 4)),
        (Conv3dSame(2, 3, 3), (6, 4, 2), (6, 4, 2)),
        (DownBlock(2, 3), (8, 4), (4, 2)),
        (UpBlock(2, 3), (4, 2), (8, 4)),
        (DownBlock3d(2, 3), (8, 4, 2), (4, 2, 1)),
        (UpBlock3d(2, 3), (4, 2, 1), (8, 4, 2)),
    ],
)
def test_a_block_keeps_halves_or_doubles_the_size(block, size, expected):
    assert block(torch.rand(2, 2, *size)).shape == (2, 3, *expected)


@pytest.mark.parametrize(("conv", "size"), [(Conv2dSame, (5, 5)), (Conv3dSame, (5, 5, 5))])
def test_padding_brings_no_border_into_an_even_picture(conv, size):
    """As zeros would."""
    output = conv(1, 1, 3)(torch.ones(1, 1, *size))
    torch.testing.assert_close(output, output.flatten()[0].expand_as(output))


@pytest.mark.parametrize(
    ("unet", "size"),
    [(Unet(2, 3, 4, 3, 16), (8, 8)), (Unet3d(2, 3, 4, 3, 16), (8, 8, 8))],
)
def test_a_unet_trains_on_one_map_whose_innermost_level_is_a_single_pixel(unet, size):
    """Batch norm would refuse a single value per channel."""
    output = unet.train()(torch.rand(1, 2, *size))
    assert output.shape == (1, 3, *size)


def test_channels_double_from_level_to_level_up_to_the_most():
    strided = [
        layer.out_channels
        for layer in Unet(2, 3, 4, 4, 16).modules()
        if isinstance(layer, nn.Conv2d) and layer.stride == (2, 2)
    ]
    assert strided == [8, 16, 16, 16]


def test_a_skip_block_passes_its_input_on():
    block = SkipBlock(DownBlock(2, 4), None, UpBlock(4, 2))
    x = torch.rand(2, 2, 8, 8)
    output = block(x)
    assert output.shape == (2, 4, 8, 8)
    assert torch.equal(output[:, :2], x)
    assert not torch.equal(output[:, 2:], x)


def test_only_convolutions_without_a_norm_have_a_bias():
    for norm in (nn.BatchNorm2d, None):
        for block in (DownBlock(2, 3, norm=norm), UpBlock(2, 3, norm=norm)):
            convolutions = [
                layer
                for layer in block.modules()
                if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d))
            ]
            assert all((layer.bias is None) == (norm is not None) for layer in convolutions)
