"""The files that every scene-making command writes, field by field (docs/design.md, section 7), and
all or nothing."""

import cv2
import numpy as np
import pytest

from data_util import (
    SceneIntrinsics,
    load_intrinsics,
    load_pose,
    write_image,
    write_intrinsics,
    write_pose,
    write_scene_folder,
)
from files.folders import new_folder
from machine.cli import run
from scenes.capture.listing import natural_order
from util import InputError

INTRINSICS = SceneIntrinsics(525.25, 256.0, 255.5, (0.1, -0.2, 1 / 3), 1.0474, 1.1, 512, 640)


def test_pose_is_16_numbers_on_one_line_that_read_back_exactly(tmp_path):
    pose = np.eye(4)
    pose[:3, :3] = np.linalg.qr(np.random.default_rng(0).standard_normal((3, 3)))[0]
    pose[:3, :3] *= np.sign(np.linalg.det(pose[:3, :3]))
    pose[:3, 3] = 1 / 3, -1e-9, 12345.678901234567
    write_pose(tmp_path / "pose.txt", pose)
    text = (tmp_path / "pose.txt").read_text()
    assert text.count("\n") == 1 and text.endswith("\n") and len(text.split()) == 16
    assert "-0.0 " not in text
    np.testing.assert_array_equal(np.array(text.split(), dtype=float).reshape(4, 4), pose)
    np.testing.assert_array_equal(load_pose(tmp_path / "pose.txt"), pose)


def test_intrinsics_as_the_original_readers_parse_them(tmp_path):
    """NeRF's loader reads f cx cy, barycenter, near plane, scale, height width, and takes int() of
    what follows."""
    write_intrinsics(tmp_path / "intrinsics.txt", INTRINSICS)
    with open(tmp_path / "intrinsics.txt") as file:
        assert list(map(float, file.readline().split())) == [525.25, 256.0, 255.5, 0.0]
        assert list(map(float, file.readline().split())) == [0.1, -0.2, 1 / 3]
        assert float(file.readline()) == 1.0474
        assert float(file.readline()) == 1.1
        assert file.readline().split() == ["512", "640"]
        assert file.readline() == ""
    assert load_intrinsics(tmp_path / "intrinsics.txt") == INTRINSICS


def test_images_and_poses_pair_by_sorted_order(tmp_path):
    images = [np.full((4, 4, 3), value, np.uint8) for value in range(12)]
    write_scene_folder(tmp_path / "train", INTRINSICS, np.tile(np.eye(4), (12, 1, 1)), images)
    names = [
        sorted(path.stem for path in (tmp_path / "train" / part).iterdir())
        for part in ("rgb", "pose")
    ]
    assert names[0] == names[1] == [f"{index:06d}" for index in range(12)]


def test_folder_appears_only_when_complete(tmp_path):
    with pytest.raises(RuntimeError), new_folder(tmp_path / "scene") as folder:
        write_image(folder / "a.png", np.zeros((2, 2, 3), np.uint8))
        assert not (tmp_path / "scene").exists()
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
    with new_folder(tmp_path / "scene") as folder:
        write_image(folder / "a.png", np.zeros((2, 2, 3), np.uint8))
    assert [path.name for path in tmp_path.iterdir()] == ["scene"]
    with pytest.raises(InputError, match="already exists"), new_folder(tmp_path / "scene"):
        pass
    assert (tmp_path / "scene" / "a.png").exists()


def test_a_users_mistake_is_one_line_and_exit_code_2(tmp_path, capsys):
    def main(argv):
        raise InputError(f"{tmp_path}: is wrong")

    with pytest.raises(SystemExit) as exit_info:
        run("scenes.thing", main)
    assert exit_info.value.code == 2
    assert capsys.readouterr().err == f"scenes.thing: error: {tmp_path}: is wrong\n"


def test_no_memory_for_a_picture_is_one_line_and_exit_code_1(capsys):
    def main(argv):
        cv2.resize(np.zeros((1, 1, 3), np.uint8), (1 << 30, 1 << 30))

    with pytest.raises(SystemExit) as exit_info:
        run("scenes.thing", main)
    assert exit_info.value.code == 1
    error = capsys.readouterr().err
    assert error.startswith("scenes.thing: error: out of memory: ") and error.count("\n") == 1


def test_numbers_in_names_sort_as_numbers():
    assert sorted(["r_10", "r_2", "r_1a", "x", "r_100"], key=natural_order) == [
        "r_1a",
        "r_2",
        "r_10",
        "r_100",
        "x",
    ]
