"""Turned target cameras: true images from a homography, and training that uses them."""

import numpy as np
import pytest
import torch

from dataio import Scene, load_scene
from geometry.cameras import look_at
from losses import LossWeights, known_mean
from machine.ranks import ALONE, Ranks
from projection import SceneGeometry, world2image
from scenes.synthetic.objects import OBJECTS
from scenes.synthetic.raycast import RayCaster
from scenes.synthetic.surface import Surface, fit_unit_cube
from tests.conftest import hemisphere_poses, write_scene
from tests.helpers import (
    CPU,
    arguments,
    assert_same,
    final_checkpoint,
    new_training,
    options_of,
    resume,
    run,
)
from training.data import load_batch
from training.step import l1_and_psnr, train_step
from training.turned_targets import (
    TurnedTargets,
    draw_turns,
    load_turned_targets,
    rotation,
    turned,
    warp,
)

TURN = ["--turn_roll", 15, "--turn_tilt", 2]
IDENTITY = torch.eye(3)[None]


def intrinsic_matrix(sidelength: int) -> np.ndarray:
    """Of a camera at distance 2 that sees the unit cube, with its middle off the image's."""
    return sidelength / 64 * np.array([[75.0, 0, 34], [0, 75, 31], [0, 0, 64 / sidelength]])


def homography(turn: torch.Tensor, matrix: np.ndarray) -> torch.Tensor:
    matrix = torch.from_numpy(matrix)
    return (matrix @ turn @ matrix.inverse()).float()[None]


@pytest.mark.parametrize("angles", [(0.03, -0.04, 0.2), (0.0, 0.0, -0.4), (0.1, 0.05, 0.0)])
def test_a_warped_image_is_what_the_turned_camera_sees(angles):
    """Against a rendering by that camera, where the original image shows it; half a pixel of the
    original is seen."""
    caster = RayCaster(Surface.from_meshes(fit_unit_cube(OBJECTS["cube"]())))
    pose = look_at(np.array([[1.2, 1.0, 1.2]]), np.zeros(3), np.array([0.0, 0, 1]))
    turn = rotation(*angles)
    original = caster.render(pose[0], intrinsic_matrix(256), 256, 4)
    pose_turned = turned(torch.from_numpy(pose), turn[None])[0].numpy()
    expected = caster.render(pose_turned, intrinsic_matrix(64), 64, 16)

    def error(shift: float) -> float:
        matrix = intrinsic_matrix(256)
        matrix[:2, 2] += shift
        image = torch.from_numpy(original).permute(2, 0, 1)[None].float() / 255 - 0.5
        warped, known = warp(image, homography(turn, matrix), 64)
        truth = torch.from_numpy(expected).permute(2, 0, 1)[None].float() / 255 - 0.5
        assert known.mean() > 0.7
        return float(known_mean((warped - truth).abs(), known))

    assert error(0) < 0.003
    if angles[2]:
        assert error(2) > 1.5 * error(0)  # half a pixel of the warped image


def test_an_unturned_image_is_the_original_area_averaged():
    image = torch.rand(1, 3, 32, 32) - 0.5
    warped, known = warp(image, IDENTITY, 8)
    torch.testing.assert_close(warped, torch.nn.functional.avg_pool2d(image, 4))
    assert (known == 1).all()


def test_what_the_original_does_not_show_is_masked():
    """A square rolled by 45 degrees lacks its corners; a camera turned away sees nothing."""
    image = torch.zeros(1, 3, 32, 32)
    matrix = np.array([[32.0, 0, 16], [0, 32, 16], [0, 0, 1]])
    _, known = warp(image, homography(rotation(0.0, 0.0, np.pi / 4), matrix), 16)
    assert known[0, 0, [0, 0, -1, -1], [0, -1, 0, -1]].sum() == 0
    inside = np.abs(np.mgrid[:16, :16] - 7.5).sum(0)  # at the distance 8 sqrt(2) are the edges
    assert (known[0, 0].numpy()[inside < 9.5] == 1).all()
    assert (known[0, 0].numpy()[inside > 11.4] == 0).all()
    assert warp(image, homography(rotation(np.pi, 0.0, 0.0), matrix), 16)[1].sum() == 0


