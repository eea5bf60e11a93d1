"""Scenes for other programs: read back by an independent reader, and by our own importers."""

import json
import shutil

import numpy as np
import pycolmap
import pytest
import trimesh

from data_util import (
    list_images,
    list_poses,
    load_image,
    load_intrinsics,
    load_pose,
    write_intrinsics,
)
from dataio import load_scene
from files.points import find_points, load_points
from scenes import colmap, export, path, transforms_json
from util import InputError, write_json

POINTS = np.array([[0.1, 0.2, 0.3], [1 / 3, -1e-7, 4]])


@pytest.fixture
def whole(scene):
    """A scene with test views and points; its intrinsics are for images twice as large."""
    cloud = trimesh.PointCloud(POINTS, colors=np.uint8([[9, 8, 7, 255], [1, 2, 3, 255]]))
    cloud.export(scene / "points.ply")
    for split in ("train", "test"):
        file = scene / split / "intrinsics.txt"
        read = load_intrinsics(file)
        write_intrinsics(file, read.resized(2 * read.height, 2 * read.width))
    return scene


def poses(folder):
    return np.stack([load_pose(file) for file in list_poses(folder / "pose")])


def exported(scene, kind, *flags):
    out = scene.parent / f"as_{kind}"
    export.main([str(scene), str(out), "--to", kind, *flags])
    return out


def test_transforms_come_back_as_they_were(whole):
    """With splits; poses to the last bits, images to the bit."""
    out = exported(whole, "transforms")
    again = whole.parent / "again"
    transforms_json.main([str(out), str(again), "--up", "none"])
    for split in ("train", "test"):
        np.testing.assert_allclose(poses(again / split), poses(whole / split), atol=1e-12)
        images = (list_images(folder / split / "rgb") for folder in (whole, again))
        for one, other in zip(*images, strict=True):
            np.testing.assert_array_equal(load_image(one), load_image(other))
        before = load_intrinsics(whole / split / "intrinsics.txt")
        after = load_intrinsics(again / split / "intrinsics.txt")
        assert (after.focal, after.cx, after.height) == (before.focal / 2, before.cx / 2, 64)
    np.testing.assert_allclose(load_points(again / "points.ply")[0], POINTS, atol=1e-7)


def test_transforms_are_as_nerfstudio_documents_them(whole):
    """docs.nerf.studio, data conventions: OpenGL axes, so that cameras look along -z."""
    content = json.loads((exported(whole, "transforms") / "transforms.json").read_text())
    assert content["camera_model"] == "OPENCV"
    assert len(content["train_filenames"]) == 8
    assert content["val_filenames"] == content["test_filenames"]
    for frame in content["frames"]:
        assert {"fl_x", "fl_y", "cx", "cy", "w", "h"} <= set(frame)
        pose = np.array(frame["transform_matrix"])
        assert pose[:3, 2] @ pose[:3, 3] > 0  # looks at the origin along -z
        assert pose[2, 1] > 0  # y is up in the image


@pytest.mark.parametrize("binary", [False, True])
def test_colmap_models_come_back_as_they_were(whole, binary):
    """By pycolmap, which also writes the binary model."""
    out = exported(whole, "colmap")
    model = pycolmap.Reconstruction(out / "sparse" / "0")
    expected = np.concatenate([poses(whole / split) for split in ("test", "train")])
    images = sorted(model.images.values(), key=lambda image: image.name)
    for image, pose in zip(images, expected, strict=True):
        matrix = image.cam_from_world().inverse().matrix()
        np.testing.assert_allclose(matrix, pose[:3], atol=1e-12)
    points = sorted(point.xyz.tolist() for point in model.points3D.values())
    np.testing.assert_allclose(points, POINTS, atol=1e-7)
    if binary:
        for file in (out / "sparse" / "0").iterdir():
            file.unlink()
        model.write_binary(out / "sparse" / "0")
    again = whole.parent / "again"
    colmap.main([str(out), str(again), "--up", "none", "--test_every", "0"])
    np.testing.assert_allclose(poses(again / "train"), expected, atol=1e-12)


@pytest.mark.parametrize(("kind", "module"), [("transforms", transforms_json), ("colmap", colmap)])
def test_byte_order_marks_and_files_of_macos_are_passed_over(whole, kind, module, capsys):
    """A mark in every text file, and a `._NAME` beside every file."""
    out = exported(whole, kind)
    trimesh.PointCloud(POINTS).export(out / "ascii.ply", encoding="ascii")
    if kind == "transforms":
        content = json.loads((out / "transforms.json").read_text())
        write_json(out / "transforms.json", {**content, "ply_file_path": "ascii.ply"})
    for file in [entry for entry in out.rglob("*") if entry.is_file()]:
        if file.suffix != ".png":
            file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
        file.with_name(f"._{file.name}").write_bytes(b"\0\5\x16\7")
    again = whole.parent / "again"
    module.main([str(out), str(again), "--up", "none"])
    read = np.concatenate([poses(again / split) for split in ("test", "train")])
    expected = np.concatenate([poses(whole / split) for split in ("test", "train")])
    np.testing.assert_allclose(np.sort(read.reshape(-1)), np.sort(expected.reshape(-1)), atol=1e-9)
    assert len(load_points(again / "points.ply")[0]) == 2
    assert "not used" not in capsys.readouterr().err


