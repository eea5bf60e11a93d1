"""One training step: a forward pass, the losses, two backward passes, two updates (paper, 3.2
'Rendering and Loss')."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from data_util import crop_border
from deep_voxels import Integration, Rendering
from losses import LossWeights, adversarial_loss, discriminator_loss, known_mean
from machine.runtime import autocast
from training.data import Batch
from training.guard import check_finite, gradients_of
from training.networks import Networks
from training.stability import volume_penalty


class Losses(NamedTuple):
    """The losses of a step and its PSNR (dB), averaged over targets, the volume's largest value
    (None for a model without a volume), and the loss of structure (None unless it has a weight).

    generator: the adversarial loss of the model, as what generates images. All stay on the device,
    so that a step need not wait for it.
    """

    l1: Float[Tensor, ""]
    generator: Float[Tensor, ""]
    discriminator: Float[Tensor, ""]
    psnr: Float[Tensor, ""]
    volume_max: Float[Tensor, ""] | None
    ssim: Float[Tensor, ""] | None = None

    @property
    def known(self) -> dict[str, Float[Tensor, ""]]:
        """The values that are not None, by name."""
        return {name: value for name, value in self._asdict().items() if value is not None}

    def on_host(self) -> dict[str, float]:
        """The same as numbers. Waits for the device, once."""
        values = self.known
        return dict(zip(values, torch.stack(list(values.values())).tolist(), strict=True))


class Step(NamedTuple):
    """What a step did. `finite[i]`: whether `guard.CHECKED[i]` was finite. If one was not, the step
    changed nothing."""

    losses: Losses
    rendering: Rendering
    integration: Integration | None
    finite: Bool[Tensor, "checks"]


def train_step(
    networks: Networks,
    batch: Batch,
    weights: LossWeights,
    precision: str = "fp32",
) -> Step:
    """Takes both gradients from one forward pass, then updates both networks, then stores the new
    volume. The model's loss is the weighted sum of l1, generator and ssim, and the penalty of
    `weights.volume_limit`.

    Where a target image is unknown, no loss sees anything: both images are gray there for the
    discriminator.

    If a loss, a gradient or the volume is not finite, the step is skipped: weights, running
    statistics and volume stay as they were. The device decides this; nothing here waits for it.

    With several ranks, `batch` holds this rank's share of the target views, and batch norms see
    only those.
    """
    model = networks.model
    discriminator = networks.discriminator
    for optimizer in networks.optimizers.values():
        optimizer.zero_grad()  # before the forward pass, which can then reuse the gradients' memory
    statistics_before = networks.running_statistics.copy()
    with autocast(precision, batch.source_image.device):
        rendering, integration = model(
            batch.source_image, batch.source_cam2world, batch.target_cam2world
        )
        fake = crop_border(rendering.images)
        real = crop_border(batch.target_images)
        known = None
        if batch.target_mask is not None:
            known = crop_border(batch.target_mask)
            fake = fake * known
            real = real * known
        fake_logits = discriminator(fake)
        real_logits = discriminator(real)

    l1, psnr = l1_and_psnr(fake.float(), real, known)
    generator = adversarial_loss(fake_logits.float(), real=True)
    discrimination = discriminator_loss(real_logits.float(), fake_logits.float())
    model_loss = weights.l1 * l1 + generator
    ssim = None
    if weights.ssim:
        ssim = networks.structure_loss(fake.float(), real, known)
        model_loss = model_loss + weights.ssim * ssim
    if integration is not None and weights.volume_limit:
        model_loss = model_loss + volume_penalty(integration.volume, weights.volume_limit)

    # `inputs`: each loss reaches its own network alone, though both go through the discriminator.
    # The discriminator's backward pass comes first, so that the model's can free the large
    # activations of rendering as it goes.
    discrimination.backward(inputs=networks.discriminator_parameters, retain_graph=True)
    model_loss.backward(inputs=networks.model_parameters)

    volume = None
    volume_max = None
    if integration is not None:
        volume = integration.volume.detach()
        volume_max = volume.max()
    losses = Losses(
        l1.detach(),
        generator.detach(),
        discrimination.detach(),
        psnr,
        volume_max,
        None if ssim is None else ssim.detach(),
    )

    if networks.ranks.count > 1:  # from here on all ranks have the same numbers, and decide alike
        parameters = networks.model_parameters + networks.discriminator_parameters
        averaged = [
            *gradients_of(parameters),
            *networks.running_statistics.means_and_variances,
            *losses.known.values(),
        ]
        if volume is not None:
            averaged.append(volume)
        networks.ranks.average_(averaged)

    finite = check_finite(
        [losses.l1, losses.generator, losses.discriminator],
        [networks.model_parameters, networks.discriminator_parameters],
        volume,
    )
    all_finite = finite.all()
    torch.logical_not(all_finite, out=networks.found_inf)
    for optimizer in networks.optimizers.values():
        optimizer.step()
    networks.running_statistics.restore_unless(all_finite, statistics_before)
    if volume is not None:
        model.remember(torch.where(all_finite, volume, model.deepvoxels))
    return Step(losses, rendering, integration, finite)


def l1_and_psnr(
    images: Float[Tensor, "v 3 h w"],
    truth: Float[Tensor, "v 3 h w"],
    known: Float[Tensor, "v 1 h w"] | None,
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """The l1 loss and the PSNR (dB, of images whose values span 1), over the known pixels of each
    image, then averaged over the images: the PSNR over those that have such pixels, 0 if none has.
    No gradient flows from the PSNR."""
    error = images - truth
    squared = error.detach().square()
    if known is None:
        return error.abs().mean(), -10 * squared.mean(dim=(1, 2, 3)).log10().mean()
    shown = known.amax(dim=(1, 2, 3))  # 1 for an image of which anything is known
    psnr = torch.where(shown > 0, -10 * known_mean(squared, known).log10(), 0)
    return known_mean(error.abs(), known).mean(), psnr.sum() / shown.sum().clamp_min(1)