def test_a_turned_camera_sees_a_point_where_the_homography_takes_it():
    """p = H p': the model's projection and the warp agree on what a pose and a turn mean."""
    geometry = SceneGeometry(8, 0.125, (0.0, 0.0, 0.0), 1.0, 64, 70.0, 32.0, 32.0)
    matrix = np.array([[70.0, 0, 32], [0, 70, 32], [0, 0, 1]])
    poses = torch.from_numpy(hemisphere_poses(3))
    turns = draw_turns(3, 20.0, 5.0, seed=0, step=1)
    points = torch.rand(20, 3, dtype=torch.float64) - 0.5
    for pose, pose_turned, turn in zip(poses, turned(poses, turns), turns, strict=True):
        before = world2image(points, pose, geometry)[:, :2]
        after = world2image(points, pose_turned, geometry)[:, :2]
        moved = (
            torch.nn.functional.pad(after, (0, 1), value=1) @ homography(turn, matrix)[0].T.double()
        )
        torch.testing.assert_close(moved[:, :2] / moved[:, 2:], before, rtol=1e-4, atol=1e-3)


def test_turns_depend_on_seed_and_step_alone():
    first = draw_turns(2, 15.0, 2.0, seed=3, step=7)
    draw_turns(2, 15.0, 2.0, seed=3, step=8)
    assert torch.equal(draw_turns(2, 15.0, 2.0, seed=3, step=7), first)
    assert not torch.equal(draw_turns(2, 15.0, 2.0, seed=3, step=8), first)
    assert not torch.equal(draw_turns(2, 15.0, 2.0, seed=4, step=7), first)
    assert not torch.equal(first[0], first[1])


def test_turns_are_rotations_of_the_size_asked_for():
    turns = draw_turns(4000, 15.0, 2.0, seed=0, step=0)
    torch.testing.assert_close(turns @ turns.mT, torch.eye(3).double().expand_as(turns))
    assert (turns.det() > 0).all()
    yaw = torch.atan2(turns[:, 0, 2], turns[:, 2, 2]).rad2deg()
    pitch = torch.asin(-turns[:, 1, 2]).rad2deg()
    roll = torch.atan2(turns[:, 1, 0], turns[:, 1, 1]).rad2deg()
    assert roll.abs().max() <= 15 and roll.std() == pytest.approx(15 / 3**0.5, rel=0.05)
    assert yaw.std() == pytest.approx(2, rel=0.05) and pitch.std() == pytest.approx(2, rel=0.05)
    assert max(abs(angle.mean()) for angle in (yaw, pitch, roll)) < 0.5
    torch.testing.assert_close(draw_turns(2, 0.0, 0.0, 0, 0), torch.eye(3).double().expand(2, 3, 3))


def turning_of(scene, *more) -> tuple[TurnedTargets | None, Scene]:
    training = new_training(*arguments(scene, "logs", *more))
    return training.turning, training.scene


def test_larger_originals_are_read_where_the_files_have_them(tmp_path):
    for side, enlargement in [(64, 1), (130, 2), (320, 4)]:
        write_scene(tmp_path / str(side) / "train", views=4, sidelength=side)
        turning, views = turning_of(tmp_path / str(side), *TURN, "--sampling_pattern", "skip_1")
        assert turning.originals.shape == (2, 3, 64 * enlargement, 64 * enlargement)
        batch = load_batch(views.on(CPU), np.array([0, 0, 1]))
        still = TurnedTargets(turning.originals, turning.matrix, 64, 0.0, 0.0, 0)
        unturned = still.turn(batch, np.array([0, 1]), 1)
        torch.testing.assert_close(
            unturned.target_images, batch.target_images, rtol=0, atol=1.5 / 255
        )
        torch.testing.assert_close(unturned.target_cam2world, batch.target_cam2world)
    assert turning_of(tmp_path / "64")[0] is None


def test_a_view_that_is_left_out_moves_no_other(tmp_path):
    """Originals belong to the views that training has, in their order."""
    write_scene(tmp_path / "train", views=5, sidelength=128)
    options = options_of(*arguments(tmp_path, "logs", *TURN))
    views = load_scene(tmp_path / "train", 64).subset([4, 1])
    originals = load_turned_targets(views, options.learning, options.scene, CPU).originals
    assert torch.equal(originals, load_scene(tmp_path / "train", 128).images[[4, 1]])


