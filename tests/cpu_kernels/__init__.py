"""What several tests of the kernels share."""

import torch

import deep_voxels
from deep_voxels import Architecture, DeepVoxels
from machine.runtime import channels_last_
from projection import SceneGeometry
from tests.conftest import hemisphere_poses


def model() -> DeepVoxels:
    torch.manual_seed(0)
    net = deep_voxels.DeepVoxels(
        Architecture(64, 16, 8, 4, 4),
        SceneGeometry(8, 0.125, (0.0, 0.0, 0.0), 1.0, 16, 17.0, 8.0, 8.0),
    )
    return channels_last_(net)


def outputs(net: DeepVoxels) -> list[torch.Tensor]:
    """What a forward pass in training gives."""
    torch.manual_seed(1)
    poses = torch.tensor(hemisphere_poses(3)).float()
    rendering, integration = net(torch.rand(1, 3, 64, 64) - 0.5, poses[:1], poses[1:])
    return [part.detach() for part in (rendering.depth, rendering.images, integration.volume)]


def differ(ones: list[torch.Tensor], others: list[torch.Tensor]) -> bool:
    return any(
        (one - other).norm() > 1e-3 * other.norm() + 1e-6
        for one, other in zip(ones, others, strict=True)
    )
