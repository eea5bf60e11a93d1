"""Captures as other programs write them: what a file says shows in the scene, or a line says that
it does not."""

import json
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_util import list_images, list_poses, load_intrinsics, load_pose, load_rgba, write_image
from geometry.cameras import opengl2opencv
from scenes import colmap, llff, nerf_synthetic, transforms_json
from scenes.capture.listing import ImageFinder
from scenes.capture.transforms import read_splits
from tests.scenes.captures import HEIGHT, WIDTH, imported, levels, poses, warnings, write_capture
from util import InputError

# Splits


def test_lists_of_file_names_are_the_splits(tmp_path, capsys):
    content = write_capture(
        tmp_path,
        6,
        train_filenames=["images/0001.png", "images/0003.png"],
        val_filenames=["images/0002.png"],
        test_filenames=["images/0000.png", "images/0004.png"],
    )
    scene = imported(tmp_path, content)
    assert levels(scene / "train") == [1, 3]
    assert levels(scene / "validation") == [2]
    assert levels(scene / "test") == [0, 4]
    assert "1 of 6 frames are in no list of file names" in warnings(capsys)[0]
    content["test_filenames"] = content["val_filenames"]  # as nerfstudio writes them
    scene = imported(tmp_path, content)
    assert levels(scene / "test") == [2]
    assert not (scene / "validation").exists()
    for flag in ("--test_every", "--val_every"):
        with pytest.raises(InputError, match=f"{flag} 4: the source says itself"):
            imported(tmp_path, content, flag, "4")


def test_names_in_lists_that_are_of_no_frame_are_named(tmp_path, capsys):
    lists = {
        "train_filenames": ["images\\0000.png", "images/0001.jpg", "images/9.png"],
        "test_filenames": ["images/0002.png", "images/0003.png"],
    }
    scene = imported(tmp_path, write_capture(tmp_path, **lists))
    assert levels(scene / "train") == [0, 1] and levels(scene / "test") == [2, 3]
    (line,) = warnings(capsys)
    assert (
        "1 names in lists of file names are of no frame that is there, the first images/9" in line
    )


def test_lists_in_files_of_splits_are_named(tmp_path, capsys):
    content = write_capture(tmp_path, train_filenames=["images/0000.png", "images/0001.png"])
    (tmp_path / "transforms_train.json").write_text(json.dumps(content))
    splits = read_splits(tmp_path).splits
    assert len(splits["train"]) == len(content["frames"])
    assert any("its lists of file names are not used" in line for line in warnings(capsys))


@pytest.mark.parametrize("module", [transforms_json, nerf_synthetic])
def test_files_of_splits_are_taken_as_they_are(tmp_path, module):
    """With any intrinsics and images that are not square."""
    content = write_capture(tmp_path, 6, cx=25.0)
    for split, chosen in (("train", [0, 2, 3, 5]), ("test", [1, 4])):
        frames = [content["frames"][index] for index in chosen]
        text = json.dumps({**content, "frames": frames})
        (tmp_path / f"transforms_{split}.json").write_text(text)
    module.main([str(tmp_path), str(tmp_path / "scene")])
    assert levels(tmp_path / "scene" / "train") == [0, 2, 3, 5]
    assert levels(tmp_path / "scene" / "test") == [1, 4]
    intrinsics = load_intrinsics(tmp_path / "scene" / "test" / "intrinsics.txt")
    assert (intrinsics.focal, intrinsics.cx, intrinsics.width) == (60, 25, WIDTH)


def test_nerf_synthetic_uses_masks(tmp_path):
    content = write_capture(tmp_path, 6, size=(64, 64), h=64, w=64)
    mask = np.zeros((64, 64), np.uint8)
    mask[:9, :9] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    content["frames"][0]["mask_path"] = "mask"
    for split in ("train", "val", "test"):
        (tmp_path / f"transforms_{split}.json").write_text(json.dumps(content))
    nerf_synthetic.main([str(tmp_path), str(tmp_path / "scene")])
    first = list_images(tmp_path / "scene" / "train" / "rgb")[0]
    np.testing.assert_array_equal(load_rgba(first)[..., 3], mask)
    why = json.loads((tmp_path / "scene" / "scene.json").read_text())["why"]
    distance = np.linalg.norm(poses(1)[0][:3, 3])
    assert why["scale"] == "--extent" and why["near_plane"] == (
        f"the nearest camera's distance, {distance:.4g}, less half the grid's diagonal"
    )
    assert not (tmp_path / "scene" / "validation").exists()  # they are the test views


