"""The adversarial loss and its discriminator (paper, 3.2 'Rendering and Loss').

The l1 loss, and the sum of the two, are in `training.step`.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from pytorch_prototyping.blocks import LEAKY_SLOPE


class PatchDiscriminator(nn.Module):
    """The patch-based discriminator: tells real image patches from rendered ones, with one logit
    per patch. Images in [-1/2, 1/2]. Channels and dropout are the original's."""

    def __init__(self):
        super().__init__()
        layers = [
            nn.ReflectionPad2d(1),
            nn.Conv2d(3, 28, 4, stride=2),
            nn.LeakyReLU(LEAKY_SLOPE, True),
        ]
        for in_channels, out_channels, stride in [(28, 56, 2), (56, 112, 2), (112, 224, 1)]:
            layers += [
                nn.ReflectionPad2d(1),
                nn.Conv2d(in_channels, out_channels, 4, stride=stride),
                nn.BatchNorm2d(out_channels),
                nn.Dropout2d(0.5),
                nn.LeakyReLU(LEAKY_SLOPE, True),
            ]
        self.model = nn.Sequential(*layers, nn.ReflectionPad2d(1), nn.Conv2d(224, 1, 4))

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 1 h_out w_out"]:
        return self.model(images)


def adversarial_loss(logits: Float[Tensor, "b 1 h w"], real: bool) -> Float[Tensor, ""]:
    """Cross entropy of the discriminator's logits with the label "real" for all patches, or
    "rendered" for all."""
    target = torch.ones_like(logits) if real else torch.zeros_like(logits)
    return F.binary_cross_entropy_with_logits(logits, target)


def discriminator_loss(
    real_logits: Float[Tensor, "b 1 h w"],
    fake_logits: Float[Tensor, "b 1 h w"],
) -> Float[Tensor, ""]:
    """The mean of the loss on real images and the loss on rendered ones."""
    return (adversarial_loss(real_logits, True) + adversarial_loss(fake_logits, False)) / 2


def known_mean(
    values: Float[Tensor, "b c h w"], known: Float[Tensor, "b 1 h w"]
) -> Float[Tensor, "b"]:
    """Each image's mean over the pixels where `known` is 1 (where it is 0, the true image is not
    known: see `training.data.Batch`); 0 if there are none."""
    count = known.sum(dim=(1, 2, 3)) * values.shape[1]
    return (values * known).sum(dim=(1, 2, 3)) / count.clamp_min(1)
