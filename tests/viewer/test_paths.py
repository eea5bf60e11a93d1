"""Camera paths that are drawn in the viewer."""

import json

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from dataio import load_scene
from evaluation.video_writer import FRAMES_PER_SECOND
from geometry.paths import smooth_path
from tests.conftest import hemisphere_poses, look_at_origin
from util import InputError
from viewer.paths import CameraPath, load_path, saved_paths


def turn(first, second) -> float:
    """The angle between two poses, in degrees."""
    return np.degrees(Rotation.from_matrix(first[:3, :3].T @ second[:3, :3]).magnitude())


@pytest.mark.parametrize("closed", [False, True])
def test_path_goes_smoothly_through_its_keyframes(closed):
    keyframes = hemisphere_poses(6)
    path = smooth_path(keyframes, 601, closed, scale=1.0)
    for keyframe in keyframes:
        nearest = path[np.linalg.norm(path[:, :3, 3] - keyframe[:3, 3], axis=1).argmin()]
        np.testing.assert_allclose(nearest, keyframe, atol=0.02)
    np.testing.assert_allclose(
        path[:, :3, :3] @ path[:, :3, :3].mT, np.tile(np.eye(3), (601, 1, 1)), atol=1e-9
    )
    if closed:
        path = np.concatenate([path, path[:2]])
    else:
        np.testing.assert_allclose(path[[0, -1]], keyframes[[0, -1]], atol=1e-9)
    steps = np.diff(path[:, :3, 3], axis=0)
    lengths = np.linalg.norm(steps, axis=1)
    assert lengths.max() < 1.3 * lengths.min()  # an even pace
    assert (
        np.linalg.norm(np.diff(steps, axis=0), axis=1).max() < 0.05 * lengths.mean()
    )  # and no corner
    # Keyframes on a circle: a spline stays near it, where straight lines would cut 13 % off.
    np.testing.assert_allclose(np.linalg.norm(path[:, :3, 3], axis=1), 1.9, atol=0.06)


def test_rotation_turns_at_an_even_rate_about_one_axis():
    first = look_at_origin([1.9, 0, 0.3])
    second = first.copy()
    second[:3, :3] = first[:3, :3] @ Rotation.from_euler("y", 80, degrees=True).as_matrix()
    path = smooth_path(np.stack([first, second]), 5, False, scale=1.0)
    np.testing.assert_allclose([turn(path[i], path[i + 1]) for i in range(4)], 20, atol=1e-6)
    np.testing.assert_allclose(turn(first, path[2]), 40, atol=1e-6)


@pytest.mark.parametrize("closed", [False, True])
def test_a_keyframe_may_have_its_own_time_to_the_next(closed):
    """The path is the same; the others' legs keep the even pace of `seconds`."""
    path = CameraPath(hemisphere_poses(4), 8.0, closed)
    legs = 4 if closed else 3
    even = path.duration(1.0) / legs
    slow = path._replace(legs=(0.0, 5.0, 0.0, 0.0))
    assert slow.duration(1.0) == pytest.approx(8 - 8 / legs + 5, rel=0.05)
    centers = slow.poses(1.0)[:, :3, 3]
    seconds = [
        np.linalg.norm(centers - keyframe[:3, 3], axis=1).argmin() / FRAMES_PER_SECOND
        for keyframe in path.keyframes
    ]
    np.testing.assert_allclose(seconds, [0, even, even + 5, 2 * even + 5], rtol=0.06)
    places = path._replace(seconds=80.0).poses(1.0)[:, :3, 3]
    apart = np.linalg.norm(centers[:, None] - places[None], axis=2).min(axis=1)
    assert apart.max() < 0.01


def test_two_equal_keyframes_with_a_time_between_them_are_a_rest():
    pose = look_at_origin([1.9, 0, 0.3])
    keyframes = np.stack([pose, pose, look_at_origin([0, 1.9, 0.3])])
    path = CameraPath(keyframes, 2.0, False, (1.0, 0.0, 0.0)).poses(1.0)
    second = round(FRAMES_PER_SECOND)
    assert len(path) == 3 * second
    rest = np.tile(pose, (second, 1, 1))
    np.testing.assert_allclose(path[:second], rest, atol=0.01)


def test_equal_keyframes_and_a_single_one_are_paths_too():
    pose = look_at_origin([1.9, 0, 0.3])
    for keyframes in (
        pose[None],
        np.stack([pose, pose]),
        np.stack([pose, pose, look_at_origin([0, 1.9, 0.3]), pose]),
    ):
        for closed in (False, True):
            path = smooth_path(keyframes, 7, closed, scale=1.0)
            assert path.shape == (7, 4, 4)
            np.testing.assert_allclose(path[0], pose, atol=1e-9)
            assert np.isfinite(path).all()


def test_saved_path_is_a_test_folder_and_can_be_loaded_again(viewed, tmp_path):
    path = CameraPath(hemisphere_poses(4), 2.0, True, (0.0, 1.5, 0.0, 0.0))
    viewed.save(tmp_path / "paths" / "around", path)
    scene = load_scene(tmp_path / "paths" / "around", 64, with_images=False)
    np.testing.assert_allclose(scene.cam2world, path.poses(1.0), atol=1e-12)
    assert scene.intrinsics == viewed.scene.intrinsics
    again = load_path(tmp_path / "paths" / "around")
    assert again[1:] == path[1:]
    np.testing.assert_array_equal(again.keyframes, path.keyframes)
    assert saved_paths(tmp_path / "paths") == ["around"]


def test_path_is_never_saved_over_another_nor_where_it_sees_nothing(viewed, tmp_path):
    path = CameraPath(hemisphere_poses(4), 2.0, True)
    viewed.save(tmp_path / "around", path)
    before = (tmp_path / "around" / "keyframes.json").read_bytes()
    with pytest.raises(InputError, match="already exists"):
        viewed.save(tmp_path / "around", path._replace(seconds=3.0))
    assert (tmp_path / "around" / "keyframes.json").read_bytes() == before
    away = path.keyframes.copy()
    away[2, :3, :3] = away[2, :3, :3] @ np.diag([-1, 1, -1])
    with pytest.raises(InputError, match="sees nothing of the grid"):
        viewed.save(tmp_path / "away", path._replace(keyframes=away))
    assert not (tmp_path / "away").exists()


@pytest.mark.parametrize(
    "change",
    [
        {"keyframes": [[1, 2]]},
        {"keyframes": []},
        {"seconds": 1e9},
        {"seconds": "x"},
        {"keyframes": [(2 * np.eye(4)).tolist()]},
        {"closed": None, "seconds": None},
        {"legs": [1.0]},
        {"legs": [1.0, 0.0, 0.0, -1.0]},
        {"legs": "x"},
    ],
)
def test_damaged_path_is_refused_by_name(viewed, tmp_path, change):
    viewed.save(tmp_path / "around", CameraPath(hemisphere_poses(4), 2.0, True))
    file = tmp_path / "around" / "keyframes.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    with pytest.raises(InputError, match="keyframes.json"):
        load_path(tmp_path / "around")


def test_a_path_that_is_no_json_is_refused_by_name(viewed, tmp_path):
    viewed.save(tmp_path / "around", CameraPath(hemisphere_poses(4), 2.0, True))
    for content in ("{", "[" * 100_000):
        (tmp_path / "around" / "keyframes.json").write_text(content)
        with pytest.raises(InputError, match="keyframes.json: is not JSON"):
            load_path(tmp_path / "around")