@pytest.mark.parametrize("size", [(64, 64), (64, 48)])
def test_nerf_synthetic_has_its_validation_views(tmp_path, capsys, size):
    """If their images are there; they do not move the near plane."""
    content = write_capture(tmp_path, 6, size=size, h=size[1], w=size[0])
    nearer = np.array(content["frames"][2]["transform_matrix"])
    nearer[:3, 3] *= 0.8
    content["frames"][2]["transform_matrix"] = nearer.tolist()
    chosen = {"train": [0, 1, 3], "val": [2, 4], "test": [5]}
    for split, views in chosen.items():
        frames = [content["frames"][index] for index in views]
        text = json.dumps({**content, "frames": frames})
        (tmp_path / f"transforms_{split}.json").write_text(text)
    nerf_synthetic.main([str(tmp_path), str(tmp_path / "scene")])
    for split, folder in (("train", "train"), ("val", "validation"), ("test", "test")):
        assert levels(tmp_path / "scene" / folder) == chosen[split]
    for view in chosen["val"]:
        (tmp_path / "images" / f"{view:04d}.png").unlink()
    nerf_synthetic.main([str(tmp_path), str(tmp_path / "again")])
    assert "validation views are left out" in warnings(capsys)[-1]
    assert not (tmp_path / "again" / "validation").exists()
    for split in ("train", "test"):
        name = Path(split, "intrinsics.txt")
        assert (tmp_path / "again" / name).read_text() == (tmp_path / "scene" / name).read_text()


# Images


def test_images_that_are_missing_are_left_out_up_to_half(tmp_path, capsys):
    content = write_capture(tmp_path, 6)
    for number in (1, 2, 4):
        (tmp_path / "images" / f"{number:04d}.png").unlink()
    scene = imported(tmp_path, content, "--test_every", "0")
    assert levels(scene / "train") == [0, 3, 5]
    assert (
        "3 of 6 images are missing and left out, the first images/0001.png" in warnings(capsys)[0]
    )
    (tmp_path / "images" / "0005.png").unlink()
    with pytest.raises(InputError, match=r"images/0001.png: no such file.*4 of 6 are missing"):
        imported(tmp_path, content)


@pytest.mark.parametrize(
    ("listed", "there"),
    [
        ("images\\{}.png", "images/{}.png"),
        ("images/{}.png", "images/{}.jpg"),
        ("images/{}", "images/{}.jpg"),
        ("images/t_0.25_{}", "images/t_0.25_{}.png"),
        ("Images/{}.PNG", "images/{}.png"),
        ("images/{}.jpg", "images/{}.JPG"),
    ],
)
def test_images_are_found_where_one_alone_can_be_meant(tmp_path, listed, there, capsys):
    content = write_capture(tmp_path)
    for number, frame in enumerate(content["frames"]):
        path = tmp_path / there.format(number)
        Image.open(tmp_path / frame["file_path"]).save(path)
        frame["file_path"] = listed.format(number)
    scene = imported(tmp_path, content, "--test_every", "0")
    assert levels(scene / "train") == [0, 1, 2, 3]
    assert not warnings(capsys)


def test_thousands_of_images_without_suffix_are_found_in_seconds(tmp_path):
    for number in range(3000):
        (tmp_path / f"{number}.png").touch()
    began = time.process_time()
    finder = ImageFinder(tmp_path)
    assert all(finder.find(str(number), tmp_path) for number in range(3000))
    assert time.process_time() - began < 10


def test_an_image_that_could_be_two_is_named(tmp_path):
    content = write_capture(tmp_path)
    for suffix in ("jpg", "JPEG"):
        shutil.copy(tmp_path / "images/0001.png", tmp_path / f"images/0001.{suffix}")
    (tmp_path / "images/0001.png").unlink()
    with pytest.raises(InputError, match="could mean 0001.JPEG or 0001.jpg"):
        imported(tmp_path, content)


def test_images_of_another_size_scale_their_camera(tmp_path, capsys):
    content = write_capture(tmp_path, size=(27, 32), cx=20.0)
    intrinsics = load_intrinsics(imported(tmp_path, content) / "train" / "intrinsics.txt")
    assert (intrinsics.focal, intrinsics.cx, intrinsics.cy) == (30, 10, 16)
    assert "4 of 4 cameras scaled to the images' size: 0000.png is 27x32" in warnings(capsys)[0]


# Masks