def test_ranks_turn_their_shares_as_one_process_turns_all(scene):
    turning, views = turning_of(scene, *TURN)
    triplet = np.array([0, 1, 2])
    whole = turning.turn(load_batch(views.on(CPU), triplet), triplet[1:], 5, ALONE)
    for rank in (0, 1):
        ranks = Ranks(rank, 2)
        part = turning.turn(load_batch(views.on(CPU), triplet, ranks=ranks), triplet[1:], 5, ranks)
        for name in ("target_images", "target_cam2world", "target_mask"):
            torch.testing.assert_close(getattr(part, name)[0], getattr(whole, name)[rank])


@pytest.mark.parametrize("ssim_weight", [0.0, 50.0])
def test_losses_and_gradients_see_nothing_of_what_is_unknown(ssim_weight, scene, tmp_path):
    weights = LossWeights(ssim=ssim_weight)
    words = arguments(scene, tmp_path)
    batch = load_batch(new_training(*words).scene.on(CPU), np.array([0, 1, 2]))
    known = torch.ones(2, 1, 64, 64)
    known[0, :, 20:40, 10:30] = 0
    other = batch.target_images.clone()
    other[0, :, 20:40, 10:30] = -0.5
    results = []
    for images in (batch.target_images, other):
        networks = new_training(*words).networks
        torch.manual_seed(0)  # of dropout
        step = train_step(
            networks, batch._replace(target_images=images, target_mask=known), weights
        )
        results.append((list(step.losses), networks.model.state_dict()))
    assert_same(*results)
    results = []
    for mask in (torch.ones(2, 1, 64, 64), None):
        networks = new_training(*words).networks
        torch.manual_seed(0)
        results.append(train_step(networks, batch._replace(target_mask=mask), weights).losses)
    everything, unmasked = results
    for value, expected in zip(everything, unmasked, strict=True):
        if expected is not None:
            torch.testing.assert_close(value, expected)


def test_a_target_of_which_nothing_is_known_has_no_psnr():
    images = torch.zeros(2, 3, 4, 4)
    truth = torch.full_like(images, 0.1)
    known = torch.ones(2, 1, 4, 4)
    known[1] = 0
    l1, psnr = l1_and_psnr(images, truth, known)
    assert l1.item() == pytest.approx(0.05)
    assert psnr.item() == pytest.approx(20)
    assert l1_and_psnr(images, truth, torch.zeros_like(known))[1].item() == 0


def test_known_mean():
    values = torch.tensor([[[[1.0, 2], [3, 4]], [[5, 6], [7, 8]]], [[[1, 1], [1, 1]]] * 2][0:1])
    known = torch.tensor([[[[1.0, 0], [0, 1]]]])
    assert known_mean(values, known).tolist() == [(1 + 4 + 5 + 8) / 4]
    assert known_mean(values, torch.zeros(1, 1, 2, 2)).tolist() == [0]


def test_a_resumed_run_turns_as_if_never_stopped(scene, tmp_path):
    assert run(*arguments(scene, tmp_path / "once", "--max_steps", 4, *TURN)) == 0
    assert run(*arguments(scene, tmp_path / "twice", "--max_steps", 2, *TURN)) == 0
    assert run(*resume(tmp_path / "twice", "--max_steps", 4)) == 0
    once, twice = (final_checkpoint(tmp_path / name, 4)[1] for name in ("once", "twice"))
    for part in once.keys() - {"options", "checksum", "seconds"}:
        assert_same(once[part], twice[part], part)
    assert (twice["options"]["turn_roll"], twice["options"]["turn_tilt"]) == (15, 2)


@pytest.mark.parametrize("model", ["pix2pix", "tatarchenko", "worrall"])
def test_baselines_learn_from_turned_targets(scene, tmp_path, model):
    assert run(*arguments(scene, tmp_path, "--max_steps", 2, "--model", model, *TURN)) == 0


def test_angles_that_make_no_sense_are_refused(scene, logs, assert_refused):
    for flag, angle in [("--turn_roll", -1), ("--turn_roll", 181), ("--turn_tilt", 21)]:
        assert_refused(arguments(scene, logs, flag, angle), flag)
