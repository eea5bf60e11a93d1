"""Fuses the depth maps of many views into one coloured triangle mesh.

Each view gives the points near what it sees their distance to it, along its ray; the mean over the
views, a truncated signed distance field (Curless and Levoy 1996), is zero on the surface. Only
pixels on whose surface other views agree (`evaluation.fusion`) have a say near it.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
import trimesh
from jaxtyping import Bool, Float, Int, UInt8
from skimage.measure import marching_cubes
from torch import Tensor

from evaluation.fusion import CELLS, DepthMaps, agreeing_pixels, off_edges, sample_inside
from projection import SceneGeometry, world2image

TRUNCATION = 2.0  # voxels: distances beyond it say only on which side of the surface a point lies
MIN_PIECE = 10.0  # area in squares of a voxel's side; what is smaller is taken for noise
UNSURE = 1e-3  # weight of the colours of pixels that do not agree, for where no others are
PASSES = 2  # over all views, besides those in which they vote


class Mesh(NamedTuple):
    """Triangles, whose corners are counterclockwise seen from outside, with RGB colours at their
    vertices."""

    vertices: Float[np.ndarray, "n 3"]
    faces: Int[np.ndarray, "f 3"]
    colors: UInt8[np.ndarray, "n 3"]


def fuse_mesh(maps: DepthMaps, progress: Callable[[], None] = lambda: None) -> Mesh:
    """The surface within the grid that the views agree on; no faces if they agree on none.

    `progress` is called `ROUNDS + PASSES` times for each view.
    """
    agreed, _ = agreeing_pixels(maps, progress)
    distance, known = signed_distance(maps, agreed, progress)
    vertices, faces = without_small_pieces(*zero_surface(distance, known, maps.geometry), maps)
    colors = mean_colors(torch.from_numpy(vertices).float(), maps, agreed, progress)
    return Mesh(vertices, faces, colors)


def signed_distance(
    maps: DepthMaps, agreed: Bool[Tensor, "views m m"], progress: Callable[[], None]
) -> tuple[Float[Tensor, "n n n"], Bool[Tensor, "n n n"]]:
    """The mean distance to the surface, indexed [z, y, x], `CELLS` samples to a voxel's side: in
    `TRUNCATION` voxels, from 1 in front to -1 behind; and which samples any view knows."""
    geometry = maps.geometry
    points = samples(geometry)
    truncation = TRUNCATION * geometry.voxel_size
    total = torch.zeros(len(points))
    count = torch.zeros(len(points))
    one_surface = off_edges(maps.depth, geometry, maps.margin)
    for view in range(len(maps.depth)):
        front, pixel = in_front(points, maps, view)
        near = agreed[view].flatten()[pixel] & (front >= -truncation)
        far = one_surface[view].flatten()[pixel] & (front > truncation)
        told = near | far
        total += torch.where(told, (front / truncation).clamp(max=1), 0)
        count += told
        progress()
    side = CELLS * geometry.grid_dim
    mean = (total / count.clamp(min=1)).view(side, side, side)
    return mean, (count > 0).view(side, side, side)


def samples(geometry: SceneGeometry) -> Float[Tensor, "n 3"]:
    """The world coordinates of the centers of the grid's cells, `CELLS` to a voxel's side, x
    fastest."""
    along = (torch.arange(CELLS * geometry.grid_dim) + 0.5) / CELLS - geometry.grid_dim / 2
    z, y, x = torch.meshgrid(along, along, along, indexing="ij")
    centered = torch.stack([x, y, z], dim=-1).reshape(-1, 3) * geometry.voxel_size
    return centered + torch.tensor(geometry.grid_origin)


def in_front(
    points: Float[Tensor, "n 3"], maps: DepthMaps, view: int
) -> tuple[Float[Tensor, "n"], Int[Tensor, "n"]]:
    """How far points lie in front of what a view sees there (along z, world units; not a number
    where it sees nothing), and the indices of their pixels in its flattened map."""
    uvd = world2image(points, maps.cam2world[view], maps.geometry)
    seen = sample_inside(maps.depth[view], uvd[:, :2], maps.margin)
    side = maps.geometry.map_sidelength
    column, row = uvd[:, :2].nan_to_num().round().clamp(0, side - 1).long().unbind(dim=1)
    return torch.where(uvd[:, 2] > 0, seen - uvd[:, 2], torch.nan), row * side + column


def zero_surface(
    distance: Float[Tensor, "n n n"], known: Bool[Tensor, "n n n"], geometry: SceneGeometry
) -> tuple[Float[np.ndarray, "v 3"], Int[np.ndarray, "f 3"]]:
    """Vertices in world coordinates and faces of the surface where the distance is zero, in cells
    with eight known corners."""
    cells = known.clone()
    for axis in range(3):  # marching_cubes takes a cell's mask at its last corner
        cells &= cells.roll(1, axis)
        cells.narrow(axis, 0, 1).fill_(False)
    try:
        vertices, faces, _, _ = marching_cubes(distance.numpy(), 0.0, mask=cells.numpy())
    except (ValueError, RuntimeError):  # nothing is zero there
        return np.zeros((0, 3)), np.zeros((0, 3), np.int64)
    along = (vertices[:, ::-1].astype(np.float64) + 0.5) / CELLS - geometry.grid_dim / 2
    return along * geometry.voxel_size + geometry.grid_origin, faces[:, ::-1].astype(np.int64)


def without_small_pieces(
    vertices: Float[np.ndarray, "n 3"], faces: Int[np.ndarray, "f 3"], maps: DepthMaps
) -> tuple[Float[np.ndarray, "m 3"], Int[np.ndarray, "g 3"]]:
    """The connected pieces of a mesh whose area is at least `MIN_PIECE`, and their vertices."""
    mesh = trimesh.Trimesh(vertices, faces, process=False)
    labels = trimesh.graph.connected_component_labels(mesh.face_adjacency, len(faces))
    areas = np.bincount(labels, mesh.area_faces) / maps.geometry.voxel_size**2
    kept = faces[(areas >= MIN_PIECE)[labels]]
    used, renumbered = np.unique(kept, return_inverse=True)
    return vertices[used], renumbered.reshape(-1, 3)


def mean_colors(
    points: Float[Tensor, "n 3"],
    maps: DepthMaps,
    agreed: Bool[Tensor, "views m m"],
    progress: Callable[[], None],
) -> UInt8[np.ndarray, "n 3"]:
    """The mean colour of points on the surface in the views that see them, of agreeing pixels where
    there are any; what a view sees at the very point counts most."""
    truncation = TRUNCATION * maps.geometry.voxel_size
    total = torch.zeros(len(points), 3)
    weight = torch.zeros(len(points), 1)
    for view in range(len(maps.depth)):
        front, pixel = in_front(points, maps, view)
        closeness = (1 - front.abs() / truncation).clamp(min=0).nan_to_num()
        sure = agreed[view].flatten()[pixel].float().clamp(min=UNSURE)
        own_weight = (closeness * sure)[:, None]
        total += own_weight * maps.colors[view].flatten(end_dim=1)[pixel]
        weight += own_weight
        progress()
    return (255 * total / weight.clamp(min=1e-9)).round().to(torch.uint8).numpy()