@pytest.mark.parametrize("by", ["mask_path", "--masks", "alpha"])
def test_masks_become_alpha_and_choose_the_grid(tmp_path, by):
    """A ball of radius 0.5 that lies off the point at which the cameras look."""
    content = write_capture(tmp_path, 12)
    center = np.array([0.0, 0.0, 0.6])
    (tmp_path / "masks").mkdir()
    row, column = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    for number, frame in enumerate(content["frames"]):
        pose = opengl2opencv(np.array(frame["transform_matrix"]))
        x, y, z = (center - pose[:3, 3]) @ pose[:3, :3]
        distances = np.hypot(column - 60 * x / z - WIDTH / 2, row - 60 * y / z - HEIGHT / 2)
        mask = np.uint8(255 * (distances < 60 * 0.5 / z))
        if by == "alpha":
            colors = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
            write_image(tmp_path / frame["file_path"], np.dstack([colors, mask]))
        else:
            Image.fromarray(mask).save(tmp_path / "masks" / f"{number:04d}.png")
        if by == "mask_path":
            frame["mask_path"] = f"masks/{number:04d}.png"
    flags = ["--masks", str(tmp_path / "masks")] if by == "--masks" else []
    train = imported(tmp_path, content, "--test_every", "0", *flags) / "train"
    alpha = load_rgba(list_images(train / "rgb")[0])[..., 3]
    assert set(np.unique(alpha)) == {0, 255}
    intrinsics = load_intrinsics(train / "intrinsics.txt")
    np.testing.assert_allclose(intrinsics.grid_origin, center, atol=0.15)
    assert 1.0 <= intrinsics.scale < 1.8


@pytest.mark.parametrize("by", ["mask_path", "--masks"])
def test_masks_without_a_white_pixel_are_refused(tmp_path, by):
    """Of labels 0, 1 and 2, say, or with white meant for the background."""
    content = write_capture(tmp_path)
    (tmp_path / "masks").mkdir()
    for number, frame in enumerate(content["frames"]):
        level = 255 if number else 2
        Image.new("L", (WIDTH, HEIGHT), level).save(tmp_path / "masks" / f"{number:04d}.png")
        if by == "mask_path":
            frame["mask_path"] = f"masks/{number:04d}.png"
    flags = ["--masks", str(tmp_path / "masks")] if by == "--masks" else []
    with pytest.raises(InputError, match="0000.png: has no white pixel, but white marks the"):
        imported(tmp_path, content, *flags)
    assert not (tmp_path / "scene").exists()


# Poses


def test_mirrored_poses_are_named(tmp_path):
    content = write_capture(tmp_path)
    for frame in content["frames"]:
        frame["transform_matrix"] = (np.diag([1, -1, 1, 1]) @ frame["transform_matrix"]).tolist()
    with pytest.raises(InputError, match="is mirrored"):
        imported(tmp_path, content)


def test_poses_of_three_decimals_become_the_nearest_rotations(tmp_path, capsys):
    content = write_capture(tmp_path)
    exact = [opengl2opencv(np.array(frame["transform_matrix"])) for frame in content["frames"]]
    for frame in content["frames"]:
        rounded = np.array(frame["transform_matrix"])
        rounded[:3, :3] = np.round(rounded[:3, :3] + 1e-3, 3)
        frame["transform_matrix"] = rounded.tolist()
    train = imported(tmp_path, content, "--test_every", "0") / "train"
    for path, pose in zip(list_poses(train / "pose"), exact, strict=True):
        read = load_pose(path)
        np.testing.assert_allclose(read, pose, atol=3e-3)
        np.testing.assert_allclose(read[:3, :3] @ read[:3, :3].T, np.eye(3), atol=1e-12)
    assert "rotations are off by rounding" in warnings(capsys)[0]


# COLMAP


def write_model(folder, names, blank=True, points=True):
    folder.mkdir(parents=True)
    (folder / "cameras.txt").write_text(f"1 PINHOLE {WIDTH} {HEIGHT} 60 60 27 32\n")
    lines = []
    for number, name in enumerate(names):
        lines.append(f"{number + 1} 1 0 0 0 {number} 0 4 1 {name}\n" + ("\n" if blank else ""))
    (folder / "images.txt").write_text("".join(lines))
    if points:
        (folder / "points3D.txt").write_text("")


