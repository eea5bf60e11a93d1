"""Georeferenced captures lie thousands of kilometres from the origin, where float32 holds no small
distances: a scene gives the same frames, points and paths wherever it lies."""

import shutil
from dataclasses import replace
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch

from checkpoints import save_checkpoint
from data_util import load_intrinsics, load_pose, scene_parts, write_intrinsics, write_pose
from dataio import load_scene
from evaluation import export
from evaluation.trained import read_checkpoint
from files.points import load_points, save_points
from geometry.cameras import move
from scenes.check import examine
from tests.evaluation.test_export import flat_model
from tests.helpers import CPU, ROOT, arguments, checkpoints, render_arguments, run
from viewer.paths import CameraPath, load_path, save_path
from viewer.scene import load_scene_in_view, load_viewed_model

UTM = (450_000.0, 5_300_000.0, 200.0)
FAR = (1e7, -1e7, 1e7)
NEAR = (0.1, -0.2, 0.3)
SAME = 60  # dB


def moved_scene(scene, folder, offset):
    """A copy of a scene with the grid and all cameras moved by an offset."""
    shutil.copytree(scene, folder)
    for part in scene_parts(folder):
        intrinsics = load_intrinsics(part / "intrinsics.txt")
        origin = tuple((np.array(intrinsics.grid_origin) + offset).tolist())
        write_intrinsics(part / "intrinsics.txt", replace(intrinsics, grid_origin=origin))
        for path in (part / "pose").iterdir():
            write_pose(path, move(load_pose(path), np.array(offset)))
    return folder


def trained_frames(scene, logs, *more):
    """The frames, in [0, 1], of a model that is trained for three steps; and its checkpoint."""
    assert run(*arguments(scene, logs, "--max_steps", 3, *more)) == 0
    (checkpoint,) = checkpoints(logs)
    assert (
        run(*render_arguments(scene / "test", logs, checkpoint, "--train_root", scene / "train"))
        == 0
    )
    paths = sorted(logs.glob("test_traj/*/*/img_*.png"))
    assert len(paths) == 3
    frames = [cv2.imread(str(path), cv2.IMREAD_UNCHANGED) / 65535 for path in paths]
    return np.stack(frames), checkpoint


def decibels(frames, expected) -> float:
    """How large the difference is beside what there is to see, since young models paint all views
    nearly alike."""
    return 10 * np.log10(expected.var() / (np.square(frames - expected).mean() + 1e-20))


def test_a_trained_model_renders_a_moved_scene_alike():
    example = load_scene(ROOT / "example" / "lego", 64, with_images=False)
    checkpoint = read_checkpoint(ROOT / "example" / "lego.pth")
    poses = example.cam2world[:2]
    expected = [
        frame.image for frame in checkpoint.load_model(example.intrinsics, CPU).render_path(poses)
    ]
    for offset in (NEAR, UTM, FAR):
        moved = replace(example.intrinsics, grid_origin=offset)
        frames = checkpoint.load_model(moved, CPU).render_path(move(poses, np.array(offset)))
        assert decibels(np.stack([frame.image for frame in frames]), np.stack(expected)) > SAME


@pytest.mark.parametrize("model", ["deepvoxels", "tatarchenko"])
def test_a_moved_scene_is_learned_and_rendered_alike(scene, tmp_path, model):
    expected, _ = trained_frames(scene, tmp_path / "logs", "--model", model)
    for name, offset in {"utm": UTM, "far": FAR}.items():
        moved = moved_scene(scene, tmp_path / name, offset)
        frames, _ = trained_frames(moved, tmp_path / f"logs_{name}", "--model", model)
        assert decibels(frames, expected) > SAME


@pytest.fixture(params=[UTM, FAR], ids=["utm", "far"])
def places(scene, tmp_path, request):
    """An offset, a scene, its copy moved by that, and for each a checkpoint of the same model."""
    offset = np.array(request.param)
    scenes = scene, moved_scene(scene, tmp_path / "moved", offset)
    paths = []
    for place in scenes:
        torch.manual_seed(0)
        path = place.parent / f"{place.name}.pth"
        options = {"data_root": str(place / "train")}
        save_checkpoint(path, {"model": flat_model().state_dict(), "options": options})
        paths.append(path)
    return SimpleNamespace(offset=offset, scenes=scenes, checkpoints=paths)


