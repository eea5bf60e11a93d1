"""The paper's comparison methods (section 4, 'Baselines') behind the same commands as the model."""

import functools
import json

import cv2
import numpy as np
import pytest
import torch

from baselines import MODELS, NEEDS_SOURCE_VIEW, UNTRAINED, build_model
from baselines.pix2pix import Pix2Pix, pixel_directions
from baselines.tatarchenko import pose_vector
from baselines.width import count_parameters, deepvoxels_parameters, matching_width
from baselines.worrall import relative_rotation, turn
from data_util import DEFAULT_NEAR_PLANE, SceneIntrinsics
from dataio import load_scene, scene_geometry
from deep_voxels import Architecture
from projection import SceneGeometry, invert_rigid
from run_deepvoxels import main
from tests.conftest import SMALL, hemisphere_poses, write_scene

TRAINED = [name for name in MODELS if name not in UNTRAINED]
BASELINES = [name for name in TRAINED if name != "deepvoxels"]
TINY = Architecture(64, 16, 8, 4, 4)
GEOMETRY = SceneGeometry(8, 0.125, (0.1, 0.2, 0.3), 1.0, 16, 17.6, 8.0, 7.0)
POSES = torch.from_numpy(hemisphere_poses(6)).float()


def run(*arguments):
    return main([str(argument) for argument in arguments])


def test_the_paper_compares_with_four():
    assert list(MODELS) == ["deepvoxels", "nearest_neighbor", "tatarchenko", "worrall", "pix2pix"]
    assert {"nearest_neighbor", "tatarchenko", "worrall"} == NEEDS_SOURCE_VIEW


@pytest.mark.parametrize("name", BASELINES)
@pytest.mark.parametrize(
    ("architecture", "tolerance"),
    [
        (TINY, 0.07),
        (Architecture(64, 32, 16, 16, 16), 0.01),
        (Architecture(128, 64, 32, 16, 16), 0.01),
        (Architecture(), 0.01),
        (Architecture(no_occlusion_net=True), 0.01),
    ],
)
def test_parameters_are_equal_or_slightly_more(name, architecture, tolerance):
    """Paper, section 4: 'all baselines having equally or slightly more parameters than our
    model'."""
    with torch.device("meta"):
        parameters = count_parameters(build_model(name, architecture, GEOMETRY))
    assert 1 <= parameters / deepvoxels_parameters(architecture) <= 1 + tolerance


def test_the_width_is_the_least_that_suffices():
    for parameters in (1, 60, 601, 6000):
        width = matching_width(lambda width: torch.nn.Linear(width, 10, bias=False), parameters)
        assert 10 * width >= parameters
        assert 10 * (width - 1) < parameters or width <= 8


