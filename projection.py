"""The pinhole camera as pure functions: where voxels fall in an image, and where a frustum's voxels fall in the grid.

Axes are OpenCV's (x right, y down, z forward); poses are camera-to-world. Pixels of a feature map have integer
coordinates at their centers. A volume tensor is (batch, features, z, y, x). See DESIGN, section 3.
"""
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor


@dataclass(frozen=True)
class Grid:
    """The voxel grid in the world: `dim` voxels a side of `voxel_size` world units, centered at `origin`."""

    dim: int
    voxel_size: float
    origin: tuple[float, float, float]


def invert_rigid(pose: Float[Tensor, "*b 4 4"]) -> Float[Tensor, "*b 4 4"]:
    """The inverse of a rigid transform: cam2world to world2cam and back."""
    rotation_t = pose[..., :3, :3].mT
    inverse = pose.clone()
    inverse[..., :3, :3] = rotation_t
    inverse[..., :3, 3:] = -rotation_t @ pose[..., :3, 3:]
    return inverse


def scale_intrinsics(intrinsics: Float[Tensor, "3 3"], ratio: float) -> Float[Tensor, "3 3"]:
    """The intrinsics of the image scaled by `ratio` (feature map over image sidelength)."""
    return intrinsics * intrinsics.new_tensor([[ratio], [ratio], [1]])


def voxel_centers(grid: Grid, like: Tensor) -> Float[Tensor, "d d d 3"]:
    """World coordinates (x, y, z) of every voxel's center, indexed [z, y, x]; device and dtype of `like`."""
    axis = (torch.arange(grid.dim, device=like.device, dtype=like.dtype) - grid.dim / 2) * grid.voxel_size
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    return torch.stack([x, y, z], dim=-1) + like.new_tensor(grid.origin)


def project_world2image(points: Float[Tensor, "*n 3"], cam2world: Float[Tensor, "4 4"],
                        intrinsics: Float[Tensor, "3 3"]) -> Float[Tensor, "*n 3"]:
    """Equation (1): world points to (u, v, depth), u and v in pixels, depth along the camera's z axis in world units.

    Points with depth <= 0 lie behind the camera; their u and v mean nothing.
    """
    world2cam = invert_rigid(cam2world)
    x, y, depth = (points @ world2cam[:3, :3].T + world2cam[:3, 3]).unbind(-1)
    u = intrinsics[0, 0] * x / depth + intrinsics[0, 2]
    v = intrinsics[1, 1] * y / depth + intrinsics[1, 2]
    return torch.stack([u, v, depth], dim=-1)


def unproject_image2world(uvd: Float[Tensor, "*n 3"], cam2world: Float[Tensor, "b 4 4"],
                          intrinsics: Float[Tensor, "3 3"]) -> Float[Tensor, "b *n 3"]:
    """The inverse of equation (1): (u, v, depth) to world points, for each of b cameras."""
    u, v, depth = uvd.unbind(-1)
    points = torch.stack([(u - intrinsics[0, 2]) / intrinsics[0, 0] * depth,
                          (v - intrinsics[1, 2]) / intrinsics[1, 1] * depth, depth], dim=-1)
    world = points.reshape(1, -1, 3) @ cam2world[:, :3, :3].mT + cam2world[:, None, :3, 3]
    return world.view(-1, *uvd.shape)


def world2grid(points: Float[Tensor, "*n 3"], grid: Grid) -> Float[Tensor, "*n 3"]:
    """World to grid coordinates: (x - origin) / voxel_size + D/2, the integers at voxel centers."""
    return (points - points.new_tensor(grid.origin)) / grid.voxel_size + grid.dim / 2


def lift_coordinates(cam2world: Float[Tensor, "4 4"], intrinsics: Float[Tensor, "3 3"], grid: Grid,
                     ) -> Float[Tensor, "d d d 3"]:
    """(u, v, depth) of every voxel's center in a view's feature map; `intrinsics` are those of the map."""
    return project_world2image(voxel_centers(grid, like=cam2world), cam2world, intrinsics)


