"""Hostile and damaged files, one by one: each is refused in one line that names it."""

import json
import struct

import numpy as np
import pytest

from data_util import load_image
from scenes import nerf_synthetic, render
from tests import foreign_files, foreign_meshes, foreign_pictures
from tests.conftest import write_scene
from tests.helpers import TINY_RENDER, assert_one_line, render_arguments
from util import InputError

NOISE_PNG = foreign_pictures.encoded(
    np.random.default_rng(0).integers(0, 255, (8, 8, 3), np.uint8), "PNG"
)
COUNTS = {"cameras.bin": 2, "images.bin": 3, "points3D.bin": 2}


@pytest.fixture
def source(tmp_path):
    (tmp_path / "source").mkdir()
    return tmp_path / "source"


@pytest.fixture
def refused(worker, source):
    """Runs a command in a process of its own: exit code 2 and one line that holds `words`, nothing
    else left or read, within 10 seconds and 1 GiB."""

    def check(module, argv, *words):
        before = set(source.parent.rglob("*"))
        ending = worker.run(module, argv)
        assert ending.code == 2, ending.error
        assert_one_line(ending.error, *words)
        assert ending.cpu < 10
        assert ending.memory < 1 << 30
        assert not ending.programs
        assert set(source.parent.rglob("*")) == before
        assert not list(worker.folder.iterdir())

    return check


def as_mesh(source, name, content):
    foreign_files.write_decoys(source)
    (source / name).write_bytes(content)
    if not (source / "a.mtl").exists():
        (source / "a.mtl").write_text(foreign_meshes.MTL)
    return ["--mesh", source / name, "--out", source.parent / "target", *TINY_RENDER]


# COLMAP's files


