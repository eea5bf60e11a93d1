"""DeepVoxels: a persistent volume of features and the networks that fill it and render it (paper,
section 3.2).

Letters in shapes, here and in the files that this one imports: v target views, f features per voxel
(`num_grid_feats`), d voxels along each side of the grid (`grid_dim`; in formulas D), s pixels along
each side of an image (`img_sidelength`), m pixels along each side of a feature map
(`proj_sidelength`), b batch. A volume is indexed [z, y, x].
"""

from dataclasses import asdict, dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from custom_layers import (
    FeatureExtractor,
    IntegrationNet,
    OcclusionNet,
    RenderingNet,
    depth_collapse_net,
    voxel_coordinates,
)
from machine.cli import number
from machine.options import option
from projection import SceneGeometry, frustum_coordinates, lift, lift_coordinates, project
from pytorch_prototyping.unet import Unet3d
from util import InputError

MAX_CHANNELS = 1024  # of what --num_grid_feats and --nf0 may be


@dataclass(frozen=True)
class Architecture:
    """The sizes that decide the shapes of a model's tensors. Each is a flag of the same name."""

    img_sidelength: int = option(
        512, "image size in pixels, a power of two from 64 to 1024", in_test="fixed"
    )
    proj_sidelength: int = option(
        64, "feature map size in pixels, a power of two from 8 to img_sidelength", in_test="fixed"
    )
    grid_dim: int = option(
        32, "voxels along each side of the grid, a multiple of 4", in_test="fixed"
    )
    num_grid_feats: int = option(
        64, "features per voxel", in_test="fixed", type=number(int, 1, MAX_CHANNELS)
    )
    nf0: int = option(
        64,
        "channels of the outermost 2D layers",
        in_test="fixed",
        type=number(int, 2, MAX_CHANNELS),
    )
    no_occlusion_net: bool = option(
        False, "collapse depth without occlusion reasoning", in_test="fixed"
    )

    @property
    def enlargement(self) -> int:
        """Image pixels along a pixel of the feature map."""
        return self.img_sidelength // self.proj_sidelength


def check_architecture(architecture: Architecture) -> None:
    """Raises `InputError` for an architecture of which no model can be built, or only a huge
    one."""
    a = architecture
    for flag, minimum, maximum in [
        ("img_sidelength", 64, 1024),
        ("proj_sidelength", 8, a.img_sidelength),
    ]:
        value = getattr(a, flag)
        if value & (value - 1) or not minimum <= value <= maximum:
            raise InputError(
                f"--{flag} {value}: must be a power of two from {minimum} to {maximum}"
            )
    if not 4 <= a.grid_dim <= 512 or a.grid_dim % 4:
        raise InputError(
            f"--grid_dim {a.grid_dim}: must be a multiple of 4 from 4 to 512, "
            "since the inpainting network halves the grid twice"
        )
    for flag, minimum in [("num_grid_feats", 1), ("nf0", 2)]:
        if not minimum <= getattr(a, flag) <= MAX_CHANNELS:
            raise InputError(
                f"--{flag} {getattr(a, flag)}: must be from {minimum} to {MAX_CHANNELS}"
            )
    if a.no_occlusion_net and a.nf0 * a.grid_dim < 8:  # see `depth_collapse_net`
        raise InputError(f"--nf0 {a.nf0}: is too small for --no_occlusion_net")


# img_sidelength, proj_sidelength, grid_dim, num_grid_feats, nf0. What each costs: docs/design.md,
# section 8.
SIZES = {
    "small": Architecture(64, 32, 16, 16, 16),
    "medium": Architecture(128, 64, 32, 16, 16),
    "large": Architecture(512, 128, 64, 8, 16),
    "paper": Architecture(512, 64, 32, 64, 64),
}


def describe(architecture: Architecture) -> str:
    """The architecture as the flags that set it, for messages."""
    return " ".join(
        f"--{flag}" if value is True else f"--{flag} {value}"
        for flag, value in asdict(architecture).items()
        if value is not False
    )


class Integration(NamedTuple):
    """The volume after one observation is integrated, and the GRU's gates (None for a network
    without gates)."""

    volume: Float[Tensor, "1 f d d d"]
    update_gate: Float[Tensor, "1 1 d d d"] | None
    reset_gate: Float[Tensor, "1 1 d d d"] | None


class Rendering(NamedTuple):
    """Images in [-1/2, 1/2] and, where the model has an occlusion net, depth along z in world
    units."""

    images: Float[Tensor, "v 3 s s"]
    depth: Float[Tensor, "v 1 m m"] | None