def test_the_exported_surface_lies_where_the_scene_is(places, tmp_path):
    clouds = []
    for index, path in enumerate(places.checkpoints):
        out = tmp_path / f"{index}.ply"
        export.main(["--checkpoint", str(path), "--out", str(out), "--device", "cpu"])
        clouds.append(load_points(out)[0])
    assert len(clouds[0]) > 4
    np.testing.assert_allclose(clouds[1], clouds[0] + places.offset, atol=1e-5, rtol=0)


def test_any_points_keep_their_places_in_a_file(tmp_path):
    points = np.random.default_rng(0).normal(size=(50, 3))
    colors = np.full((50, 3), 7, np.uint8)
    for offset, size in ((0, 4), (1e7, 8)):
        file = tmp_path / f"{size}.ply"
        save_points(file, points + offset, colors)
        read, read_colors = load_points(file)
        np.testing.assert_allclose(read, points + offset, atol=1e-6, rtol=0)
        np.testing.assert_array_equal(read_colors, colors)
        header, _, body = file.read_bytes().partition(b"end_header\n")
        assert len(body) == 50 * (3 * size + 4)


def test_the_viewer_shows_a_moved_scene_alike_and_saves_paths_where_it_is(places, tmp_path):
    pictures = []
    paths = []
    for index, path in enumerate(places.checkpoints):
        checkpoint = read_checkpoint(path)
        view = load_scene_in_view(checkpoint, None)
        model = load_viewed_model(checkpoint, view, CPU)
        keyframes = view.views.cam2world[[0, 2, 3]]
        assert np.abs(keyframes).max() < 10  # what browsers get, in float32
        pictures.append(model.render_view(keyframes[1]).image)
        shown = CameraPath(keyframes, 1.0, False)
        save_path(tmp_path / f"path{index}", shown, view, model)
        saved = load_path(tmp_path / f"path{index}")
        assert_close(saved.moved(-view.offset).keyframes, keyframes)
        poses = load_scene(tmp_path / f"path{index}", 64, with_images=False)
        seen_from_path = read_checkpoint(path).load_model(poses.intrinsics, CPU)
        assert decibels(seen_from_path.render_view(saved.keyframes[1]).image, pictures[-1]) > SAME
        paths.append((poses.cam2world, saved.keyframes, poses.intrinsics.grid_origin))
    assert decibels(*pictures) > SAME
    (poses, keyframes, origin), (moved_poses, moved_keyframes, moved_origin) = paths
    assert_close(moved_poses, move(poses, places.offset))
    assert_close(moved_keyframes, move(keyframes, places.offset))
    assert_close(moved_origin, origin + places.offset)


def assert_close(values, expected):
    """Equal but for the rounding of float64 at 1e7."""
    np.testing.assert_allclose(values, expected, atol=2e-8, rtol=0)


def test_the_check_says_the_same_of_a_moved_scene(places):
    for part in ("train", "test"):
        at_origin, moved = (examine(place / part, to_train_on=True) for place in places.scenes)
        assert (moved.errors, moved.warnings) == (at_origin.errors, at_origin.warnings)
        assert moved.errors == []


def test_held_out_views_of_another_grid_are_refused_wherever_they_lie(
    scene, tmp_path, assert_refused
):
    """Compared with 1e7, a grid's side is nothing."""
    moved = moved_scene(scene, tmp_path / "moved", FAR)
    held_out = moved / "test" / "intrinsics.txt"
    intrinsics = load_intrinsics(held_out)
    origin = (FAR[0] + 1, *FAR[1:])
    write_intrinsics(held_out, replace(intrinsics, grid_origin=origin))
    command = arguments(moved, tmp_path / "logs", "--max_steps", 2, "--validate_every", 1)
    assert_refused(command, "differs from")


def test_source_views_lie_about_the_grid_that_the_model_sees(scene):
    views = load_scene(scene / "train", 64)
    other = replace(views.intrinsics, grid_origin=NEAR)
    expected = move(views.cam2world, -np.array(NEAR))
    poses = views.with_grid_of(other).poses(CPU)
    np.testing.assert_allclose(poses.numpy(), expected, atol=1e-6)
