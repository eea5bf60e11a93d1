"""Captures as other programs write them: what a file says shows in the scene, or a line says that
it does not."""

import contextlib
import io
import json
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from data_util import (
    list_images,
    list_poses,
    load_image,
    load_intrinsics,
    load_pose,
    load_rgba,
    write_image,
)
from geometry.cameras import look_at, opengl2opencv
from scenes import colmap, llff, nerf_synthetic, transforms_json
from scenes.capture.listing import ImageFinder
from scenes.capture.transforms import SPECIAL_CASES, read_splits, read_transforms_file
from util import InputError

WIDTH = 54
HEIGHT = 64


def poses(count):
    """OpenGL poses on an arc around the origin, 4 away."""
    angles = np.linspace(0, 2, count)
    centers = 4 * np.stack([np.cos(angles), np.sin(angles), 0.3 + 0 * angles], axis=1)
    return opengl2opencv(look_at(centers, np.zeros(3), np.array([0.0, 0.0, 1.0])))


def write_capture(folder, count=4, suffix="png", size=(WIDTH, HEIGHT), **fields):
    """Images of one gray level each, and the content of a transforms.json that lists them."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    frames = []
    for number, pose in enumerate(poses(count)):
        name = f"images/{number:04d}.{suffix}"
        Image.new("RGB", size, (10 * number,) * 3).save(folder / name)
        frames.append({"file_path": name, "transform_matrix": pose.tolist()})
    return {"w": WIDTH, "h": HEIGHT, "fl_x": 60.0, **fields, "frames": frames}


def imported(folder, content, *flags, name="transforms.json"):
    (folder / name).write_text(json.dumps(content))
    shutil.rmtree(folder / "scene", ignore_errors=True)
    transforms_json.main([str(folder), str(folder / "scene"), "--up", "none", *flags])
    return folder / "scene"


def levels(folder):
    """The gray levels of a split's images, in tens."""
    return [int(load_image(path)[0, 0, 0]) // 10 for path in list_images(folder / "rgb")]


def warnings(capsys):
    lines = capsys.readouterr().err.splitlines()
    return [line.removeprefix("warning: ") for line in lines if line.startswith("warning: ")]


# Intrinsics


@pytest.mark.parametrize(
    ("fields", "focal_x", "focal_y"),
    [
        ({"fl_x": 50, "fl_y": 55}, 50, 55),
        ({"fl_x": 50}, 50, 50),
        ({"camera_angle_x": 2 * np.arctan(0.5)}, WIDTH, WIDTH),
        ({"camera_angle_x": 2 * np.arctan(0.5), "camera_angle_y": 2 * np.arctan(0.4)}, 54, 80),
        ({"camera_angle_y": 2 * np.arctan(0.5)}, HEIGHT, HEIGHT),
        ({"x_fov": 90, "y_fov": 90}, WIDTH / 2, HEIGHT / 2),
        ({"fx": 50, "fy": 55}, 50, 55),
        ({"K": [[50, 0, 20], [0, 55, 30], [0, 0, 1]]}, 50, 55),
    ],
)
@pytest.mark.parametrize("per_frame", [False, True])
def test_every_way_to_give_a_focal_length(tmp_path, fields, focal_x, focal_y, per_frame, capsys):
    """As instant-ngp, nerfstudio and TensoRF read them: fov in degrees, camera_angle in radians."""
    content = write_capture(tmp_path)
    del content["fl_x"]
    if per_frame:
        content["fl_x"] = 500  # the frame's own come first
        for frame in content["frames"]:
            frame.update(fields)
    else:
        content.update(fields)
    (tmp_path / "transforms.json").write_text(json.dumps(content))
    for frame in read_transforms_file(tmp_path / "transforms.json").frames:
        assert frame.camera.focal_x == pytest.approx(
            500 if per_frame and not has_x(fields) else focal_x
        )
        assert frame.camera.focal_y == pytest.approx(focal_y)
        if "K" in fields:
            assert (frame.camera.center_x, frame.camera.center_y) == (20, 30)
    assert not warnings(capsys)


def has_x(fields):
    return any(name in fields for name in ("fl_x", "fx", "K", "x_fov", "camera_angle_x"))


VALUES = {
    **dict.fromkeys(["fl_x", "fl_y", "fx", "fy"], st.floats(40, 80)),
    **dict.fromkeys(["x_fov", "y_fov"], st.floats(20, 120)),
    **dict.fromkeys(["camera_angle_x", "camera_angle_y"], st.floats(0.2, 2.5)),
    **dict.fromkeys(["cx", "cy"], st.floats(10, 50)),
    **dict.fromkeys(["w", "h"], st.integers(40, 80)),
    **dict.fromkeys(["k1", "k2", "k3", "k4", "k5", "k6", "p1", "p2", "sx1"], st.floats(0.01, 0.1)),
    "K": st.floats(40, 80).map(lambda focal: [[focal, 0, 20], [0, focal + 1, 30], [0, 0, 1]]),
    "camera_model": st.sampled_from(["PINHOLE", "SIMPLE_RADIAL", "OPENCV", "OPENCV_FISHEYE"]),
    "is_fisheye": st.booleans(),
    **dict.fromkeys(["aabb_scale", "scale", "offset", "rotation"], st.integers(0, 9)),
}
FIELD = st.sampled_from(sorted(VALUES)).flatmap(lambda name: st.tuples(st.just(name), VALUES[name]))


@settings(max_examples=200, derandomize=True, deadline=None)
@given(st.lists(FIELD, max_size=4).map(dict), FIELD, st.booleans())
@example({}, ("sx1", 0.0625), True)
def test_a_field_shows_in_the_camera_or_is_named(fields, field, in_frame):
    """One field more changes a camera, or a line names it, or the file is refused."""
    name, value = field

    def read(*, more):
        content = json.loads(json.dumps(base))
        if more:
            (content["frames"][0] if in_frame else content)[name] = value
        (folder / "transforms.json").write_text(json.dumps(content))
        with contextlib.redirect_stderr(io.StringIO()) as error:
            frames = read_transforms_file(folder / "transforms.json").frames
        line = error.getvalue().partition(": not used: ")[2]
        return frames[0].camera, line.strip().split(", ")

    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory)
        base = {"fl_x": 60.0, **write_capture(folder, 2), **fields}
        base.pop(name, None)
        try:
            before, _ = read(more=False)
            after, named = read(more=True)
        except InputError:
            return
    assert after != before or name in named or says_nothing(name, value, before)