class DeepVoxels(nn.Module):
    """Integrates a source view into the persistent volume, inpaints the volume, and renders target
    views from it.

    The persistent volume, `deepvoxels`, is the hidden state of the GRU. It is a buffer: saved with
    the weights, and changed only by `remember`. A test needs no source view: it calls `inpaint` and
    `render`.
    """

    def __init__(self, architecture: Architecture, geometry: SceneGeometry):
        super().__init__()
        self.architecture = a = architecture
        self.geometry = geometry
        self.register_buffer(
            "deepvoxels", torch.zeros(1, a.num_grid_feats, a.grid_dim, a.grid_dim, a.grid_dim)
        )
        self.register_buffer("coordinates", voxel_coordinates(a.grid_dim), persistent=False)

        # Depth planes of a canonical view volume: the grid's diagonal crosses sqrt(3) D of them.
        frustum_depth = 2 * a.grid_dim
        self.feature_extractor = FeatureExtractor(
            a.nf0, a.num_grid_feats, a.img_sidelength, a.proj_sidelength
        )
        if a.no_occlusion_net:
            self.depth_collapse_net = depth_collapse_net(a.num_grid_feats, frustum_depth, a.nf0)
        else:
            self.occlusion_net = OcclusionNet(a.num_grid_feats, frustum_depth, a.proj_sidelength)
        collapsed_channels = a.nf0 if a.no_occlusion_net else a.num_grid_feats
        self.rendering_net = RenderingNet(
            a.nf0, collapsed_channels, a.proj_sidelength, a.img_sidelength
        )
        self.integration_net = IntegrationNet(a.num_grid_feats, a.grid_dim)
        self.inpainting_net = Unet3d(
            a.num_grid_feats + 3,
            a.num_grid_feats,
            nf0=a.num_grid_feats,
            num_down=2,
            max_channels=4 * a.num_grid_feats,
        )

    def forward(
        self,
        source_image: Float[Tensor, "1 3 s s"],
        source_cam2world: Float[Tensor, "1 4 4"],
        target_cam2world: Float[Tensor, "v 4 4"],
    ) -> tuple[Rendering, Integration]:
        """One training pass: renders the target views after the source view is integrated.

        The persistent volume stays as it is: the training step passes the new one to `remember`.
        """
        integration = self.integrate(source_image, source_cam2world)
        return self.render(self.inpaint(integration.volume), target_cam2world), integration

    def integrate(
        self, image: Float[Tensor, "1 3 s s"], cam2world: Float[Tensor, "1 4 4"]
    ) -> Integration:
        """Extracts the features of a source view, lifts them to a 3D observation and fuses it with
        the persistent volume."""
        features = self.feature_extractor(image)
        # .float(): under autocast the networks compute in 16 bits, the geometry never does.
        observation = lift(features.float(), lift_coordinates(cam2world[0], self.geometry))
        return Integration(*self.integration_net(observation, self.deepvoxels))

    def inpaint(self, volume: Float[Tensor, "1 f d d d"]) -> Float[Tensor, "1 f d d d"]:
        """Fills the holes of a volume. As in the original, the inpainting network sees the voxels'
        coordinates too, like the GRU. At test time the result is the same for all frames."""
        return self.inpainting_net(torch.cat([volume, self.coordinates], dim=1))

    def render(
        self, inpainted: Float[Tensor, "1 f d d d"], cam2world: Float[Tensor, "v 4 4"]
    ) -> Rendering:
        """Projects an inpainted volume into the target views, all as one batch, and renders
        them."""
        canonical = self.canonical_view_volumes(inpainted, cam2world)
        if self.architecture.no_occlusion_net:
            return Rendering(
                self.rendering_net(self.depth_collapse_net(canonical.flatten(1, 2))), None
            )
        collapsed, depth_coordinate = self.occlusion_net(canonical)
        # Plane k lies at near_plane + k * voxel_size and has the coordinate k / (2 D) - 1/2.
        near, far = self.geometry.depth_range
        depth = near + (depth_coordinate + 0.5) * (far - near)
        return Rendering(self.rendering_net(collapsed), depth)

    def canonical_view_volumes(
        self,
        inpainted: Float[Tensor, "1 f d d d"],
        cam2world: Float[Tensor, "v 4 4"],
    ) -> Float[Tensor, "v f depth m m"]:
        """The inpainted volume resampled into each target camera's frustum (paper, 3.2 'Projection
        Layer'), in float32."""
        return project(inpainted.float(), frustum_coordinates(cam2world, self.geometry))

    def remember(self, volume: Float[Tensor, "1 f d d d"]) -> None:
        """Makes a volume the persistent one, in its place. It is never reset, and no gradient flows
        from one step to the one before."""
        self.deepvoxels.copy_(volume.detach())