@pytest.mark.parametrize("sparse", ["sparse", "colmap/sparse"])
def test_the_largest_of_several_models_is_taken(tmp_path, sparse, capsys):
    write_capture(tmp_path, 6)
    write_model(tmp_path / sparse / "0", ["0000.png", "0001.png"], points=False)
    write_model(tmp_path / sparse / "1", [f"{number:04d}.jpg" for number in range(6)], points=False)
    colmap.main([str(tmp_path), str(tmp_path / "scene"), "--up", "none", "--test_every", "0"])
    assert levels(tmp_path / "scene" / "train") == [0, 1, 2, 3, 4, 5]
    assert f"1: is taken, the largest (6 images); not used: {sparse}/0 (2)" in warnings(capsys)[0]


@pytest.mark.parametrize("suffix", [".png", ""])
def test_images_without_lines_of_observations_are_refused(tmp_path, suffix):
    """Every second one would be lost."""
    write_capture(tmp_path, 4)
    names = [f"{number:04d}{suffix}" for number in range(4)]
    write_model(tmp_path / "sparse" / "0", names, blank=False)
    with pytest.raises(
        InputError, match="images.txt:2: is an image where the observations of 0000"
    ):
        colmap.main([str(tmp_path), str(tmp_path / "scene")])


# LLFF


def write_llff(folder, count=4, shape=17):
    """Poses and bounds as LLFF writes them: down, right and backward axes; images of half size."""
    write_capture(folder, count, size=(WIDTH // 2, HEIGHT // 2))
    (folder / "images").rename(folder / "images_4")
    rows = []
    for number, pose in enumerate(poses(count)):
        right, up, backward, center = pose[:3].T
        size = np.array([HEIGHT, WIDTH, 60.0])
        matrix = np.stack([-up, right, backward, center, size], axis=1)
        rows.append([*matrix.reshape(-1), 2.0 + number, 9.0])
    np.save(folder / "poses_bounds.npy", np.array(rows)[:, :shape])


@pytest.mark.parametrize(
    ("flags", "near_plane", "why"),
    [
        ([], 1.8, "nine tenths of the nearest bound in poses_bounds.npy"),
        (["--near_plane", "1.5"], 1.5, "given"),
    ],
)
def test_a_near_plane_of_llff_says_where_it_is_from(tmp_path, capsys, flags, near_plane, why):
    write_llff(tmp_path)
    llff.main([str(tmp_path), str(tmp_path / "scene"), "--origin", "0", "0", "0", *flags])
    record = json.loads((tmp_path / "scene" / "scene.json").read_text())
    assert record["near_plane"] == pytest.approx(near_plane)
    assert record["why"]["near_plane"] == why and record["why"]["origin"] == "given"
    assert f"near plane {near_plane:g}: {why}\n" in capsys.readouterr().out


def test_poses_and_bounds_of_llff(tmp_path, capsys):
    write_llff(tmp_path)
    llff.main([str(tmp_path), str(tmp_path / "scene"), "--up", "none", "--test_every", "0"])
    train = tmp_path / "scene" / "train"
    read = np.stack([load_pose(path) for path in list_poses(train / "pose")])
    np.testing.assert_allclose(read, opengl2opencv(poses(4)), atol=1e-12)
    intrinsics = load_intrinsics(train / "intrinsics.txt")
    assert (intrinsics.focal, intrinsics.cx, intrinsics.cy) == (30, WIDTH / 4, HEIGHT / 4)
    assert intrinsics.near_plane == pytest.approx(0.9 * 2)
    assert levels(train) == [0, 1, 2, 3]
    assert "4 of 4 cameras scaled" in warnings(capsys)[0]
    rows = np.load(tmp_path / "poses_bounds.npy")
    rows[1, :15] = np.round(rows[1, :15] + 1e-3, 3)
    np.save(tmp_path / "poses_bounds.npy", rows)
    llff.main([str(tmp_path), str(tmp_path / "again")])
    assert "1 of 4 rotations are off by rounding (the first of 0001.png)" in warnings(capsys)[0]


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda folder: write_llff(folder, shape=14), "its shape is"),
        (lambda folder: (folder / "images_4" / "0001.png").unlink(), "holds 4 poses, .* 3 images"),
        (lambda folder: (folder / "poses_bounds.npy").write_bytes(b"no array"), "poses_bounds.npy"),
        (lambda folder: shutil.rmtree(folder / "images_4"), "give --images"),
    ],
)
def test_broken_llff_is_named(tmp_path, spoil, words):
    write_llff(tmp_path / "source")
    if "shape" in words:
        shutil.rmtree(tmp_path / "source")
    spoil(tmp_path / "source")
    with pytest.raises(InputError, match=words):
        llff.main([str(tmp_path / "source"), str(tmp_path / "scene")])
    assert not (tmp_path / "scene").exists()