def says_nothing(name, value, camera):
    """Whether the camera would be the same without the field, because that is what it says."""
    agrees = {
        "w": camera.width,
        "h": camera.height,
        "cx": camera.center_x,
        "cy": camera.center_y,
    }
    if name in ("x_fov", "camera_angle_x"):
        radians = np.radians(value) if name == "x_fov" else value
        return abs(camera.width / 2 / np.tan(radians / 2) / camera.focal_x - 1) < 0.011
    if name in ("y_fov", "camera_angle_y"):
        radians = np.radians(value) if name == "y_fov" else value
        return abs(camera.height / 2 / np.tan(radians / 2) / camera.focal_y - 1) < 0.011
    if name in ("fl_x", "fx", "fl_y", "fy"):
        focal = camera.focal_x if name.endswith("x") else camera.focal_y
        return abs(value / focal - 1) < 0.011
    if name == "camera_model":
        return camera.model.endswith(SPECIAL_CASES.get(value, value))  # FULL_OPENCV by its k3
    if name == "is_fisheye":
        return not value or camera.model == "OPENCV_FISHEYE"
    return agrees.get(name) == value


def test_fields_that_are_not_used_are_named(tmp_path, capsys):
    content = write_capture(tmp_path, camera_angle_x=0.3, aabb_scale=16, k3=0, k1=0.0, p1=0.0)
    content["frames"][2]["sharpness"] = 30
    imported(tmp_path, content)
    path = tmp_path / "transforms.json"
    assert warnings(capsys) == [f"{path}: not used: aabb_scale, camera_angle_x, sharpness"]


def test_fields_that_agree_are_used(tmp_path, capsys):
    imported(tmp_path, write_capture(tmp_path, camera_angle_x=2 * np.arctan(WIDTH / 120)))
    assert not warnings(capsys)


@pytest.mark.parametrize("lens", ["latlong", "ftheta_p0"])
def test_lenses_without_a_pinhole_are_refused(tmp_path, lens):
    with pytest.raises(InputError, match=f"{lens} of images/0000.png is not a lens"):
        imported(tmp_path, write_capture(tmp_path, **{lens: 1.5}))


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("fl_x", True, "true is no number"),
        ("k1", False, "false is no number"),
        ("is_fisheye", "false", 'is_fisheye is "false", neither true nor false'),
    ],
)
def test_values_of_another_kind_are_named(tmp_path, field, value, words):
    with pytest.raises(InputError, match=words):
        imported(tmp_path, write_capture(tmp_path, **{field: value}))


def test_a_principal_point_that_can_hardly_be_in_pixels_is_named(tmp_path, capsys):
    """Some tools write cx and cy as shares of the image."""
    content = write_capture(tmp_path, cx=0.5, cy=0.5)
    (tmp_path / "transforms.json").write_text(json.dumps(content))
    read_transforms_file(tmp_path / "transforms.json")
    (line,) = warnings(capsys)
    assert "far from the middle" in line and "cx and cy are taken as pixels" in line


def test_no_warning_stands_beside_an_error(tmp_path, capsys):
    with pytest.raises(InputError, match="focal length of 1e-09"):
        imported(tmp_path, write_capture(tmp_path, aabb_scale=1, fl_y=1e-9))
    assert not warnings(capsys)


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
    Image.new("L", (64, 64), 0).save(tmp_path / "mask.png")
    content["frames"][0]["mask_path"] = "mask"
    for split in ("train", "val", "test"):
        (tmp_path / f"transforms_{split}.json").write_text(json.dumps(content))
    nerf_synthetic.main([str(tmp_path), str(tmp_path / "scene")])
    first = list_images(tmp_path / "scene" / "train" / "rgb")[0]
    assert load_rgba(first)[..., 3].max() == 0
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
