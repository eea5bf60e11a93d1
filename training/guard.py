"""Guards training against numbers that are not finite.

A step with such numbers is skipped: it changes nothing, and a warning names it. After
`MAX_SKIPPED_STEPS` in a row training goes back to its last checkpoint (`training.state.go_back`).

The device decides about each step (`training.step`). The host reads the decisions (`SkippedSteps`)
only when it waits for the device anyway, to log or to save.
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from util import one_line

MAX_SKIPPED_STEPS = 5  # in a row, before training goes back
CHECKED = (
    "l1 loss",
    "generator loss",
    "discriminator loss",
    "model's gradient",
    "discriminator's gradient",
    "volume",
)


class NotFinite(Exception):
    """Too many steps in a row were skipped. The message says where."""


def check_finite(
    losses: Sequence[Float[Tensor, ""]],
    parameters: Sequence[list[nn.Parameter]],
    volume: Tensor | None,
) -> Bool[Tensor, "checks"]:
    """Whether each loss, each network's gradient and the volume, if there is one, is finite, in the
    order of `CHECKED`. parameters: those of each network; those without a gradient do not count."""
    values = [*losses, *(nn.utils.get_total_norm(gradients_of(group)) for group in parameters)]
    if volume is not None:
        values.append(volume.sum())
    return torch.stack(values).isfinite()


def gradients_of(parameters: list[nn.Parameter]) -> list[Tensor]:
    """The gradients of those parameters that have one: a changed network may not use them all."""
    return [parameter.grad for parameter in parameters if parameter.grad is not None]


class RunningStatistics:
    """The batch norms' running statistics. A forward pass changes them before anyone knows whether
    its numbers are finite, so a skipped step must restore them."""

    def __init__(self, *networks: nn.Module):
        norms = [
            module
            for network in networks
            for module in network.modules()
            if isinstance(module, (nn.BatchNorm2d, nn.BatchNorm3d))
        ]
        self.means_and_variances = [
            statistic for norm in norms for statistic in (norm.running_mean, norm.running_var)
        ]
        self._by_dtype = [self.means_and_variances, [norm.num_batches_tracked for norm in norms]]

    def copy(self) -> list[Tensor]:
        """Their current values: one vector per dtype, because a few hundred small copies would take
        long."""
        return [torch.cat([statistic.flatten() for statistic in group]) for group in self._by_dtype]

    def restore_unless(self, keep: Bool[Tensor, ""], earlier: list[Tensor]) -> None:
        """Goes back to the values of an earlier `copy` unless `keep` is true."""
        for group, now, before in zip(self._by_dtype, self.copy(), earlier, strict=True):
            values = torch.where(keep, now, before).split(
                [statistic.numel() for statistic in group]
            )
            views = [
                value.view_as(statistic) for statistic, value in zip(group, values, strict=True)
            ]
            torch._foreach_copy_(group, views)


class SkippedSteps:
    """Collects the checks of steps on the device, and names the skipped ones when asked.

    in_a_row: how many of the last steps were skipped, as of the last `read`.
    """

    def __init__(self, view_names: list[str], in_a_row: int = 0):
        self.in_a_row = in_a_row
        self._view_names = view_names
        self._unread = []  # (step, triplet, checks)

    def add(
        self, step: int, triplet: Int[np.ndarray, "views"], finite: Bool[Tensor, "checks"]
    ) -> None:
        """Remembers a step until the next `read`: its number, counted from 1, its views, and its
        `Step.finite`, which the next step may overwrite."""
        self._unread.append((step, triplet, finite.clone()))

    def read(self) -> list[str]:
        """One line per step skipped since the last call, up to `MAX_SKIPPED_STEPS` in a row. Waits
        for the device."""
        lines = []
        checks = torch.stack([finite for *_, finite in self._unread]).tolist()
        for (step, triplet, _), finite in zip(self._unread, checks, strict=True):
            self.in_a_row = 0 if all(finite) else self.in_a_row + 1
            if self.in_a_row:
                wrong = ", ".join(name for name, ok in zip(CHECKED, finite, strict=False) if not ok)
                views = ", ".join(one_line(self._view_names[view]) for view in triplet)
                lines.append(f"step {step} was skipped, not finite: {wrong} (views {views})")
            if self.in_a_row == MAX_SKIPPED_STEPS:
                break
        self._unread.clear()
        return lines
