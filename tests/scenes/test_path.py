"""Paths by command line: in which coordinates a file's poses are, and which flags a kind takes."""

import numpy as np
import pytest

from data_util import list_poses, load_pose, write_pose
from scenes import export, path
from util import InputError, write_json

TURN = np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])


def poses(folder):
    return np.stack([load_pose(file) for file in list_poses(folder / "pose")])


@pytest.fixture
def camera_path(scene, tmp_path):
    """The scene's test poses, in its own coordinates, as scenes.export writes them."""
    export.main([str(scene / "test"), str(tmp_path / "exported"), "--to", "camera_path"])
    return tmp_path / "exported" / "camera_path.json"


@pytest.mark.parametrize(
    ("source", "flags", "taken"),
    [
        ("photos my/photos", [], "scene"),
        ("video walk.mp4", [], "scene"),
        ("photos my/photos", ["--coordinates", "source"], "source"),
        ("transforms.json capture", [], "source"),
        ("transforms.json capture", ["--coordinates", "scene"], "scene"),
    ],
)
@pytest.mark.parametrize("given", ["scene", "train folder"])
def test_a_files_poses_are_turned_only_from_the_sources_coordinates(
    scene, tmp_path, camera_path, capsys, source, flags, taken, given
):
    write_json(scene / "scene.json", {"source": source, "rotation": TURN.tolist()})
    out = tmp_path / "path"
    root = scene / "train" if given == "train folder" else scene
    arguments = ["--scene", str(root), "--out", str(out), "--camera_path", str(camera_path)]
    path.main(["file", *arguments, *flags])
    turn = TURN if taken == "source" else np.eye(3)
    expected = turn @ poses(scene / "test")[:, :3]
    np.testing.assert_allclose(poses(out)[:, :3], expected, atol=1e-12)
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.endswith(f"taken in the {taken}'s coordinates (--coordinates {taken})")


def test_a_scene_that_nobody_turned_has_one_world(scene, tmp_path, camera_path, capsys):
    arguments = ["--scene", str(scene), "--out", str(tmp_path / "path")]
    path.main(["file", *arguments, "--camera_path", str(camera_path)])
    np.testing.assert_allclose(poses(tmp_path / "path"), poses(scene / "test"), atol=1e-12)
    assert "coordinates" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("kind", "flags", "words"),
    [
        ("orbit", ["--between", "000000", "000001"], "--between: is for interpolate; orbit"),
        ("spiral", ["--seed", "0"], "--seed: is for interpolate; spiral does not use it"),
        ("walk", ["--dataparser", "x.json"], "--dataparser: is for file; walk"),
        ("orbit", ["--coordinates", "scene"], "--coordinates: is for file; orbit"),
        ("orbit", ["--camera_path", "x.json"], "--camera_path: is for file; orbit"),
        (
            "file",
            ["--camera_path", "x.json", "--frames", "5"],
            "--frames: is for spiral, orbit, walk, interpolate; file does not use it",
        ),
        ("file", [], "--camera_path: file needs it"),
        (
            "interpolate",
            ["--between", "000000", "000001", "--seed", "3"],
            "--seed: not allowed with argument --between",
        ),
    ],
)
def test_flags_of_other_kinds_are_refused(scene, tmp_path, capsys, kind, flags, words):
    with pytest.raises(SystemExit) as ended:
        path.main([kind, "--scene", str(scene), "--out", str(tmp_path / "path"), *flags])
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1
    assert not (tmp_path / "path").exists()


@pytest.mark.parametrize("flags", [[], ["--between", "000001", "000000"]])
def test_poses_that_no_line_joins_are_named(scene, tmp_path, flags):
    """However they were chosen."""
    for file in list_poses(scene / "train" / "pose")[2:]:
        file.unlink()
    first = scene / "train" / "pose" / "000000.txt"
    opposite = load_pose(first) @ np.diag([-1.0, 1, -1, 1])
    write_pose(first.with_name("000001.txt"), opposite)
    arguments = ["--scene", str(scene), "--out", str(tmp_path / "path"), *flags]
    with pytest.raises(InputError, match="from 00000. to 00000.: .* opposite .*--seed") as error:
        path.main(["interpolate", *arguments])
    assert str(error.value).startswith(f"{scene}: ") and "000001" in str(error.value)
    assert not (tmp_path / "path").exists()
