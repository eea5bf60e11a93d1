"""What the viewer shows of the grid: visibility per voxel, and features as colours."""

from dataclasses import replace

import numpy as np
import torch

from projection import frustum_coordinates
from tests.helpers import GEOMETRY
from viewer.features import PrincipalColors, feature_cloud, scatter, voxel_visibility


def test_voxel_takes_the_highest_weight_of_the_samples_nearest_to_it(viewed):
    poses = torch.from_numpy(viewed.scene.views.cam2world[:2]).float()
    coordinates = frustum_coordinates(poses, GEOMETRY)
    weights = torch.rand(coordinates.shape[:-1], generator=torch.Generator().manual_seed(0))
    found = scatter(weights, coordinates, GEOMETRY)
    expected = np.zeros((8, 8, 8))
    for (x, y, z), weight in zip(
        coordinates.reshape(-1, 3).numpy(), weights.flatten().numpy(), strict=True
    ):
        if min(x, y, z) >= 0 and max(x, y, z) < 8:
            voxel = tuple(min(int(np.round(value)), 7) for value in (z, y, x))
            expected[voxel] = max(expected[voxel], weight)
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-7)
    assert (expected > 0).sum() > 100


def test_visibility_is_the_occlusion_nets(viewed):
    """Softmax over depth: every column of the frustum adds up to 1, and depth is its
    expectation."""
    from viewer.features import visibility_weights

    network = viewed.model.network
    poses = torch.from_numpy(viewed.scene.views.cam2world[:2]).float()
    with torch.inference_mode():
        inpainted = network.inpaint(network.deepvoxels)
        weights = visibility_weights(network, network.canonical_view_volumes(inpainted, poses))
        depth = network.render(inpainted, poses).depth[:, 0]
    np.testing.assert_allclose(weights.sum(dim=1).numpy(), 1, atol=1e-5)
    planes = network.geometry.near_plane + network.geometry.voxel_size * torch.arange(
        weights.shape[1]
    )
    np.testing.assert_allclose(
        (weights * planes[:, None, None]).sum(dim=1).numpy(), depth.numpy(), atol=1e-4
    )


def test_cloud_lies_in_the_grid_and_shrinks_with_the_least_visibility(viewed):
    calls = []

    def run(function):
        calls.append(function)
        return function()

    cloud = feature_cloud(viewed.model, viewed.scene, run)
    assert len(calls) == 2  # eight views, four at a time
    assert np.abs(cloud.points).max() <= 0.5
    assert len(cloud.points) == len(cloud.colors) == len(cloud.visibility) > 50
    highest = cloud.visibility.max()
    for least in (0.0, 0.3, 1.0):
        shown = cloud.above(least)
        assert (
            len(shown.points)
            == len(shown.colors)
            == (cloud.visibility >= least * highest).sum()
            > 0
        )
    assert len(cloud.above(1.0).points) < len(cloud.points)
    at_once = voxel_visibility(
        viewed.model.network, torch.from_numpy(viewed.scene.views.cam2world).float()
    )
    np.testing.assert_allclose(
        np.sort(cloud.visibility), np.sort(at_once[at_once > 0].numpy()), atol=1e-5
    )


def test_colours_are_the_principal_components_and_keep_their_sign():
    generator = np.random.default_rng(0)
    strong, weak = generator.normal(size=(2, 200))
    features = np.outer(strong, [3, 0, 0, 1.0]) + np.outer(weak, [0, 1.0, 0.2, 0])
    colors = PrincipalColors(features)(features)
    assert abs(np.corrcoef(colors[:, 0], strong)[0, 1]) > 0.97
    assert abs(np.corrcoef(colors[:, 1], weak)[0, 1]) > 0.97
    np.testing.assert_allclose(colors.min(axis=0)[:2], 0)
    np.testing.assert_allclose(colors.max(axis=0)[:2], 1)
    moved = features + 1e-6 * generator.normal(size=features.shape)
    again = PrincipalColors(moved)(moved)
    assert np.abs(again - colors)[:, :2].max() <= 1 / 255
    fewer = features[:, :2]  # features than colours
    assert PrincipalColors(fewer)(fewer).shape == (200, 3)


def test_a_volume_that_no_view_sees_has_no_cloud(viewed):
    scene = viewed.scene
    away = scene.views.cam2world.copy()
    away[:, :3, 2] *= -1  # looking away from the grid
    away[:, :3, 0] *= -1
    views = replace(scene.views, cam2world=away)
    cloud = feature_cloud(viewed.model, replace(scene, views=views), lambda function: function())
    assert [len(values) for values in cloud] == [0, 0, 0]
    assert len(cloud.above(0.5).points) == 0