def lift_mask(uvd: Float[Tensor, "d d d 3"], map_sidelength: int) -> Bool[Tensor, "d d d"]:
    """Which voxels receive features: those in front of the camera whose pixel rounds into the map."""
    u, v, depth = uvd.unbind(-1)
    return (depth > 0) & _in_range(u.round(), map_sidelength) & _in_range(v.round(), map_sidelength)


def lift(features: Float[Tensor, "1 f m m"], uvd: Float[Tensor, "d d d 3"]) -> Float[Tensor, "1 f d d d"]:
    """Lifts a feature map to an observation: each voxel takes the bilinear sample at its pixel (paper, 3.2 'Lifting').

    Samples are clamped at the border; voxels outside `lift_mask` take 0.
    """
    dim, side = uvd.shape[0], features.shape[-1]
    sample_at = _normalized(uvd[..., :2], lift_mask(uvd, side), side).view(1, dim * dim, dim, 2)
    return _sample(features, sample_at).view(1, -1, dim, dim, dim)


def frustum_coordinates(cam2world: Float[Tensor, "v 4 4"], intrinsics: Float[Tensor, "3 3"], near_plane: float,
                        grid: Grid, map_sidelength: int) -> Float[Tensor, "v depth m m 3"]:
    """Grid coordinates (x, y, z) of every voxel of the canonical view volumes, indexed [depth plane, row, column].

    2D planes at z = near_plane + k * voxel_size, one column for each pixel of the feature map.
    """
    steps = torch.arange(max(2 * grid.dim, map_sidelength), device=cam2world.device, dtype=cam2world.dtype)
    pixels, planes = steps[:map_sidelength], near_plane + grid.voxel_size * steps[:2 * grid.dim]
    depth, v, u = torch.meshgrid(planes, pixels, pixels, indexing="ij")
    return world2grid(unproject_image2world(torch.stack([u, v, depth], dim=-1), cam2world, intrinsics), grid)


def frustum_mask(coordinates: Float[Tensor, "*n 3"], grid_dim: int) -> Bool[Tensor, "*n"]:
    """Which voxels of a canonical view volume lie in the grid: 0 <= g < D on all axes."""
    return _in_range(coordinates, grid_dim, upper_open=True).all(dim=-1)


def project(volume: Float[Tensor, "1 f d d d"], coordinates: Float[Tensor, "v depth m m 3"],
            ) -> Float[Tensor, "v f depth m m"]:
    """Resamples the volume into canonical view volumes (paper, 3.2 'Projection Layer').

    Trilinear samples, clamped at the border; voxels outside `frustum_mask` take 0.
    """
    dim = volume.shape[-1]
    sample_at = _normalized(coordinates, frustum_mask(coordinates, dim), dim)
    return _sample(volume.expand(len(coordinates), -1, -1, -1, -1), sample_at)


def _normalized(coordinates: Float[Tensor, "*n axes"], mask: Bool[Tensor, "*n"], size: int) -> Float[Tensor, "*n axes"]:
    """Coordinates as `grid_sample` takes them, from -1 to 1: clamped at the border, those outside the mask beyond it.

    The mask goes into the coordinates because there it costs less than in the samples.
    """
    clamped = coordinates.clamp(0, size - 1) * (2 / (size - 1)) - 1
    return torch.where(mask[..., None], clamped, -3)


def _sample(values: Float[Tensor, "b f *size"], sample_at: Float[Tensor, "b *n axes"]) -> Float[Tensor, "b f *n"]:
    """Linear interpolation; 0 where `sample_at` lies outside [-1, 1]."""
    return F.grid_sample(values, sample_at.to(values.dtype), mode="bilinear", padding_mode="zeros", align_corners=True)


def _in_range(x: Tensor, size: int, upper_open: bool = False) -> Tensor:
    return (x >= 0) & ((x < size) if upper_open else (x <= size - 1))
