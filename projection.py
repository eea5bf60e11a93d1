"""The pinhole camera as pure functions: where the grid's voxels fall in an image (lifting), and
where the voxels of a canonical view volume, a camera's frustum, fall in the grid (projection).

Axes are OpenCV's (x right, y down, z forward); poses are camera-to-world. Pixels of a feature map
have integer coordinates at their centers. A volume tensor is (batch, features, z, y, x). See
docs/design.md, section 3.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor


@dataclass(frozen=True)
class SceneGeometry:
    """Where a scene's grid lies in the world, and the intrinsics that all its cameras share.

    grid_dim: voxels along each side (D). voxel_size, near_plane: world units. grid_origin: world
    coordinates of the grid's center; voxel i along an axis lies at origin + (i - D/2) * voxel_size,
    so that voxel D/2 lies at the origin itself. map_sidelength: pixels along each side of the
    feature map. focal, cx, cy: the intrinsic matrix K, in those pixels.
    """

    grid_dim: int
    voxel_size: float
    grid_origin: tuple[float, float, float]
    near_plane: float
    map_sidelength: int
    focal: float
    cx: float
    cy: float

    @property
    def depth_range(self) -> tuple[float, float]:
        """Where a canonical view volume begins and ends: the depth of its first plane and the depth
        one voxel behind its last, in world units."""
        return self.near_plane, self.near_plane + 2 * self.grid_dim * self.voxel_size


def without_autocast(like: Tensor) -> torch.autocast:
    """Turns autocast off for camera arithmetic on the device of `like`: bfloat16 would be wrong by
    half a voxel."""
    # "meta" has no autocast
    return torch.autocast("cpu" if like.is_meta else like.device.type, enabled=False)


def invert_rigid(pose: Float[Tensor, "*b 4 4"]) -> Float[Tensor, "*b 4 4"]:
    """The inverse of a rigid transform: cam2world to world2cam and back."""
    rotation_t = pose[..., :3, :3].mT
    inverse = pose.clone()
    inverse[..., :3, :3] = rotation_t
    with without_autocast(pose):
        inverse[..., :3, 3:] = -rotation_t @ pose[..., :3, 3:]
    return inverse


def world2image(
    points: Float[Tensor, "*n 3"],
    cam2world: Float[Tensor, "4 4"],
    geometry: SceneGeometry,
) -> Float[Tensor, "*n 3"]:
    """Equation (1): world points to (u, v, depth), u and v in map pixels, depth along the camera's
    z axis.

    The paper's R and t are those of the inverse of `cam2world`; here u and v are divided by the
    depth, which its K (R x + t) leaves to the reader. Points with depth <= 0 lie behind the camera;
    their u and v mean nothing and may be infinite.
    """
    world2cam = invert_rigid(cam2world)
    with without_autocast(points):
        x, y, depth = (points @ world2cam[:3, :3].T + world2cam[:3, 3]).unbind(-1)
    return torch.stack(
        [geometry.focal * x / depth + geometry.cx, geometry.focal * y / depth + geometry.cy, depth],
        -1,
    )


def image2camera(uvd: Float[Tensor, "*n 3"], geometry: SceneGeometry) -> Float[Tensor, "*n 3"]:
    """Inverts K in equation (1): (u, v, depth) to points in the camera's own axes."""
    u, v, depth = uvd.unbind(-1)
    return torch.stack(
        [
            (u - geometry.cx) / geometry.focal * depth,
            (v - geometry.cy) / geometry.focal * depth,
            depth,
        ],
        dim=-1,
    )


def world2grid(points: Float[Tensor, "*n 3"], geometry: SceneGeometry) -> Float[Tensor, "*n 3"]:
    """World to grid coordinates: (x - origin) / voxel_size + D/2. Voxel centers have integers."""
    return torch.stack(
        [
            (axis - origin) / geometry.voxel_size + geometry.grid_dim / 2
            for axis, origin in zip(points.unbind(-1), geometry.grid_origin, strict=True)
        ],
        dim=-1,
    )


def voxel_centers(geometry: SceneGeometry, like: Tensor) -> Float[Tensor, "d d d 3"]:
    """World coordinates (x, y, z) of every voxel's center, indexed [z, y, x]; device and dtype of
    `like`."""
    dim = geometry.grid_dim
    axis = (torch.arange(dim, device=like.device, dtype=like.dtype) - dim / 2) * geometry.voxel_size
    z, y, x = torch.meshgrid(
        *(axis + origin for origin in reversed(geometry.grid_origin)), indexing="ij"
    )
    return torch.stack([x, y, z], dim=-1)


