"""Tatarchenko et al., 'Single-view to multi-view' (2015), as the paper compares with it: an
autoencoder that is told both poses.

    python run_deepvoxels.py --train_test train --model tatarchenko --data_root SCENE/train
        --logging_root LOGS

The paper's (section 4): it sees one of the top-5 nearest neighbours of the target, in testing the
top-1, and "the pose of both the target and the input view are concatenated in the deep latent
space". Tatarchenko et al.'s: the poses first go through fully connected layers of their own. Ours:
the layers (see `autoencoder`), and the form of a pose, the upper 3x4 of its camera-to-world matrix
with the position relative to the grid, in units of its size.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from baselines.autoencoder import Decoder, Encoder, linear
from baselines.width import build_matched
from deep_voxels import Architecture, Rendering
from projection import SceneGeometry
from pytorch_prototyping.blocks import LEAKY_SLOPE

POSE_SIZE = 12
POSE_FEATURES = 256


class Tatarchenko(nn.Module):
    """Source image to latent vector, features of both poses appended, to the target image."""

    def __init__(self, architecture: Architecture, geometry: SceneGeometry):
        super().__init__()
        self.geometry = geometry
        self.encoder, self.pose_net, self.decoder = build_matched(
            tatarchenko_networks, architecture
        )

    def forward(
        self,
        source_image: Float[Tensor, "v 3 s s"],
        source_cam2world: Float[Tensor, "v 4 4"],
        target_cam2world: Float[Tensor, "v 4 4"],
    ) -> tuple[Rendering, None]:
        """Images in [-1/2, 1/2]."""
        poses = torch.cat(
            [
                pose_vector(cam2world, self.geometry)
                for cam2world in (source_cam2world, target_cam2world)
            ],
            dim=1,
        )
        latent = torch.cat([self.encoder(source_image), self.pose_net(poses)], dim=1)
        return Rendering(self.decoder(latent), None), None


def tatarchenko_networks(width: int, img_sidelength: int) -> nn.ModuleList:
    """Encoder, pose layers and decoder about a latent vector of 3 * width features, as many as
    Worrall et al.'s has."""
    sizes = [2 * POSE_SIZE, POSE_FEATURES, POSE_FEATURES, POSE_FEATURES]
    pose_layers = [
        layer
        for i in range(3)
        for layer in (linear(sizes[i], sizes[i + 1]), nn.LeakyReLU(LEAKY_SLOPE, True))
    ]
    return nn.ModuleList(
        [
            Encoder(width, img_sidelength, 3 * width),
            nn.Sequential(*pose_layers),
            Decoder(width, img_sidelength, 3 * width + POSE_FEATURES, 3 * width),
        ]
    )


def pose_vector(
    cam2world: Float[Tensor, "n 4 4"], geometry: SceneGeometry
) -> Float[Tensor, "n 12"]:
    """Camera-to-world rotation and position, the position relative to the grid's origin in grid
    sidelengths."""
    origin = cam2world.new_tensor(geometry.grid_origin)
    position = (cam2world[:, :3, 3] - origin) / (geometry.grid_dim * geometry.voxel_size)
    return torch.cat([cam2world[:, :3, :3], position[..., None]], dim=2).flatten(1)
