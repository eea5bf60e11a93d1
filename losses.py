"""The adversarial loss and its discriminator (paper, 3.2 'Rendering and Loss'), and a loss of
structure, which is not in the paper.

The l1 loss, and the sum of all, are in `training.step`.
"""

from collections.abc import Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from pytorch_prototyping.blocks import LEAKY_SLOPE

SSIM_WINDOW = 7  # pixels
SSIM_CONSTANTS = (0.01**2, 0.03**2)  # C_1 and C_2, of values that span 1


class LossWeights(NamedTuple):
    """The weights of the model's losses beside the adversarial loss, which weighs 1; 0: not
    computed. volume_limit: see `--volume_limit`; 0 for none."""

    l1: float = 200.0
    ssim: float = 0.0
    volume_limit: float = 0.0

    def total(self, losses: Mapping[str, float]) -> float:
        """The sum that the progress bar shows, of a step's losses by their names in
        `training.step.Losses`."""
        total = self.l1 * losses["l1"] + losses["generator"]
        return total + self.ssim * losses.get("ssim", 0.0)


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


class StructureLoss(nn.Module):
    """1 - SSIM (Wang et al., 2004, equation 13) of images in [-1/2, 1/2], averaged over each
    image's windows of 7x7 pixels, those that are known entirely, then over the images.

    All pixels of a window weigh the same. `known`: see `known_mean`.
    """

    def __init__(self):
        super().__init__()
        self.window_mean = nn.AvgPool2d(SSIM_WINDOW, stride=1)

    def forward(
        self,
        images: Float[Tensor, "v 3 h w"],
        truth: Float[Tensor, "v 3 h w"],
        known: Float[Tensor, "v 1 h w"] | None = None,
    ) -> Float[Tensor, ""]:
        x = images + 0.5
        y = truth + 0.5
        mean_x = self.window_mean(x)
        mean_y = self.window_mean(y)
        variance_x = self.window_mean(x * x) - mean_x * mean_x
        variance_y = self.window_mean(y * y) - mean_y * mean_y
        covariance = self.window_mean(x * y) - mean_x * mean_y
        c1, c2 = SSIM_CONSTANTS
        luminance = (2 * mean_x * mean_y + c1) / (mean_x * mean_x + mean_y * mean_y + c1)
        contrast_and_structure = (2 * covariance + c2) / (variance_x + variance_y + c2)
        loss = 1 - luminance * contrast_and_structure
        if known is None:
            return loss.mean()
        return known_mean(loss, (self.window_mean(known) > 1 - 1e-4).to(loss.dtype)).mean()


def known_mean(
    values: Float[Tensor, "b c h w"], known: Float[Tensor, "b 1 h w"]
) -> Float[Tensor, "b"]:
    """Each image's mean over the pixels where `known` is 1 (where it is 0, the true image is not
    known: see `training.data.Batch`); 0 if there are none."""
    count = known.sum(dim=(1, 2, 3)) * values.shape[1]
    return (values * known).sum(dim=(1, 2, 3)) / count.clamp_min(1)
