"""Fuses the depth maps of many views into one coloured point cloud, as pure functions.

A pixel's point stays if enough other views see a surface in its place and few see through it; it
moves to the mean of what they see. The background has no one place, so few views agree on it.
Points that stay are averaged in small cells. docs/design.md, section 3, has the geometry.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, UInt8
from scipy.spatial import KDTree
from torch import Tensor

from projection import SceneGeometry, frustum_mask, image2camera, world2grid, world2image

ROUNDS = 2  # of votes; in the second, points are where the first moved them
TOLERANCE = 1.0  # voxels: how far depths of the same surface may differ between views
# A point stays if enough other views agree, that is, see the surface where the point is.
MIN_AGREEING = 3  # number of views that agree
MIN_SHARE_IN_VIEW = 0.2  # their share among the views that have the point in their picture
MIN_SHARE_UNHIDDEN = 0.5  # their share among the views that agree or see through the point
CELLS = 2  # to a voxel's side; the points in one cell become one
NEIGHBORS = 16  # points that a normal is fitted to


class DepthMaps(NamedTuple):
    """The depth that views show. `geometry` has the grid's origin in the world of the poses.

    depth: along z, world units. colors: in [0, 1]. margin: pixels at a map's border whose depth
    means nothing.
    """

    depth: Float[Tensor, "views m m"]
    colors: Float[Tensor, "views m m 3"]
    cam2world: Float[Tensor, "views 4 4"]
    geometry: SceneGeometry
    margin: int = 0


class Cloud(NamedTuple):
    """Points of a surface in the poses' world, their outward unit normals, and RGB colours."""

    points: Float[np.ndarray, "n 3"]
    normals: Float[np.ndarray, "n 3"]
    colors: UInt8[np.ndarray, "n 3"]


class Votes(NamedTuple):
    """What views say of points.

    in_view: how many have the point in their picture. agreeing: how many see a surface there.
    against: how many see through it. offset: from the point to the mean of the surfaces that
    agreeing views see, world units.
    """

    in_view: Int[Tensor, "n"]
    agreeing: Int[Tensor, "n"]
    against: Int[Tensor, "n"]
    offset: Float[Tensor, "n 3"]


def fuse(maps: DepthMaps, progress: Callable[[], None] = lambda: None) -> Cloud:
    """The surface within the grid that the views agree on; an empty cloud if they agree on none.

    `progress` is called `ROUNDS` times for each view.
    """
    agreed, points = agreeing_pixels(maps, progress)
    views = agreed.nonzero()[:, 0]
    toward = F.normalize(maps.cam2world[views, :3, 3] - points, dim=-1)
    colors = maps.colors[agreed]
    points, toward, colors = (
        mean_in_cells(values, points, maps.geometry) for values in (points, toward, colors)
    )
    return Cloud(points, outward_normals(points, toward), np.round(255 * colors).astype(np.uint8))


def agreeing_pixels(
    maps: DepthMaps, progress: Callable[[], None]
) -> tuple[Bool[Tensor, "views m m"], Float[Tensor, "n 3"]]:
    """The pixels that show a surface within the grid on which the views agree, and the point of
    each, moved to the mean of what they see.

    `progress` is called `ROUNDS` times for each view.
    """
    depth, _, cam2world, geometry, margin = maps
    points = depth_points(depth, cam2world, geometry)
    in_grid = frustum_mask(world2grid(points, geometry), geometry.grid_dim)
    agreed = in_grid & off_edges(depth, geometry, margin)
    points = points[agreed]
    for _ in range(ROUNDS):
        votes = count_votes(points, maps, progress)
        others = votes.agreeing - 1  # a view agrees with itself
        stays = (
            (others >= MIN_AGREEING)
            & (others >= MIN_SHARE_IN_VIEW * (votes.in_view - 1))
            & (others >= MIN_SHARE_UNHIDDEN * (others + votes.against))
        )
        points = (points + votes.offset)[stays]
        agreed[agreed.clone()] = stays
    return agreed, points


