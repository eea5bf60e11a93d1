"""Geometry (DESIGN, section 3): shapes, known values, inverses, gradients, and brute force."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from projection import (
    SceneGeometry,
    frustum_coordinates,
    frustum_mask,
    image2camera,
    invert_rigid,
    lift,
    lift_coordinates,
    lift_mask,
    project,
    voxel_centers,
    world2grid,
    world2image,
)
from tests.conftest import look_at_origin

GEOMETRY = SceneGeometry(
    grid_dim=8,
    voxel_size=0.125,
    grid_origin=(0.1, -0.2, 0.3),
    near_plane=1.0,
    map_sidelength=6,
    focal=7.0,
    cx=2.9,
    cy=3.2,
)
POSE = torch.tensor(look_at_origin([1.2, -0.9, 1.1]))


@pytest.fixture(params=[True, False], ids=["sparse product", "grid_sample"])
def both_projections(request, monkeypatch):
    """Runs a test with the CPU's own way to project, and with that of other devices."""
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: request.param)


def test_voxel_centers_known_values():
    centers = voxel_centers(GEOMETRY, like=POSE)
    assert centers.shape == (8, 8, 8, 3)
    torch.testing.assert_close(centers[4, 4, 4], torch.tensor([0.1, -0.2, 0.3]).double())
    torch.testing.assert_close(
        centers[0, 1, 2], torch.tensor([0.1 - 0.25, -0.2 - 0.375, 0.3 - 0.5]).double()
    )


def test_world2grid_is_the_inverse_of_voxel_centers():
    z, y, x = torch.meshgrid(*[torch.arange(8.0).double()] * 3, indexing="ij")
    torch.testing.assert_close(
        world2grid(voxel_centers(GEOMETRY, like=POSE), GEOMETRY), torch.stack([x, y, z], -1)
    )


def test_world2image_known_values():
    camera = torch.eye(4).double()
    points = torch.tensor(
        [[0.0, 0.0, 2.0], [1.0, 0.0, 2.0], [0.0, -1.0, 4.0]]
    ).double()  # y points down
    expected = torch.tensor(
        [[2.9, 3.2, 2.0], [2.9 + 3.5, 3.2, 2.0], [2.9, 3.2 - 1.75, 4.0]]
    ).double()
    torch.testing.assert_close(world2image(points, camera, GEOMETRY), expected)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.floats(-3, 3), min_size=3, max_size=3),
    st.floats(-5, 10),
    st.floats(-5, 10),
    st.floats(0.1, 20),
)
def test_image2camera_inverts_world2image(position, u, v, depth):
    if np.hypot(position[0], position[1]) < 0.1:
        position = [1.0, 0.5, position[2]]
    pose = torch.tensor(look_at_origin(position))
    uvd = torch.tensor([u, v, depth], dtype=torch.float64)
    world = pose[:3, :3] @ image2camera(uvd, GEOMETRY) + pose[:3, 3]
    torch.testing.assert_close(world2image(world, pose, GEOMETRY), uvd)


def test_invert_rigid():
    torch.testing.assert_close(invert_rigid(POSE) @ POSE, torch.eye(4).double())
    torch.testing.assert_close(invert_rigid(torch.stack([POSE, POSE]))[1], torch.linalg.inv(POSE))


def test_frustum_planes_lie_at_near_plane_plus_k_voxels():
    geometry = SceneGeometry(8, 0.125, (0.0, 0.0, 0.0), 1.0, 6, 7.0, 3.0, 3.0)
    coordinates = frustum_coordinates(torch.eye(4).double()[None], geometry)
    assert coordinates.shape == (1, 16, 6, 6, 3)
    k = torch.arange(16).double()
    torch.testing.assert_close(
        coordinates[0, :, 2, 3, 2], (1.0 + k * 0.125) / 0.125 + 4
    )  # z of every plane
    torch.testing.assert_close(
        coordinates[0, :, 3, 3, 0], torch.full((16,), 4.0).double()
    )  # the axis: x stays


def test_lift_mask_rounds_into_the_map_and_drops_what_is_behind():
    uvd = torch.tensor(
        [
            [-0.5, 0.0, 1.0],
            [-0.51, 0.0, 1.0],
            [5.5, 5.0, 1.0],
            [5.49, 5.0, 1.0],
            [2.0, 2.0, -1.0],
            [float("nan"), 2.0, 0.0],
        ]
    )
    # torch rounds half to even: -0.5 is pixel 0, 5.5 is pixel 6 and so outside
    assert lift_mask(uvd, map_sidelength=6).tolist() == [True, False, False, True, False, False]


