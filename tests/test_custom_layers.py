"""The model and its sub-networks: every size, the paper's equations, the volume."""

import pytest
import torch

from custom_layers import IntegrationNet, OcclusionNet, voxel_coordinates
from deep_voxels import Architecture, DeepVoxels
from projection import SceneGeometry
from tests.conftest import hemisphere_poses


@pytest.mark.parametrize(
    "architecture",
    [
        Architecture(64, 64, 8, 4, 4),  # no down blocks, no up blocks
        Architecture(256, 8, 4, 3, 2),
        Architecture(64, 16, 12, 5, 6),
        Architecture(64, 16, 8, 6, 4, True),
        Architecture(64, 64, 4, 3, 4, True),
        Architecture(1024, 64, 4, 2, 2),
    ],
)
def test_every_size_makes_a_training_pass(architecture):
    side = architecture.proj_sidelength
    dim = architecture.grid_dim
    model = DeepVoxels(
        architecture,
        SceneGeometry(dim, 1 / dim, (0.0, 0.0, 0.0), 1.0, side, side * 1.1, side / 2, side / 2),
    )
    poses = torch.tensor(hemisphere_poses(3)).float()
    image = torch.rand(1, 3, architecture.img_sidelength, architecture.img_sidelength) - 0.5
    rendering, integration = model(image, poses[:1], poses[1:])
    assert rendering.images.shape == (
        2,
        3,
        architecture.img_sidelength,
        architecture.img_sidelength,
    )
    assert rendering.images.abs().max() <= 0.5
    assert integration.volume.shape == model.deepvoxels.shape
    if architecture.no_occlusion_net:
        assert rendering.depth is None
    else:
        assert rendering.depth.shape == (2, 1, side, side)
        assert (
            1.0 <= rendering.depth.min() <= rendering.depth.max() <= 1.0 + 2
        )  # within the frustum's planes
    rendering.images.mean().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_the_volume_is_remembered_without_its_gradient():
    model = DeepVoxels(
        Architecture(64, 16, 8, 4, 4),
        SceneGeometry(8, 0.125, (0.0, 0.0, 0.0), 1.0, 16, 17.0, 8.0, 8.0),
    )
    poses = torch.tensor(hemisphere_poses(2)).float()
    _, integration = model(torch.rand(1, 3, 64, 64), poses[:1], poses[1:])
    assert model.deepvoxels.abs().max() == 0  # a pass alone changes nothing
    model.remember(integration.volume)
    assert not model.deepvoxels.requires_grad
    torch.testing.assert_close(model.state_dict()["deepvoxels"], integration.volume.detach())


def test_integration_follows_equations_2_to_5():
    """Each convolution by itself, as the paper writes them."""
    net = IntegrationNet(num_features=3, grid_dim=6).eval()
    x = torch.randn(1, 3, 6, 6, 6)
    h = torch.randn(1, 3, 6, 6, 6)
    volume, update, reset = net(x, h)
    new, old = (torch.cat([part, net.coordinates], dim=1) for part in (x, h))
    z = torch.sigmoid(net.update_new_net(new) + net.update_old_net(old))
    r = torch.sigmoid(net.reset_new_net(new) + net.reset_old_net(old))
    s = torch.relu(net.new_integration(new) + net.old_integration(r * old))
    torch.testing.assert_close((update, reset, volume), (z, r, (1 - z) * h + z * s))


def test_candidates_are_dropped_out_in_training():
    net = IntegrationNet(num_features=50, grid_dim=4)
    torch.nn.init.zeros_(net.old_integration[1].weight)
    volume, *_ = net(torch.randn(1, 50, 4, 4, 4), torch.zeros(1, 50, 4, 4, 4))
    dropped = (volume.abs().amax(dim=(0, 2, 3, 4)) == 0).sum()
    assert 3 <= dropped <= 20  # 0.2 of 50 channels


def test_occlusion_net_sees_the_depth_coordinate_as_a_channel():
    net = OcclusionNet(num_features=3, frustum_depth=8, proj_sidelength=4).eval()
    volumes = torch.randn(2, 3, 8, 4, 4)
    collapsed, coordinate = net(volumes)
    depth = ((torch.arange(8.0) - 4) / 8).view(1, 1, 8, 1, 1).expand(2, 1, 8, 4, 4)
    prepared = net.occlusion_prep(torch.cat([depth, volumes], dim=1))
    weights = net.softmax_net(torch.cat([prepared, net.occlusion_net(prepared), depth], dim=1))
    torch.testing.assert_close(weights.sum(dim=2), torch.ones(2, 1, 4, 4))
    torch.testing.assert_close(collapsed, (weights * volumes).sum(dim=2) / 8)
    torch.testing.assert_close(coordinate, (weights * depth).sum(dim=2))


def test_voxel_coordinates():
    coordinates = voxel_coordinates(4)
    assert coordinates.shape == (1, 3, 4, 4, 4)
    assert coordinates[0, :, 0, 1, 3].tolist() == [-0.5, -0.25, 0.25]  # z, y, x