@pytest.mark.parametrize("name", BASELINES)
def test_each_target_is_rendered_from_its_own_source(name):
    model = build_model(name, TINY, GEOMETRY).eval()
    images = torch.rand(2, 3, 64, 64) - 0.5
    with torch.no_grad():
        both, nothing = model(images, POSES[:2], POSES[2:4])
        each = [
            model(images[i : i + 1], POSES[i : i + 1], POSES[i + 2 : i + 3])[0].images
            for i in range(2)
        ]
    assert nothing is None
    assert both.depth is None
    assert both.images.shape == (2, 3, 64, 64)
    assert both.images.abs().max() <= 0.5
    torch.testing.assert_close(both.images, torch.cat(each), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", TRAINED)
def test_in_training_the_sources_are_near_what_is_rendered_from_them(
    name, scene, tmp_path, monkeypatch
):
    """Paper, section 4: the autoencoders get 'one of the top-5 nearest neighbors' of each target;
    DeepVoxels gets one for the first target, and renders the others from its volume."""
    seen = []
    forward = MODELS[name].forward
    monkeypatch.setattr(
        MODELS[name], "forward", lambda model, *views: seen.append(views) or forward(model, *views)
    )
    train(scene, tmp_path, name)
    seen = [views for views in seen if views[0].device.type != "meta"]
    assert seen
    for _, sources, targets in seen:
        assert len(sources) == (2 if name in NEEDS_SOURCE_VIEW else 1)
        for source, target in zip(sources, targets, strict=False):
            cosines = torch.from_numpy(hemisphere_poses(8))[:, :3, 2].float() @ target[:3, 2]
            assert (
                1 <= (cosines > source[:3, 2] @ target[:3, 2] + 1e-4).sum() <= 5
            )  # the target itself is the first


@pytest.mark.parametrize("name", BASELINES)
def test_every_parameter_is_trained(name):
    model = build_model(name, TINY, GEOMETRY)
    model(torch.rand(2, 3, 64, 64) - 0.5, POSES[:2], POSES[1:3])[
        0
    ].images.square().mean().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_viewing_directions_are_unit_vectors_through_the_pixels():
    directions = pixel_directions(POSES, GEOMETRY, 64)
    assert directions.shape == (6, 3, 64, 64)
    torch.testing.assert_close(directions.norm(dim=1), torch.ones(6, 64, 64))
    # the pixel at the principal point, (8, 7) of the map and (32, 28) of the image, looks along the
    # camera's z axis
    torch.testing.assert_close(directions[:, :, 28, 32], POSES[:, :3, 2])
    # and the one 64 * 1.1 pixels to its right, had the image one, under 45 degrees: here half as
    # far
    in_camera = torch.einsum("vji,vj->vi", POSES[:, :3, :3], directions[:, :, 28, 32 + 22])
    expected = torch.tensor([22 / 70.4, 0, 1])
    torch.testing.assert_close(
        in_camera, (expected / expected.norm()).expand(6, -1), atol=1e-6, rtol=1e-5
    )


def test_viewing_directions_do_not_depend_on_the_feature_map():
    intrinsics = SceneIntrinsics(300.0, 200.0, 170.0, (0.0, 0.0, 0.0), 1.0, 1.0, 400, 400)
    directions = [
        pixel_directions(POSES, scene_geometry(intrinsics, 32, side, 1.0), 64) for side in (16, 64)
    ]
    torch.testing.assert_close(*directions)


def test_pix2pix_sees_the_direction_alone():
    """Not the source, and not where the camera stands."""
    model = Pix2Pix(TINY, GEOMETRY).eval()
    moved = POSES[1:3].clone()
    moved[:, :3, 3] += 0.5
    with torch.no_grad():
        images = [
            model(source, None if source is None else POSES[:1], targets)[0].images
            for source, targets in [(None, POSES[1:3]), (torch.zeros(1, 3, 64, 64), moved)]
        ]
    torch.testing.assert_close(*images, atol=1e-4, rtol=1e-4)


def test_the_latent_turns_from_the_source_to_the_target():
    """A direction of the world has, in each camera's axes, coordinates that the relative rotation
    carries over."""
    up = torch.tensor([0.0, 0.0, 1.0, 0.0])
    in_source = invert_rigid(POSES[:1]) @ up
    in_targets = invert_rigid(POSES[1:]) @ up
    rotation = relative_rotation(POSES[:1].expand(5, -1, -1), POSES[1:])
    sets = in_source[:, :3].repeat(5, 4)
    torch.testing.assert_close(turn(sets, rotation), in_targets[:, :3].repeat(1, 4))
    torch.testing.assert_close(
        turn(sets, relative_rotation(POSES[1:], POSES[1:])), sets, atol=1e-6, rtol=1e-6
    )


def test_pose_vectors_are_relative_to_the_grid():
    pose = torch.eye(4)[None].clone()
    pose[0, :3, 3] = torch.tensor([1.1, 0.2, -0.7])
    expected = torch.tensor([1.0, 0, 0, 1.0, 0, 1, 0, 0, 0, 0, 1, -1])
    torch.testing.assert_close(pose_vector(pose, GEOMETRY), expected[None])


@pytest.fixture(scope="module")
def trained_baseline(tmp_path_factory):
    """Returns a function: the checkpoint of a baseline after two steps on a scene of its own. Not
    to be changed."""
    folder = tmp_path_factory.mktemp("baselines")
    write_scene(folder / "scene" / "train", views=8)
    write_scene(folder / "scene" / "test", views=3)

    @functools.cache
    def checkpoint(name):
        return folder / "scene", train(folder / "scene", folder / name, name)

    return checkpoint


def train(scene, logs, name):
    assert (
        run(
            "--train_test",
            "train",
            "--model",
            name,
            "--data_root",
            scene / "train",
            "--logging_root",
            logs,
            *SMALL,
            "--max_steps",
            2,
        )
        == 0
    )
    (checkpoint,) = logs.glob("logs/*/*/*_iter_2.pth")
    return checkpoint


def render(scene, logs, *more):
    assert (
        run("--train_test", "test", "--data_root", scene / "test", "--logging_root", logs, *more)
        == 0
    )
    (folder,) = logs.glob("test_traj/*/*")
    return folder, json.loads((folder / "metrics.json").read_text())


@pytest.mark.parametrize("name", BASELINES)
def test_the_same_commands_train_resume_and_test(trained_baseline, tmp_path, name):
    scene, checkpoint = trained_baseline(name)
    assert (
        run(
            "--train_test",
            "train",
            "--resume",
            checkpoint,
            "--logging_root",
            tmp_path,
            "--max_steps",
            3,
        )
        == 0
    )
    (resumed,) = tmp_path.glob("logs/*/*/*_iter_3.pth")
    folder, metrics = render(scene, tmp_path, "--checkpoint", resumed, "--device", "cpu")
    assert metrics["model"] == name
    assert metrics["parameters"] >= deepvoxels_parameters(TINY)
    assert metrics["depth"] is None
    assert {"img_00002.png", "video.mp4", "comparison.png"} <= {
        path.name for path in folder.iterdir()
    }


@pytest.mark.parametrize("name", sorted(NEEDS_SOURCE_VIEW - UNTRAINED))
def test_in_testing_the_source_is_the_nearest_training_view(trained_baseline, tmp_path, name):
    """Paper, section 4: 'At test time, the previous two baselines receive the top-1 nearest
    neighbor'."""
    scene, checkpoint = trained_baseline(name)
    folder, _ = render(scene, tmp_path, "--checkpoint", checkpoint, "--device", "cpu")
    views = load_scene(scene / "train", 64)
    paths = load_scene(scene / "test", 64)
    geometry = scene_geometry(
        views.intrinsics, TINY.grid_dim, TINY.proj_sidelength, DEFAULT_NEAR_PLANE
    )
    model = build_model(name, TINY, geometry)
    model.load_state_dict(torch.load(checkpoint, weights_only=True)["model"])
    views = views.on(torch.device("cpu"))
    poses = paths.poses(torch.device("cpu"))
    with torch.no_grad():
        # the eight training views are 45 degrees apart, test view 1 is at 120 degrees: number 3 is
        # nearest
        expected = model.eval()(views.pixels([3]), views.poses([3]), poses[1:2])[0].images
    image = cv2.imread(str(folder / "img_00001.png"), cv2.IMREAD_UNCHANGED)[..., ::-1] / 65535
    np.testing.assert_allclose(image, expected[0, :, 5:-5, 5:-5].permute(1, 2, 0) + 0.5, atol=1e-3)


def test_nearest_neighbor_is_tested_without_a_checkpoint(scene, tmp_path):
    folder, metrics = render(scene, tmp_path, "--model", "nearest_neighbor", *SMALL)
    assert metrics["parameters"] == 0
    for name in ("psnr", "ssim"):
        assert metrics[name] == pytest.approx(metrics["nearest_neighbor"][name], abs=1e-4)
    image = cv2.imread(str(folder / "img_00001.png"), cv2.IMREAD_UNCHANGED)
    view = cv2.imread(str(scene / "train" / "rgb" / "000003.png"))[5:-5, 5:-5]
    np.testing.assert_allclose(image / 65535, view / 255, atol=1e-4)


def test_sources_are_views_that_training_kept(scene, tmp_path):
    _, metrics = render(
        scene, tmp_path, "--model", "nearest_neighbor", *SMALL, "--sampling_pattern", "skip_7"
    )
    (scene / "train" / "rgb").rename(scene / "all")
    (scene / "train" / "rgb").mkdir()
    for i in range(8):
        (scene / "train" / "rgb" / f"{i}.png").write_bytes(
            (scene / "all" / "000000.png").read_bytes()
        )
    _, one_view = render(scene, tmp_path / "one", "--model", "nearest_neighbor", *SMALL)
    assert metrics["psnr"] == pytest.approx(one_view["psnr"])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ["--train_test", "train", "--model", "nearest_neighbor"],
            ["nearest_neighbor", "nothing to train"],
        ),
        (["--train_test", "train", "--model", "nerf"], ["nerf"]),
        (["--train_test", "test", "--model", "pix2pix"], ["--checkpoint"]),
    ],
)
def test_what_a_user_can_get_wrong(scene, logs, assert_refused, arguments, words):
    folders = ["--data_root", scene / "train", "--logging_root", logs]
    assert_refused([*arguments, *folders], *words)


def test_a_checkpoint_knows_its_model(trained_baseline, tmp_path, capfd):
    scene, checkpoint = trained_baseline("pix2pix")
    test = [
        "--train_test",
        "test",
        "--data_root",
        scene / "test",
        "--logging_root",
        tmp_path / "more",
        "--checkpoint",
        checkpoint,
    ]
    capfd.readouterr()
    for flag, given, recorded in [("--model", "worrall", "pix2pix"), ("--nf0", "8", "4")]:
        assert run(*test, flag, given) == 2
        error = capfd.readouterr().err
        assert f"{flag} {given}" in error
        assert f"{flag} {recorded}" in error


def test_baselines_that_start_from_a_view_need_one(scene, tmp_path, capfd):
    (scene / "train").rename(scene / "elsewhere")
    arguments = [
        "--train_test",
        "test",
        "--model",
        "nearest_neighbor",
        "--data_root",
        scene / "test",
        "--logging_root",
        tmp_path / "logs",
        *SMALL,
    ]
    assert run(*arguments) == 2
    assert "--train_root" in capfd.readouterr().err
    assert run(*arguments, "--train_root", scene / "elsewhere") == 0
