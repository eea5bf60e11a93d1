"""The model, plain and with CPU kernels, equals the original's, number by number
(tests/golden/README.md says where the goldens come from)."""

import json

import numpy as np
import pytest
import torch

from cpu_kernels import accelerate_
from data_util import crop_border
from losses import adversarial_loss, discriminator_loss
from machine.runtime import channels_last_
from projection import frustum_coordinates, frustum_mask, lift, lift_coordinates
from tests.golden.case import GOLDEN, Case
from tests.golden.synthetic_weights import synthetic_image

RELATIVE = 2e-5  # of an array's largest value; the project's promise is 1e-4


def golden_case(name: str, kernels: str) -> Case:
    """A golden folder, its networks with or without CPU kernels."""
    case = Case(name)
    if kernels == "auto":
        accelerate_(channels_last_(case.model))
        accelerate_(channels_last_(case.discriminator))
    return case


def assert_close(actual: torch.Tensor, expected: np.ndarray):
    actual = actual.detach().numpy()
    assert actual.shape == expected.shape
    assert np.abs(actual - expected).max() <= RELATIVE * np.abs(expected).max()


@pytest.fixture(scope="module", params=["plain", "auto"])
def kernels(request):
    return request.param


@pytest.fixture(scope="module")
def occlusion(kernels):
    return golden_case("occlusion", kernels)


@pytest.fixture(scope="module")
def trained(occlusion):
    """The training case: pose 0 is the source, poses 1 and 2 are the targets."""
    source = torch.tensor(synthetic_image("source_image", 64))
    rendering, integration = occlusion.model(source, occlusion.poses[:1], occlusion.poses[1:3])
    return source, rendering, integration


@pytest.mark.parametrize("name", ["occlusion", "no_occlusion"])
def test_state_dict_has_the_originals_names_and_shapes(name, kernels):
    case = golden_case(name, kernels)
    shapes = json.loads((GOLDEN / name / "state_dict.json").read_text())
    for part, module in [("model", case.model), ("discriminator", case.discriminator)]:
        wanted = {
            key: tuple(entry["shape"])
            for key, entry in shapes[part].items()
            if "alias_of" not in entry
        }
        assert {key: tuple(value.shape) for key, value in module.state_dict().items()} == wanted


@pytest.mark.parametrize("name", ["occlusion", "no_occlusion"])
def test_test_images(name, kernels):
    case = golden_case(name, kernels)
    with torch.no_grad():
        rendering = case.model.render(case.model.inpaint(case.model.deepvoxels), case.poses)
    assert_close(rendering.images, case.expected["test_images"])
    if name == "no_occlusion":
        assert rendering.depth is None
    else:
        planes = (rendering.depth - 0.95) / (
            2 * 16 * 0.0625
        ) - 0.5  # back to the network's depth coordinate
        assert_close(planes, case.expected["test_depth_coords"])


def test_lifting(occlusion, trained):
    model = occlusion.model
    expected = occlusion.expected
    uvd = lift_coordinates(occlusion.poses[0], model.geometry)
    assert_close(uvd.reshape(-1, 3).T, expected["lift_coords"])
    features = model.feature_extractor(trained[0])
    assert_close(features, expected["source_features"])
    assert_close(lift(features, uvd), expected["lifted_volume"])


def test_integration_and_inpainting(occlusion, trained):
    assert_close(trained[2].volume, occlusion.expected["hidden_state"])
    assert_close(occlusion.model.inpaint(trained[2].volume), occlusion.expected["inpainted_volume"])


def test_projection(occlusion, trained):
    coordinates = frustum_coordinates(occlusion.poses[1:2], occlusion.model.geometry)
    inside = frustum_mask(coordinates, 16).flatten()
    assert np.array_equal(inside.nonzero()[:, 0], occlusion.expected["frustum_indices_0"])
    assert_close(coordinates.reshape(-1, 3)[inside].T, occlusion.expected["frustum_coords_0"])
    canonical = occlusion.model.canonical_view_volumes(
        occlusion.model.inpaint(trained[2].volume), occlusion.poses[1:2]
    )
    assert_close(canonical.mean(dim=1), occlusion.expected["canonical_volume_0_mean_over_features"])


def test_training_images(occlusion, trained):
    assert_close(trained[1].images, occlusion.expected["train_images"])
    planes = (trained[1].depth - 0.95) / (2 * 16 * 0.0625) - 0.5
    assert_close(planes, occlusion.expected["train_depth_coords"])


def test_losses_and_the_gradient_norm_of_every_parameter(occlusion, trained):
    config = occlusion.config
    model = occlusion.model
    discriminator = occlusion.discriminator
    fake = crop_border(trained[1].images)
    real = crop_border(
        torch.cat([torch.tensor(synthetic_image(f"target_image_{i}", 64)) for i in range(2)])
    )
    fake_logits = discriminator(fake[:1])
    real_logits = discriminator(real[:1])
    assert_close(torch.sigmoid(fake_logits), occlusion.expected["discriminator_fake_0"])
    l1 = (fake - real).abs().mean()
    generator = adversarial_loss(fake_logits, real=True)
    assert l1.item() == pytest.approx(config["l1"], rel=1e-5)
    assert generator.item() == pytest.approx(config["gan_generator"], rel=1e-5)
    assert discriminator_loss(real_logits, fake_logits).item() == pytest.approx(
        config["gan_discriminator"], rel=1e-5
    )
    total = 200 * l1 + generator
    assert total.item() == pytest.approx(config["generator_loss_200_l1_plus_gan_view0"], rel=1e-5)

    total.backward(retain_graph=True)
    norms = {name: parameter.grad.norm().item() for name, parameter in model.named_parameters()}
    # Softmax does not see a bias, so this gradient is 0 but for rounding.
    assert norms.pop("occlusion_net.softmax_net.0.net.1.bias") < 1e-6
    expected = {name: norm for name, norm in config["grad_norms"].items() if name in norms}
    assert len(expected) == len(config["grad_norms"]) - 1 == len(norms)
    assert norms == pytest.approx(expected, rel=1e-4)