def lift_coordinates(
    cam2world: Float[Tensor, "4 4"], geometry: SceneGeometry
) -> Float[Tensor, "d d d 3"]:
    """(u, v, depth) of every voxel's center in a view's feature map."""
    return world2image(voxel_centers(geometry, like=cam2world), cam2world, geometry)


def lift_mask(uvd: Float[Tensor, "*n 3"], map_sidelength: int) -> Bool[Tensor, "*n"]:
    """Which voxels receive features: those in front of the camera whose pixel rounds into the
    map."""
    pixel = uvd[..., :2].round()
    depth = uvd[..., 2]
    return (depth > 0) & ((pixel >= 0) & (pixel <= map_sidelength - 1)).all(dim=-1)


def lift(
    features: Float[Tensor, "1 f m m"], uvd: Float[Tensor, "d d d 3"]
) -> Float[Tensor, "1 f d d d"]:
    """Lifts a feature map to an observation: each voxel takes the bilinear sample at its pixel
    (paper, 3.2 'Lifting').

    Samples are clamped at the border; voxels outside `lift_mask` take 0.
    """
    dim = uvd.shape[0]
    side = features.shape[-1]
    sample_at = _normalized(uvd[..., :2], lift_mask(uvd, side), side).view(1, dim * dim, dim, 2)
    return _sample(features, sample_at).view(1, -1, dim, dim, dim)


def frustum_coordinates(
    cam2world: Float[Tensor, "v 4 4"], geometry: SceneGeometry
) -> Float[Tensor, "v depth m m 3"]:
    """Grid coordinates (x, y, z) of every voxel of the canonical view volumes, indexed [depth
    plane, row, column].

    A canonical view volume has 2 D planes, plane k at the depth near_plane + k * voxel_size along
    the camera's z axis. On each lies one voxel per pixel of the feature map.
    """
    like = {"device": cam2world.device, "dtype": cam2world.dtype}
    planes = geometry.near_plane + geometry.voxel_size * torch.arange(2 * geometry.grid_dim, **like)
    pixels = torch.arange(geometry.map_sidelength, **like)
    depth, v, u = torch.meshgrid(planes, pixels, pixels, indexing="ij")
    in_camera = image2camera(torch.stack([u, v, depth], dim=-1), geometry)
    # Camera to grid is one affine map: the grid's units go into the pose, not into every point.
    axes = cam2world[:, :3, :3] / geometry.voxel_size
    center = world2grid(cam2world[:, :3, 3], geometry)
    with without_autocast(cam2world):
        in_grid = torch.baddbmm(
            center[:, None], in_camera.view(1, -1, 3).expand(len(axes), -1, -1), axes.mT
        )
    return in_grid.view(-1, *in_camera.shape)


def frustum_mask(coordinates: Float[Tensor, "*n 3"], grid_dim: int) -> Bool[Tensor, "*n"]:
    """Which voxels of a canonical view volume lie in the grid: 0 <= g < D on all axes."""
    return ((coordinates >= 0) & (coordinates < grid_dim)).all(dim=-1)


def project(
    volume: Float[Tensor, "1 f d d d"],
    coordinates: Float[Tensor, "v depth m m 3"],
) -> Float[Tensor, "v f depth m m"]:
    """Resamples the volume into canonical view volumes (paper, 3.2 'Projection Layer').

    Trilinear samples, clamped at the border; voxels outside `frustum_mask` take 0.
    """
    dim = volume.shape[-1]
    sample_at = _normalized(coordinates, frustum_mask(coordinates, dim), dim)
    return _sample(volume.expand(len(coordinates), -1, -1, -1, -1), sample_at)


def _normalized(
    coordinates: Float[Tensor, "*n axes"], mask: Bool[Tensor, "*n"], size: int
) -> Float[Tensor, "*n axes"]:
    """Coordinates as `grid_sample` takes them: from -1 to 1, clamped at the border. Those outside
    the mask become -3, where `_sample` gives 0.

    Masking coordinates costs less than masking samples, which have many features.
    """
    normalized = coordinates.clamp(0, size - 1).mul_(2 / (size - 1)).sub_(1)
    return normalized.masked_fill_(~mask[..., None], -3)


def _sample(
    values: Float[Tensor, "b f *size"], sample_at: Float[Tensor, "b *n axes"]
) -> Float[Tensor, "b f *n"]:
    """Linear interpolation; 0 where `sample_at` lies outside [-1, 1]."""
    return F.grid_sample(
        values,
        sample_at.to(values.dtype),
        mode="bilinear",
        padding_mode="zeros",
        align_corners=True,
    )
