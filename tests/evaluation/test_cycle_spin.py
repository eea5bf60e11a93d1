"""`--cycle_spin`: frames averaged over where in a feature map's pixels they lie."""

import json

import pytest
import torch

from checkpoints import save_checkpoint
from data_util import crop_border
from evaluation.render import cycle_spun, with_moved_principal_point
from run_deepvoxels import main
from tests.evaluation.test_evaluation import random_model, run_test
from tests.helpers import GEOMETRY, assert_one_line

ENLARGEMENT = 4  # of random_model: 64 image pixels, 16 map pixels


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp("cycle_spin") / "model.pth"
    save_checkpoint(path, {"model": random_model().state_dict()})
    return path


def poses() -> torch.Tensor:
    pose = torch.eye(4)
    pose[2, 3] = -2
    return pose[None]


def test_a_principal_point_moved_by_a_map_pixel_moves_all_by_a_map_pixel():
    model = random_model()
    moved = with_moved_principal_point(model, right=ENLARGEMENT, down=2 * ENLARGEMENT)
    volumes = model.canonical_view_volumes(model.deepvoxels, poses())
    moved_volumes = moved.canonical_view_volumes(model.deepvoxels, poses())
    assert volumes.abs().max() > 1
    torch.testing.assert_close(
        moved_volumes[..., 2:, 1:], volumes[..., :-2, :-1], rtol=0, atol=1e-4
    )
    assert model.geometry == GEOMETRY


@torch.inference_mode()
def test_a_frame_is_the_mean_of_renderings_moved_back():
    model = random_model()
    inpainted = model.inpaint(model.deepvoxels)
    unmoved = model.render(inpainted, poses())
    spun = cycle_spun(model, 2).render(inpainted, poses())

    moved_back = []
    for right, down in [(0, 0), (2, 0), (0, 2), (2, 2)]:
        camera = with_moved_principal_point(model, right, down)
        images = camera.render(inpainted, poses()).images
        if (right, down) != (0, 0):
            border = torch.ones(64, 64, dtype=torch.bool)
            crop_border(border[None])[:] = False
            images = images.masked_fill(border, torch.nan)
        moved_back.append(images.roll((-down, -right), dims=(2, 3)))
    expected = torch.stack(moved_back).nanmean(dim=0)
    assert (moved_back[0] - moved_back[3]).nan_to_num().abs().max() > 0.1
    torch.testing.assert_close(crop_border(spun.images), crop_border(expected), rtol=0, atol=1e-5)
    torch.testing.assert_close(spun.depth, unmoved.depth, rtol=0, atol=0)
    corner = unmoved.images[..., -1:, -1:]  # which no moved image shows
    torch.testing.assert_close(spun.images[..., -1:, -1:], corner, rtol=0, atol=1e-6)


def test_a_test_says_that_it_averaged(scene, checkpoint, tmp_path):
    plain = run_test(checkpoint, scene / "test", tmp_path / "plain")
    spun = run_test(checkpoint, scene / "test", tmp_path / "spun", "--cycle_spin", 4)
    before, after = [json.loads((f / "metrics.json").read_text()) for f in (plain, spun)]
    assert before["protocol"]["cycle_spin"] == 1
    assert after["protocol"]["cycle_spin"] == 4
    assert abs(before["psnr"] - after["psnr"]) > 0.01


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--cycle_spin", "3"], "--cycle_spin 3: must divide the 4 image pixels along a pixel of"),
        (["--cycle_spin", "8"], "--cycle_spin 8: must divide the 4 image pixels along a pixel of"),
        (["--cycle_spin", "2", "--compile"], "--cycle_spin 2: does not go with --compile"),
    ],
)
def test_what_cannot_be_averaged_is_refused(scene, checkpoint, tmp_path, capsys, more, message):
    logs = tmp_path / "logs"
    arguments = ["--train_test", "test", "--data_root", str(scene / "test")]
    arguments += ["--logging_root", str(logs), "--checkpoint", str(checkpoint), *more]
    assert main(arguments) == 2
    assert_one_line(capsys.readouterr().err, message)
    assert not logs.exists()


def test_baselines_and_training_do_not_take_it(scene, tmp_path, capsys):
    shared = ["--logging_root", str(tmp_path / "logs"), "--cycle_spin", "2", "--size", "small"]
    test = ["--train_test", "test", "--data_root", str(scene / "test")]
    assert main([*test, *shared, "--model", "nearest_neighbor"]) == 2
    assert_one_line(capsys.readouterr().err, "which --model nearest_neighbor does not have")
    train = ["--train_test", "train", "--data_root", str(scene / "train")]
    assert main([*train, *shared]) == 2
    assert_one_line(capsys.readouterr().err, "--cycle_spin is for a test; training does not")
