"""One training step: losses, gradients, updates, and what happens where a number is not finite (paper, section 3.2)."""
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from cpu_kernels.adam import Adam
from data_util import crop_border
from dataio import Views
from deep_voxels import Integration, Rendering
from losses import PatchDiscriminator, adversarial_loss, discriminator_loss
from runtime import autocast
from training.recipes import WeightAverage
from util import one_line

MOST_SKIPPED_STEPS = 5  # in a row, before training gives up


@dataclass
class Networks:
    """What training changes."""

    model: nn.Module
    discriminator: PatchDiscriminator
    model_optimizer: Adam
    discriminator_optimizer: Adam
    average: WeightAverage | None = None

    def __post_init__(self):
        # Looked up once: a walk over all modules takes milliseconds.
        self.model_parameters = list(self.model.parameters())
        self.discriminator_parameters = list(self.discriminator.parameters())
        norms = [norm for network in (self.model, self.discriminator) for norm in network.modules()
                 if isinstance(norm, nn.modules.batchnorm._BatchNorm)]
        self.running_statistics = [[statistic for norm in norms for statistic in (norm.running_mean, norm.running_var)],
                                   [norm.num_batches_tracked for norm in norms]]  # one list a dtype


class Losses(NamedTuple):
    """One step's losses, averaged over targets, and its PSNR in dB; tensors, so that no step waits for the device."""

    l1: Float[Tensor, ""]
    generator: Float[Tensor, ""]
    discriminator: Float[Tensor, ""]
    psnr: Float[Tensor, ""]


class Batch(NamedTuple):
    """One training sample on the device: a source view and its targets. Images in [-1/2, 1/2]."""

    source_image: Float[Tensor, "1 3 s s"]
    source_cam2world: Float[Tensor, "1 4 4"]
    target_images: Float[Tensor, "v 3 s s"]
    target_cam2world: Float[Tensor, "v 4 4"]


def load_batch(views: Views, triplet) -> Batch:
    """The views of a triplet (source, target 0, target 1, ...) of view indices."""
    source, targets = triplet[:1], triplet[1:]
    return Batch(views.pixels(source), views.poses(source), views.pixels(targets), views.poses(targets))


CHECKED = ("l1 loss", "generator loss", "discriminator loss", "model's gradient", "discriminator's gradient", "volume")


class Step(NamedTuple):
    """What a step did. `finite` says it of what `CHECKED` names; where one is false, the step changed nothing."""

    losses: Losses
    rendering: Rendering
    integration: Integration | None
    finite: Bool[Tensor, "checks"]


def train_step(networks: Networks, batch: Batch, l1_weight: float, precision: str = "fp32") -> Step:
    """One step: both gradients from one forward pass, then both updates, then the volume is remembered.

    Where a loss or a gradient is not finite, no weight, no running statistic and not the volume is touched. This is
    decided on the device: nothing here waits for it.
    """
    model, discriminator = networks.model, networks.discriminator
    networks.model_optimizer.zero_grad()  # before the forward pass, so that its tensors can take the gradients' place
    networks.discriminator_optimizer.zero_grad()
    statistics_before = [joined(statistics) for statistics in networks.running_statistics]
    with autocast(precision, batch.source_image.device):
        rendering, integration = model(batch.source_image, batch.source_cam2world, batch.target_cam2world)
        fake, real = crop_border(rendering.images), crop_border(batch.target_images)
        fake_logits, real_logits = discriminator(fake), discriminator(real)

    l1 = (fake.float() - real).abs().mean()
    generator = adversarial_loss(fake_logits.float(), real=True)
    discrimination = discriminator_loss(real_logits.float(), fake_logits.float())
    # The discriminator's first: what the rendering needs much memory to remember is freed as the second goes on.
    discrimination.backward(inputs=networks.discriminator_parameters, retain_graph=True)
    (l1_weight * l1 + generator).backward(inputs=networks.model_parameters)
    with torch.no_grad():
        psnr = -10 * (fake.float() - real).square().mean(dim=(1, 2, 3)).log10().mean()
    losses = Losses(l1.detach(), generator.detach(), discrimination.detach(), psnr)

    finite = what_is_finite(networks, losses, integration)
    all_finite = finite.all()
    for optimizer in (networks.model_optimizer, networks.discriminator_optimizer):
        optimizer.found_inf = 1 - all_finite.float()  # with 1 a step updates nothing
        optimizer.step()
    for statistics, before in zip(networks.running_statistics, statistics_before, strict=True):
        kept = torch.where(all_finite, joined(statistics), before).split([one.numel() for one in statistics])
        torch._foreach_copy_(statistics, [part.view_as(one) for part, one in zip(kept, statistics, strict=True)])
    if integration is not None:
        model.remember(torch.where(all_finite, integration.volume.detach(), model.deepvoxels))
    return Step(losses, rendering, integration, finite)


def joined(tensors: list[Tensor]) -> Tensor:
    """Tensors as one vector, so that a few hundred small ones take few operations."""
    return torch.cat([tensor.flatten() for tensor in tensors])


def what_is_finite(networks: Networks, losses: Losses, integration: Integration | None) -> Bool[Tensor, "checks"]:
    """Whether the losses, the gradients and the volume, if there is one, are finite: in the order of `CHECKED`."""
    values = [losses.l1, losses.generator, losses.discriminator]
    for parameters in (networks.model_parameters, networks.discriminator_parameters):
        values.append(nn.utils.get_total_norm([parameter.grad for parameter in parameters]))
    if integration is not None:
        values.append(integration.volume.detach().sum())
    return torch.stack(values).isfinite()


class SkippedSteps:
    """Names the steps that were skipped, when the host asks: until then it need not wait for the device."""

    def __init__(self):
        self.in_a_row = 0
        self._unread = []  # step, triplet and flags

    def add(self, done: int, triplet: Int[np.ndarray, "views"], finite: Bool[Tensor, "checks"]) -> None:
        self._unread.append((done, triplet, finite))

    def read(self, names: list[str]) -> list[str]:
        """A line for each step that was skipped since the last call, up to `MOST_SKIPPED_STEPS` in a row."""
        flags, lines = torch.stack([finite for *_, finite in self._unread]).tolist(), []
        for (done, triplet, _), finite in zip(self._unread, flags, strict=True):
            self.in_a_row = 0 if all(finite) else self.in_a_row + 1
            if self.in_a_row:
                what = ", ".join(name for name, ok in zip(CHECKED, finite, strict=False) if not ok)
                views = ", ".join(one_line(names[view]) for view in triplet)
                lines.append(f"step {done} was skipped, not finite: {what} (views {views})")
            if self.in_a_row == MOST_SKIPPED_STEPS:
                break
        self._unread.clear()
        return lines