@pytest.mark.parametrize(
    "spoil",
    [
        lambda content, count: b"",
        lambda content, count: content[:-1],
        lambda content, count: content[: len(content) // 2],
        lambda content, count: struct.pack("<Q", 2**60) + content[8:],
        lambda content, count: content + b"\0",
        lambda content, count: struct.pack("<Q", count + 1) + content[8:],
        lambda content, count: struct.pack("<Q", count - 1) + content[8:],
    ],
)
@pytest.mark.parametrize("name", COUNTS)
def test_colmap_files_that_do_not_hold_what_they_claim(source, refused, name, spoil):
    foreign_files.write_colmap(".bin", [])(source)
    (source / name).write_bytes(spoil((source / name).read_bytes(), COUNTS[name]))
    refused("scenes.colmap", [source, source.parent / "target"], name)


def test_a_colmap_name_without_an_end(source, refused):
    foreign_files.write_colmap(".bin", [])(source)
    content = (source / "images.bin").read_bytes()
    (source / "images.bin").write_bytes(content[: 8 + 64] + b"a" * (len(content) - 72))
    refused("scenes.colmap", [source, source.parent / "target"], "images.bin", "a name has no end")


@pytest.mark.parametrize(
    ("name", "old", "new", "words"),
    [
        ("images.txt", b"1.png", b"../secret.png", ["names ../secret.png, which is not inside"]),
        ("images.txt", b"1.png", b"0.png", ["0.png is there twice (first as 0.png)"]),
        ("images.txt", b"1.png", b"./0.png", ["is there twice (first as ", "./0.png"]),
        ("cameras.txt", b"PINHOLE 8 8 9 9", b"PINHOLE 8 8 9 9e7", ["camera 2", "focal length"]),
        ("cameras.txt", b"PINHOLE 8 8 9 9", b"PINHOLE 8 8 9 9000", ["camera 2", "nearly square"]),
        ("cameras.txt", b"PINHOLE 8 8 9 9", b"PINHOLE 9000000000 8 9 9", ["cameras.txt"]),
        ("cameras.txt", b"0.01", b"1e30", ["camera 1", "distortion"]),
        ("points3D.txt", b"255 0 0", b"256 0 0", ["points3D.txt:4"]),
    ],
)
def test_colmap_models_that_cannot_be_meant(source, refused, name, old, new, words):
    foreign_files.write_colmap(".txt", [])(source)
    content = (source / name).read_bytes()
    assert old in content
    (source / name).write_bytes(content.replace(old, new, 1))
    refused("scenes.colmap", [source, source.parent / "target"], *words)


# transforms.json


@pytest.mark.parametrize(
    ("place", "value", "words"),
    [
        (("w",), float("inf"), ["transforms.json"]),
        (("fl_x",), int("9" * 400), ["transforms.json"]),
        (
            ("frames", 1, "file_path"),
            "1" * 5000 + "/../1.png/../../source/../secret.png",
            ["not inside"],
        ),
        (("frames", 1, "file_path"), "../secret.png", ["not inside"]),
        (("frames", 1, "file_path"), "pipe.png", ["pipe.png"]),
        (("frames", 1, "file_path"), "postscript.png", ["postscript.png: is not a readable image"]),
        (("frames", 1, "file_path"), "./0.png", ["frames 0 and 1 are both ./0.png"]),
        (("ply_file_path",), "../points.ply", ["not inside"]),
        (("ply_file_path",), "pipe.png", ["pipe.png"]),
        (("frames", 1, "transform_matrix", 0, 3), 1e300, ["1.png", "not finite in float32"]),
        (("k1",), 1e30, ["distortion"]),
        (("k1",), 500, ["cannot be undistorted"]),
        (("fl_x",), 1e-300, ["focal length of 1e-300"]),
        (("fl_y",), 9e7, ["focal length"]),
        (("fl_y",), 900.0, ["nearly square"]),
        (("cx",), 1e6, ["principal point"]),
    ],
)
def test_transforms_that_cannot_be_meant(source, refused, place, value, words):
    points = foreign_files.points_ply("binary")
    foreign_files.write_transforms(foreign_files.transforms_text([(place, value)], None), points)(
        source
    )
    (source.parent / "secret.png").write_bytes(foreign_files.picture())
    (source.parent / "points.ply").write_bytes(points)
    refused("scenes.transforms_json", [source, source.parent / "target"], *words)


def test_names_too_long_are_missing_images(source, worker):
    points = foreign_files.points_ply("binary")
    text = foreign_files.transforms_text([(("frames", 1, "file_path"), "1" * 5000)], None)
    foreign_files.write_transforms(text, points)(source)
    argv = [source, source.parent / "target", "--test_every", 0]
    ending = worker.run("scenes.transforms_json", argv)
    assert ending.code == 0
    assert "1 of 3 images are missing and left out" in ending.error


def test_nested_transforms(source, refused):
    (source / "transforms.json").write_bytes(b"[" * 100_000)
    refused(
        "scenes.transforms_json", [source, source.parent / "target"], "transforms.json: is not JSON"
    )


def test_views_that_are_trained_on_and_tested_are_named(source, capfd):
    points = foreign_files.points_ply("binary")
    foreign_files.write_transforms(foreign_files.transforms_text([], None), points)(source)
    nerf_synthetic.main([str(source), str(source.parent / "target")])
    assert (
        "warning: 3 of 3 test views are trained on too: 0.png is the same picture as 0.png, ..."
        in capfd.readouterr().err
    )


# Meshes


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (b"4/4/1", b"9/9/9", ["mesh.obj"]),
        (b"1 1 1", b"1 1 nan", ["mesh.obj"]),
        (b"1 1 1", b"1 1 1e300", ["float32"]),
        (
            b"v -1 -1 0\nv 1 -1 0\nv 1 1 1\nv -1 1 0",
            b"v 0 0 0\nv 0 0 1\nv 0 0 2\nv 0 0 3",
            ["nothing of it can be seen"],
        ),
    ],
)
def test_meshes_that_cannot_be_drawn(source, refused, old, new, words):
    assert old in foreign_meshes.OBJ.encode()
    refused(
        "scenes.render",
        as_mesh(source, "mesh.obj", foreign_meshes.OBJ.encode().replace(old, new)),
        *words,
    )


@pytest.mark.parametrize(
    ("edits", "words"),
    [
        ({"count": 2**40}, ["mesh.glb"]),
        ({"count": 2**40, "bufferView": None}, ["mesh.glb"]),
        ({"byteOffset": 2**40}, ["mesh.glb"]),
    ],
)
def test_meshes_that_claim_more_than_they_hold(source, refused, edits, words):
    content = foreign_meshes.mesh_files()["a.glb"]
    length = struct.unpack_from("<I", content, 12)[0]
    tree = json.loads(content[20 : 20 + length])
    for key, value in edits.items():
        if value is None:
            tree["accessors"][0].pop(key)
        else:
            tree["accessors"][0][key] = value
    refused(
        "scenes.render",
        as_mesh(source, "mesh.glb", foreign_meshes.glb(tree, content[28 + length :])),
        *words,
    )


@pytest.mark.parametrize("texture", ["postscript.png", "pipe.png"])
def test_textures_that_are_no_pictures(source, refused, texture):
    (source / "a.mtl").write_text(foreign_meshes.MTL.replace("0.png", texture))
    refused(
        "scenes.render",
        as_mesh(source, "mesh.obj", foreign_meshes.OBJ.encode()),
        "mesh.obj" if texture[1] == "o" else "pipe.png: is not a regular file",
    )


