"""Pix2Pix (Isola et al., 'Image-to-image translation with conditional adversarial networks', 2017),
as the paper compares with it: a picture of viewing directions is translated into colours.

    python run_deepvoxels.py --train_test train --model pix2pix --data_root SCENE/train
        --logging_root LOGS

The paper's (section 4): the input is "the per-pixel view direction, i.e., the normalized,
worldspace vector from camera origin to each pixel", the output the image. Isola et al.'s: a U-Net
down to 1x1, and instance normalisation, in testing as in training. Ours: the U-Net has the blocks
and channels of DeepVoxels' rendering network; it has no dropout, which slowed learning; and the
discriminator sees the image alone, as for every method here, since the paper trains all of them
with the same loss.
"""

from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor, nn

from baselines.width import build_matched, outermost_width
from deep_voxels import Architecture, Rendering
from projection import SceneGeometry, image2camera, without_autocast
from pytorch_prototyping.unet import Unet


class Pix2Pix(nn.Module):
    """The viewing directions of the target's pixels to the target image. It takes a source view and
    ignores it."""

    def __init__(self, architecture: Architecture, geometry: SceneGeometry):
        super().__init__()
        self.geometry = geometry
        self.img_sidelength = architecture.img_sidelength
        self.net = build_matched(translation_network, architecture)

    def forward(
        self,
        source_image: Float[Tensor, "n 3 s s"] | None,
        source_cam2world: Float[Tensor, "n 4 4"] | None,
        target_cam2world: Float[Tensor, "v 4 4"],
    ) -> tuple[Rendering, None]:
        """Images in [-1/2, 1/2]."""
        with without_autocast(target_cam2world):  # neighbouring pixels are one in bfloat16
            directions = pixel_directions(target_cam2world, self.geometry, self.img_sidelength)
        return Rendering(torch.tanh(self.net(directions)) / 2, None), None


def translation_network(width: int, img_sidelength: int) -> Unet:
    """A U-Net down to 1x1 with at most `width` channels and instance normalisation."""
    return Unet(
        3,
        3,
        nf0=outermost_width(width),
        num_down=img_sidelength.bit_length() - 1,
        max_channels=width,
        linear_out=True,
        norm=partial(nn.InstanceNorm2d, affine=True),
    )


def pixel_directions(
    cam2world: Float[Tensor, "v 4 4"],
    geometry: SceneGeometry,
    sidelength: int,
) -> Float[Tensor, "v 3 s s"]:
    """Unit vectors in world axes from each camera to the pixels of its image, of `sidelength`
    pixels a side."""
    pixels = torch.arange(sidelength, device=cam2world.device, dtype=cam2world.dtype)
    map_pixels = pixels * (geometry.map_sidelength / sidelength)
    v, u = torch.meshgrid(map_pixels, map_pixels, indexing="ij")
    in_camera = image2camera(torch.stack([u, v, torch.ones_like(u)], dim=-1), geometry)
    directions = in_camera @ cam2world[:, None, :3, :3].mT  # (v, s, s, 3)
    return (directions / directions.norm(dim=-1, keepdim=True)).permute(0, 3, 1, 2)
