"""Worrall et al., 'Interpretable transformations with encoder-decoder networks' (2017), as the
paper compares with it: an autoencoder whose latent space turns as the camera turns.

    python run_deepvoxels.py --train_test train --model worrall --data_root SCENE/train
        --logging_root LOGS

The paper's (section 4): it sees one of the top-5 nearest neighbours of the target, in testing the
top-1, and turns the latent embedding "with the rotation matrix that transforms the input to the
output pose"; fully connected layers lie before and after. Ours: one 3-vector in the embedding for
each channel of the deepest convolutions, and the layers (see `autoencoder`). The method does not
know the cameras' positions.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from baselines.autoencoder import Decoder, Encoder
from baselines.width import build_matched
from deep_voxels import Architecture, Rendering
from projection import SceneGeometry


class Worrall(nn.Module):
    """Source image to 3-vectors, turned from the source's to the target's axes, to the target
    image."""

    def __init__(self, architecture: Architecture, geometry: SceneGeometry):
        super().__init__()
        self.encoder, self.decoder = build_matched(worrall_networks, architecture)

    def forward(
        self,
        source_image: Float[Tensor, "v 3 s s"],
        source_cam2world: Float[Tensor, "v 4 4"],
        target_cam2world: Float[Tensor, "v 4 4"],
    ) -> tuple[Rendering, None]:
        """Images in [-1/2, 1/2]."""
        turned = turn(
            self.encoder(source_image), relative_rotation(source_cam2world, target_cam2world)
        )
        return Rendering(self.decoder(turned), None), None


def worrall_networks(width: int, img_sidelength: int) -> nn.ModuleList:
    """Encoder and decoder about a latent vector of `width` 3-vectors."""
    return nn.ModuleList(
        [
            Encoder(width, img_sidelength, 3 * width),
            Decoder(width, img_sidelength, 3 * width, 3 * width),
        ]
    )


def relative_rotation(
    source_cam2world: Float[Tensor, "v 4 4"],
    target_cam2world: Float[Tensor, "v 4 4"],
) -> Float[Tensor, "v 3 3"]:
    """The rotations that take directions in the source cameras' axes to the target cameras'."""
    return target_cam2world[:, :3, :3].mT @ source_cam2world[:, :3, :3]


def turn(
    latent: Float[Tensor, "v latent"], rotation: Float[Tensor, "v 3 3"]
) -> Float[Tensor, "v latent"]:
    """Rotates every 3-vector of the latent vectors."""
    vectors = latent.unflatten(1, (-1, 3))
    return torch.einsum("vij,vkj->vki", rotation.to(latent.dtype), vectors).flatten(1)
