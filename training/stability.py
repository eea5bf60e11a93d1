"""Keeps the persistent volume from running away.

The volume H is fed back through the GRU in every step: H <- (1 - Z) H + Z relu(U_s H + ...) (paper,
equations 4 and 5). Nothing bounds this loop. Once its gain exceeds 1, H grows by that factor per
step, and the image loss does not notice, because batch norm follows the volume and hides its scale.
The gain starts near 0.5, and Adam's first steps, which move all weights by about the learning rate,
may lift it above 1.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from custom_layers import IntegrationNet

PENALTY_WEIGHT = 200.0  # as the l1 loss's by default, which hardly changes as the volume grows


def volume_penalty(volume: Float[Tensor, "1 f d d d"], limit: float) -> Float[Tensor, ""]:
    """A loss on what exceeds the limit. A volume below it gets no gradient; one that runs away gets
    a gradient that lowers the loop's gain."""
    return PENALTY_WEIGHT * (volume - limit).relu().mean()


@torch.no_grad()
def loop_gain(net: nn.Module | None) -> Float[Tensor, ""] | None:
    """The factor by which a volume that is constant over space grows per step while both gates are
    open. None where there is no U_s, in a model without a GRU or with another one.

    Replication padding keeps such a volume constant, so the 3x3x3 convolution U_s acts as the
    matrix of its summed kernels; the gain is the growth of a power iteration with that matrix and
    ReLU. Dropout and W_s are left out. The iteration runs on the CPU: on a GPU, its 200 kernels
    would take longer than to copy the matrix. Waits for the device.
    """
    if not has_known_loop(net):
        return None
    weight = net.old_integration[1].weight
    features = weight.shape[0]  # the input channels after these are coordinates
    matrix = weight[:, :features].sum(dim=(2, 3, 4)).cpu()
    state = matrix.new_ones(features)
    gain = matrix.new_ones(())
    for _ in range(30):
        grown = (matrix @ state).relu()
        gain = grown.norm() / state.norm().clamp_min(1e-12)  # 0 once nothing is left to grow
        state = grown / grown.norm().clamp_min(1e-12)
    return gain


def has_known_loop(net: nn.Module | None) -> bool:
    """Whether a network feeds the volume back through U_s as `IntegrationNet` does."""
    layers = getattr(net, "old_integration", None)
    return (
        isinstance(net, IntegrationNet)
        and isinstance(layers, nn.Sequential)
        and len(layers) > 1
        and isinstance(layers[1], nn.Conv3d)
        and layers[1].in_channels == layers[1].out_channels + 3
    )