def test_a_camera_path_comes_back_as_it_was(whole, capsys):
    """Through nerfstudio's coordinates, and into a scene that was turned upright."""
    turn = np.array([[0, -1, 0, 0.5], [1, 0, 0, 0], [0, 0, 1, -2.0]])
    parser = whole.parent / "dataparser_transforms.json"
    write_json(parser, {"transform": turn.tolist(), "scale": 0.25})
    flags = ["--dataparser", str(parser)]
    file = exported(whole / "test", "camera_path", *flags) / "camera_path.json"
    content = json.loads(file.read_text())
    frame = content["camera_path"][1]
    moved = np.array(frame["camera_to_world"]).reshape(4, 4)
    center = turn @ poses(whole / "test")[1][:, 3]
    np.testing.assert_allclose(moved[:3, 3], 0.25 * center)
    intrinsics = load_intrinsics(whole / "test" / "intrinsics.txt")
    assert np.tan(np.radians(frame["fov"] / 2)) == pytest.approx(64 / intrinsics.focal)
    arguments = ["file", "--scene", str(whole), "--camera_path", str(file), *flags]
    path.main([*arguments, "--out", str(whole.parent / "path")])
    read = load_scene(whole.parent / "path", 64, with_images=False).cam2world
    np.testing.assert_allclose(read, poses(whole / "test"), atol=1e-12)
    assert "camera_path.json: not used: aspect, camera_type, fov, fps" in capsys.readouterr().err
    write_json(whole / "scene.json", {"rotation": [[1, 0, 0], [0, 0, 1], [0, -1, 0]]})
    path.main([*arguments, "--out", str(whole.parent / "turned")])
    turned = load_scene(whole.parent / "turned", 64, with_images=False).cam2world
    np.testing.assert_allclose(turned[:, 1, 3], read[:, 2, 3], atol=1e-12)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("[", "is not JSON"),
        ("{}", "holds no camera_path"),
        ('{"camera_path": [{"camera_to_world": [1, 2]}]}', "frame 0 is not 16 numbers"),
    ],
)
def test_camera_paths_that_are_none_are_refused(scene, content, words):
    file = scene / "camera_path.json"
    file.write_text(content)
    arguments = ["file", "--scene", str(scene), "--camera_path", str(file)]
    with pytest.raises(InputError, match=words):
        path.main([*arguments, "--out", str(scene / "path")])
    assert not (scene / "path").exists()


def test_a_scene_without_images_is_not_exported(scene):
    for split in ("train", "test"):
        for file in (scene / split / "rgb").glob("*"):
            file.unlink()
        if (scene / split / "rgb").exists():
            (scene / split / "rgb").rmdir()
    with pytest.raises(InputError, match="has no images to export"):
        exported(scene, "transforms")
    assert not (scene.parent / "as_transforms").exists()


@pytest.mark.parametrize("names", [("train", "val", "test"), ("lego", "chair")])
def test_folders_that_are_no_splits_are_not_mixed(scene, capsys, names):
    """Their images would get the names of the training views."""
    shutil.rmtree(scene / "test")
    source = (scene / "train").rename(scene / "source")
    for name in names:
        shutil.copytree(source, scene / name)
    shutil.rmtree(source)
    stranger = "val" if "val" in names else "chair"
    words = f"{stranger}: is none of train, validation, test, .*; export it by itself"
    with pytest.raises(InputError, match=words):
        exported(scene, "transforms")
    assert not (scene.parent / "as_transforms").exists()
    out = scene.parent / "alone"
    export.main([str(scene / stranger), str(out), "--to", "transforms"])
    assert len(list_images(out / "images")) == 8


def test_a_path_inside_the_scene_is_passed_over(scene):
    shutil.copytree(scene / "test", scene / "orbit")
    shutil.rmtree(scene / "orbit" / "rgb")
    assert len(list_images(exported(scene, "colmap") / "images")) == 11


@pytest.mark.parametrize("kind", ["transforms", "colmap"])
@pytest.mark.parametrize("part", [".", "train"])
def test_the_points_of_a_scene_are_those_of_its_folders(whole, capsys, monkeypatch, kind, part):
    monkeypatch.chdir(whole / part)
    export.main([".", str(whole.parent / "out"), "--to", kind])
    name = {"transforms": "sparse_pc.ply", "colmap": "sparse/0/points3D.txt"}[kind]
    file = whole.parent / "out" / name
    if kind == "transforms":
        np.testing.assert_allclose(load_points(file)[0], POINTS, atol=1e-7)
    else:
        np.testing.assert_allclose(np.loadtxt(file)[:, 1:4], POINTS, atol=1e-7)
    assert f" views and 2 sparse points for {kind}" in capsys.readouterr().out


def test_points_beside_a_scene_are_not_its_own(whole):
    """Such as a surface that evaluation.export wrote there."""
    (whole / "points.ply").rename(whole.parent / "points.ply")
    assert find_points(whole) is None
    assert find_points(whole / "train") is None


@pytest.mark.parametrize("kind", ["transforms", "colmap"])
def test_frames_a_second_are_for_a_path(whole, capsys, kind):
    with pytest.raises(SystemExit) as ended:
        exported(whole, kind, "--fps", "3")
    assert ended.value.code == 2
    assert "--fps: is for --to camera_path" in capsys.readouterr().err
    file = exported(whole, "camera_path", "--fps", "4") / "camera_path.json"
    content = json.loads(file.read_text())
    assert (content["fps"], content["seconds"]) == (4, 2)
