"""The deep autoencoder that the baselines of Tatarchenko et al. and of Worrall et al. share: a view
to a latent vector, a latent vector to a view.

The paper says that both are autoencoders whose latent space carries the pose; its supplement, which
lists the layers, is not at hand. Ours: convolution blocks down to 4x4 and up from there, those of
DeepVoxels' own 2D networks with their channel rule; fully connected layers in between, as both
methods have them, initialised after He et al. (2015) because PyTorch's default lets the signal fade
where no norm follows.
"""

from jaxtyping import Float
from torch import Tensor, nn

from baselines.width import outermost_width
from pytorch_prototyping.blocks import LEAKY_SLOPE, Conv2dSame, DownBlock, UpBlock

INNERMOST_SIDELENGTH = 4


def level_channels(width: int, img_sidelength: int) -> list[int]:
    """The channels of an image's features at half its size, a quarter, ... and
    `INNERMOST_SIDELENGTH` pixels."""
    levels = (img_sidelength // INNERMOST_SIDELENGTH).bit_length() - 1
    outermost = outermost_width(width)
    return [min(outermost * 2 ** min(level, 3), width) for level in range(levels - 1)] + [width]


class Encoder(nn.Module):
    """An image in [-1/2, 1/2] to a latent vector."""

    def __init__(self, width: int, img_sidelength: int, latent_size: int):
        super().__init__()
        channels = [3, *level_channels(width, img_sidelength)]
        blocks = [
            DownBlock(channels[i], channels[i + 1], middle_channels=channels[1] if i == 0 else None)
            for i in range(len(channels) - 1)
        ]
        self.net = nn.Sequential(
            *blocks, nn.Flatten(), linear(width * INNERMOST_SIDELENGTH**2, latent_size)
        )

    def forward(self, image: Float[Tensor, "n 3 s s"]) -> Float[Tensor, "n latent"]:
        return self.net(image)


class Decoder(nn.Module):
    """A vector to an image in [-1/2, 1/2], through one hidden layer of `hidden_size`."""

    def __init__(self, width: int, img_sidelength: int, in_size: int, hidden_size: int):
        super().__init__()
        channels = level_channels(width, img_sidelength)[::-1]
        channels.append(channels[-1])
        blocks = [UpBlock(channels[i], channels[i + 1]) for i in range(len(channels) - 1)]
        self.net = nn.Sequential(
            linear(in_size, hidden_size),
            nn.LeakyReLU(LEAKY_SLOPE, True),
            linear(hidden_size, width * INNERMOST_SIDELENGTH**2),
            nn.LeakyReLU(LEAKY_SLOPE, True),
            nn.Unflatten(1, (width, INNERMOST_SIDELENGTH, INNERMOST_SIDELENGTH)),
            *blocks,
            Conv2dSame(channels[-1], 3, 3),
            nn.Tanh(),
        )

    def forward(self, latent: Float[Tensor, "v in_size"]) -> Float[Tensor, "v 3 s s"]:
        return self.net(latent) / 2


def linear(in_size: int, out_size: int) -> nn.Linear:
    """A fully connected layer that keeps the variance of what passes through it and a leaky
    ReLU."""
    layer = nn.Linear(in_size, out_size)
    nn.init.kaiming_normal_(layer.weight, a=LEAKY_SLOPE)
    nn.init.zeros_(layer.bias)
    return layer