def depth_points(
    depth: Float[Tensor, "views m m"],
    cam2world: Float[Tensor, "views 4 4"],
    geometry: SceneGeometry,
) -> Float[Tensor, "views m m 3"]:
    """The world coordinates of every pixel of depth maps (z, world units)."""
    pixels = torch.arange(geometry.map_sidelength, dtype=depth.dtype)
    v, u = torch.meshgrid(pixels, pixels, indexing="ij")
    in_camera = image2camera(
        torch.stack([u.expand_as(depth), v.expand_as(depth), depth], dim=-1), geometry
    )
    return (
        torch.einsum("vij,vrcj->vrci", cam2world[:, :3, :3], in_camera)
        + cam2world[:, None, None, :3, 3]
    )


def off_edges(
    depth: Float[Tensor, "views m m"], geometry: SceneGeometry, margin: int
) -> Bool[Tensor, "views m m"]:
    """Which pixels lie inside the margin and show one surface.

    The depth of a pixel that straddles an edge lies between two surfaces: farther than its own
    width from both the nearest and the farthest depth around it.
    """
    last = depth.shape[-1] - margin
    depth = depth[:, margin:last, margin:last]
    nearest = -F.max_pool2d(-depth, 3, 1, 1)
    farthest = F.max_pool2d(depth, 3, 1, 1)
    width = depth / geometry.focal
    return F.pad(torch.minimum(depth - nearest, farthest - depth) <= width, [margin] * 4)


def count_votes(
    points: Float[Tensor, "n 3"], maps: DepthMaps, progress: Callable[[], None]
) -> Votes:
    """The votes of all views. A view says nothing of a point that lies outside its picture or
    behind a surface."""
    in_view, agreeing, against = torch.zeros(3, len(points), dtype=torch.int32)
    offset = torch.zeros_like(points)
    tolerance = TOLERANCE * maps.geometry.voxel_size
    for depth_map, pose in zip(maps.depth, maps.cam2world, strict=True):
        uvd = world2image(points, pose, maps.geometry)
        seen = sample_inside(depth_map, uvd[:, :2], maps.margin)
        behind = torch.where(uvd[:, 2] > 0, seen - uvd[:, 2], torch.nan)
        agrees = behind.abs() <= tolerance
        in_view += ~behind.isnan()
        agreeing += agrees
        against += behind > tolerance
        along_ray = (points - pose[:3, 3]) * (behind / uvd[:, 2])[:, None]
        offset += torch.where(agrees[:, None], along_ray, 0)
        progress()
    return Votes(in_view, agreeing, against, offset / agreeing.clamp(min=1)[:, None])


def sample_inside(
    depth: Float[Tensor, "m m"], pixels: Float[Tensor, "n 2"], margin: int
) -> Float[Tensor, "n"]:
    """A depth map, interpolated at pixels (u, v); not a number in the margin and outside the
    map."""
    last = len(depth) - 1
    inside = ((pixels >= margin) & (pixels <= last - margin)).all(dim=1)
    sampled = F.grid_sample(
        depth[None, None], (pixels * (2 / last) - 1)[None, None], align_corners=True
    )[0, 0, 0]
    return torch.where(inside, sampled, torch.nan)


def mean_in_cells(
    values: Float[Tensor, "n 3"],
    points: Float[Tensor, "n 3"],
    geometry: SceneGeometry,
) -> Float[np.ndarray, "cells 3"]:
    """The mean of the values at the points in each cell that holds any, `CELLS` to a voxel's
    side."""
    cells = (world2grid(points, geometry) * CELLS).floor().long()
    _, index, counts = torch.unique(cells, dim=0, return_inverse=True, return_counts=True)
    sums = torch.zeros(len(counts), 3, dtype=torch.float64).index_add_(0, index, values.double())
    return (sums / counts[:, None]).numpy()


def outward_normals(
    points: Float[np.ndarray, "n 3"], toward: Float[np.ndarray, "n 3"]
) -> Float[np.ndarray, "n 3"]:
    """The unit normals of the planes through each point's `NEIGHBORS` nearest, on the side of
    `toward`."""
    if not len(points):
        return np.zeros((0, 3))
    _, nearest = KDTree(points).query(points, k=min(NEIGHBORS, len(points)))
    around = points[nearest.reshape(len(points), -1)]
    around = around - around.mean(axis=1, keepdims=True)
    normals = np.linalg.eigh(around.swapaxes(1, 2) @ around).eigenvectors[
        :, :, 0
    ]  # of the smallest eigenvalue
    return normals * np.where((normals * toward).sum(axis=1, keepdims=True) < 0, -1, 1)