def test_lift_equals_brute_force():
    features = torch.randn(1, 3, 6, 6).double()
    uvd = lift_coordinates(POSE, GEOMETRY)
    lifted = lift(features, uvd)
    assert lifted.shape == (1, 3, 8, 8, 8)
    seen = 0
    for z, y, x in np.ndindex(8, 8, 8):
        u, v, depth = uvd[z, y, x].tolist()
        expected = torch.zeros(3).double()
        if depth > 0 and 0 <= round(u) <= 5 and 0 <= round(v) <= 5:
            seen += 1
            u = min(max(u, 0), 5)
            v = min(max(v, 0), 5)
            left = min(int(u), 4)
            top = min(int(v), 4)
            for row, column in np.ndindex(2, 2):
                weight = (1 - abs(u - left - column)) * (1 - abs(v - top - row))
                expected += weight * features[0, :, top + row, left + column]
        torch.testing.assert_close(lifted[0, :, z, y, x], expected)
    assert 50 < seen < 512


@pytest.mark.usefixtures("both_projections")
def test_project_equals_brute_force():
    volume = torch.randn(1, 2, 8, 8, 8).double()
    coordinates = frustum_coordinates(POSE[None], GEOMETRY)
    canonical = project(volume, coordinates)
    assert canonical.shape == (1, 2, 16, 6, 6)
    seen = 0
    for k, row, column in np.ndindex(16, 6, 6):
        g = coordinates[0, k, row, column].tolist()
        expected = torch.zeros(2).double()
        if all(0 <= axis < 8 for axis in g):
            seen += 1
            g = [min(axis, 7) for axis in g]
            low = [min(int(axis), 6) for axis in g]
            for corner in np.ndindex(2, 2, 2):
                weight = np.prod(
                    [
                        1 - abs(axis - start - c)
                        for axis, start, c in zip(g, low, corner, strict=True)
                    ]
                )
                x, y, z = (start + c for start, c in zip(low, corner, strict=True))
                expected += weight * volume[0, :, z, y, x]
        torch.testing.assert_close(canonical[0, :, k, row, column], expected)
    assert 50 < seen < 16 * 36
    assert frustum_mask(coordinates, 8).sum() == seen


@pytest.mark.usefixtures("both_projections")
def test_projecting_what_was_lifted_gives_the_features_back():
    """A feature map that is linear in u and v survives lifting and projecting where both
    interpolate."""
    geometry = SceneGeometry(32, 1 / 32, (0.0, 0.0, 0.0), 1.2, 16, 30.0, 7.5, 7.5)
    pose = torch.tensor(look_at_origin([0.0, -1.6, 0.9]))
    v, u = torch.meshgrid(torch.arange(16.0).double(), torch.arange(16.0).double(), indexing="ij")
    features = torch.stack([u, v])[None]
    canonical = project(
        lift(features, lift_coordinates(pose, geometry)), frustum_coordinates(pose[None], geometry)
    )
    inner = canonical[
        0, :, 16:24, 4:12, 4:12
    ]  # planes around the grid's center, away from the map's border
    torch.testing.assert_close(
        inner, features[0, :, None, 4:12, 4:12].expand_as(inner), atol=0.02, rtol=0
    )


@pytest.mark.usefixtures("both_projections")
@pytest.mark.parametrize("views", [1, 3])
def test_views_are_projected_independently(views):
    volume = torch.randn(1, 2, 8, 8, 8)
    poses = torch.stack(
        [torch.tensor(look_at_origin([1.5 - i, 1.0, 1.0])).float() for i in range(views)]
    )
    together = project(volume, frustum_coordinates(poses, GEOMETRY))
    for i in range(views):
        torch.testing.assert_close(
            together[i : i + 1], project(volume, frustum_coordinates(poses[i : i + 1], GEOMETRY))
        )


@pytest.mark.usefixtures("both_projections")
def test_gradients():
    features = torch.randn(1, 1, 6, 6, dtype=torch.float64, requires_grad=True)
    volume = torch.randn(1, 1, 8, 8, 8, dtype=torch.float64, requires_grad=True)
    uvd = lift_coordinates(POSE, GEOMETRY)
    coordinates = frustum_coordinates(POSE[None], GEOMETRY)
    assert torch.autograd.gradcheck(lambda x: lift(x, uvd), features)
    assert torch.autograd.gradcheck(lambda x: project(x, coordinates), volume, fast_mode=True)


def test_float32_stays_float32():
    assert lift_coordinates(POSE.float(), GEOMETRY).dtype == torch.float32
    assert frustum_coordinates(POSE.float()[None], GEOMETRY).dtype == torch.float32


def test_coordinates_keep_their_precision_under_autocast():
    pose = POSE.float()
    expected = lift_coordinates(pose, GEOMETRY), frustum_coordinates(pose[None], GEOMETRY)
    with torch.autocast("cpu", torch.bfloat16):
        actual = lift_coordinates(pose, GEOMETRY), frustum_coordinates(pose[None], GEOMETRY)
    torch.testing.assert_close(actual, expected, atol=0, rtol=0)