def test_a_texture_elsewhere_is_not_read(source, worker):
    (source.parent / "secret.png").write_bytes(foreign_files.picture())
    (source / "a.mtl").write_text(foreign_meshes.MTL.replace("0.png", "../secret.png"))
    ending = worker.run("scenes.render", as_mesh(source, "mesh.obj", foreign_meshes.OBJ.encode()))
    assert ending.code == 0
    assert "names ../secret.png, which is not in its folder" in ending.error
    assert str(source.parent / "secret.png") not in ending.opened


@pytest.mark.parametrize("changed", ["mesh.obj", "a.mtl", "0.png"])
def test_a_render_continues_with_the_same_mesh_alone(source, changed):
    command = list(map(str, as_mesh(source, "mesh.obj", foreign_meshes.OBJ.encode())))
    render.main(command)
    partial = source.parent / "target.partial"
    (source.parent / "target").rename(partial)
    (partial / "train" / "rgb" / "000001.png").unlink()
    before = {path: path.read_bytes() for path in partial.rglob("*.png")}
    content = (source / changed).read_bytes()
    (source / changed).write_bytes(
        foreign_files.picture(size=(9, 9)) if changed == "0.png" else content + b"# more\n"
    )
    with pytest.raises(InputError, match=rf"other files \({changed} changed since\)"):
        render.main(command)
    assert {path: path.read_bytes() for path in partial.rglob("*.png")} == before
    (source / changed).write_bytes(content)
    render.main(command)
    assert len(list((source.parent / "target").glob("train/rgb/*.png"))) == 3


def test_a_damaged_record_of_a_render_costs_no_frames(source):
    command = ["--out", str(source.parent / "cube"), *TINY_RENDER]
    render.main(command)
    partial = source.parent / "cube.partial"
    (source.parent / "cube").rename(partial)
    (partial / "scene.json").write_bytes(b"")
    with pytest.raises(InputError, match="scene.json: is damaged.* delete this file alone"):
        render.main(command)
    (partial / "scene.json").unlink()
    (partial / "train" / "rgb" / "000001.png").write_bytes(b"finished earlier")
    render.main(command)
    assert (
        source.parent / "cube" / "train" / "rgb" / "000001.png"
    ).read_bytes() == b"finished earlier"


# Depth maps and images


@pytest.mark.parametrize(
    "content",
    [
        foreign_pictures.depth_file((64, 64), "f4", "depth", "npy", 1),
        foreign_pictures.depth_file((0, 64), "f4", "depth", True, 1),
        foreign_pictures.depth_file((64, 64), "c8", "depth", True, 1),
        foreign_pictures.depth_file((64,), "f4", "depth", True, 1),
    ],
)
def test_depth_maps_that_are_none(trained, tmp_path, logs, assert_refused, content):
    root = write_scene(tmp_path / "test", views=1)
    (root / "depth").mkdir()
    (root / "depth" / "000000.npz").write_bytes(content)
    (checkpoint,) = trained[1].glob("logs/*/*/model-*_2.pth")
    assert_refused(
        [*render_arguments(root, logs, checkpoint), "--train_root", root],
        "000000.npz: is not a depth map",
    )


@pytest.mark.parametrize(
    "content",
    [
        NOISE_PNG[: len(NOISE_PNG) // 2],
        foreign_files.picture("JPEG", (300, 300))[:700],
        b"pipe",
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n",
        foreign_files.picture("GIF"),
        foreign_pictures.png_that_claims(30_000, 30_000, 8, 2),
        foreign_pictures.png_that_claims(30_000, 30_000, 16, 6),
    ],
)
def test_an_image_that_training_refuses_is_an_error_of_the_check(worker, tmp_path, content):
    root = write_scene(tmp_path / "scene", views=3, sidelength=8)
    foreign_pictures.write_image_file(root / "rgb" / "000001.png", content)
    ending = worker.run("scenes.check", [root])
    assert ending.code == 1
    assert not ending.error
    assert f"error: {root / 'rgb' / '000001.png'}: is not a re" in ending.output
    assert not ending.programs
    assert ending.memory < 1 << 30
    with pytest.raises(InputError, match="000001.png"):
        load_image(root / "rgb" / "000001.png")


def test_a_large_image_takes_no_second_copy(worker, tmp_path):
    """16 megapixels with alpha: 61 MiB as Pillow decodes them, 46 MiB as they are wanted."""
    root = write_scene(tmp_path / "scene", views=2, sidelength=8)
    large = foreign_files.picture(size=(4000, 4000), mode="RGBA", compress_level=1)
    (root / "rgb" / "000001.png").write_bytes(large)
    ending = worker.run("scenes.check", [root])
    assert "4000x4000" in ending.output
    assert ending.memory < 250 << 20
