"""The mesh that depth maps are fused into, from true depth of a cube."""

import numpy as np
import torch
import trimesh

from evaluation.fusion import DepthMaps
from evaluation.mesh import fuse_mesh
from projection import world2image


def test_true_depth_fuses_into_a_mesh_of_the_surface(cube_views):
    """The triangles lie on what cameras see, cover it, face outward, are red as it is, and are one
    piece."""
    depth, colors, cam2world, geometry, truth = cube_views
    mesh = fuse_mesh(DepthMaps(depth, colors, cam2world, geometry))
    triangles = trimesh.Trimesh(mesh.vertices, mesh.faces, process=False)
    points, faces = trimesh.sample.sample_surface(triangles, 20_000, seed=0)
    to_surface, to_mesh = truth.distances(points)
    assert to_surface.mean() < 0.15 * geometry.voxel_size
    assert np.percentile(to_surface, 99) < 0.5 * geometry.voxel_size
    assert to_surface.max() < 1.5 * geometry.voxel_size
    assert (to_mesh <= geometry.voxel_size).mean() > 0.99
    outward = (triangles.face_normals[faces] * points).sum(axis=1) > 0  # the cube is at the origin
    assert outward.mean() > 0.99
    assert (np.median(mesh.colors, axis=0) == [255, 0, 0]).all()
    assert (mesh.colors[:, 1] > 64).mean() < 0.05
    assert triangles.body_count == 1


def test_the_margin_of_maps_has_no_say(cube_views):
    depth, colors, cam2world, geometry, _ = cube_views
    spoilt = torch.full_like(depth, 2.5)
    spoilt[:, 3:-3, 3:-3] = depth[:, 3:-3, 3:-3]
    ours, theirs = (
        fuse_mesh(DepthMaps(maps, colors, cam2world, geometry, margin=3))
        for maps in (spoilt, depth)
    )
    np.testing.assert_array_equal(ours.vertices, theirs.vertices)


def test_small_pieces_are_left_out(cube_views):
    """All views agree on a spot of three pixels, two voxels and a half above the cube's top."""
    depth, colors, cam2world, geometry, _ = cube_views
    depth = depth.clone()
    spot = torch.tensor([[0, 0, 0.5 + 2.5 * geometry.voxel_size]])
    for view, pose in zip(depth, cam2world, strict=True):
        u, v, z = world2image(spot, pose, geometry)[0]
        rows, columns = (slice(round(x) - 1, round(x) + 2) for x in (v.item(), u.item()))
        view[rows, columns] = z
    mesh = fuse_mesh(DepthMaps(depth, colors, cam2world, geometry))
    assert mesh.vertices[:, 2].max() < 0.5 + geometry.voxel_size


def test_views_that_agree_on_nothing_give_no_faces(cube_views):
    depth, colors, cam2world, geometry, _ = cube_views
    empty = fuse_mesh(DepthMaps(depth[:3], colors[:3], cam2world[:3], geometry))  # too few
    assert [len(part) for part in empty] == [0, 0, 0]
