"""The width of a baseline: the least for which it has at least as many parameters as DeepVoxels at
the same flags.

The paper matches parameters approximately, "with all baselines having equally or slightly more
parameters than our model" (section 4); its supplement, which lists the widths, is not at hand, so
the widths are found by counting.
"""

from collections.abc import Callable
from functools import cache

import torch
from torch import nn

from deep_voxels import Architecture, DeepVoxels
from projection import SceneGeometry


def count_parameters(module: nn.Module) -> int:
    """The number of trainable values."""
    return sum(parameter.numel() for parameter in module.parameters())


@cache
def deepvoxels_parameters(architecture: Architecture) -> int:
    """The number of DeepVoxels' parameters, which does not depend on the scene."""
    with torch.device("meta"):  # shapes without memory
        return count_parameters(DeepVoxels(architecture, any_geometry(architecture)))


def any_geometry(architecture: Architecture) -> SceneGeometry:
    """The geometry of some scene, where a model's shapes alone matter."""
    return SceneGeometry(
        architecture.grid_dim,
        1.0,
        (0.0, 0.0, 0.0),
        1.0,
        architecture.proj_sidelength,
        1.0,
        0.0,
        0.0,
    )


def build_matched(build: Callable[[int, int], nn.Module], architecture: Architecture) -> nn.Module:
    """`build(width, img_sidelength)` of the least width that suffices."""
    side = architecture.img_sidelength
    parameters = deepvoxels_parameters(architecture)
    return build(matching_width(lambda width: build(width, side), parameters), side)


def matching_width(build: Callable[[int], nn.Module], parameters: int) -> int:
    """The least width for which `build(width)` has at least `parameters` parameters. Their number
    must grow with the width."""

    def is_enough(width: int) -> bool:
        with torch.device("meta"):
            return count_parameters(build(width)) >= parameters

    high = 8
    while not is_enough(high):
        high *= 2
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if is_enough(middle) else (middle, high)
    return high


def outermost_width(width: int) -> int:
    """The channels of the outermost layers of a network whose deepest have `width`: an eighth, as
    in DeepVoxels."""
    return -(-width // 8)
