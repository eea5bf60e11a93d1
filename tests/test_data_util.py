"""Reading a scene folder's files (docs/design.md, section 7), and the errors for wrong ones."""

import cv2
import imageio.v2 as imageio
import numpy as np
import pytest

from data_util import (
    center_square,
    color_depth,
    load_image,
    load_intrinsics,
    load_pose,
    nearest_views,
    square_resize,
)
from tests.conftest import look_at_origin
from util import InputError

INTRINSICS = "50 30 20 0.\n0.1 0.2 0.3\n0\n2.0\n40 60\n"


def test_poses_are_read_from_one_line_and_from_four(tmp_path):
    pose = look_at_origin([1, 2, 3])
    (tmp_path / "one.txt").write_text(" ".join(map(str, pose.ravel())))
    (tmp_path / "four.txt").write_text("\n".join(" ".join(map(str, row)) for row in pose) + "\n\n")
    np.testing.assert_allclose(load_pose(tmp_path / "one.txt"), pose)
    np.testing.assert_allclose(load_pose(tmp_path / "four.txt"), pose)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("1 2 3", "holds 3 numbers"),
        ("1 0 0 0\n0 1 0 zero\n", ":2: 'zero' is not a number"),
        ("1 0 0 nan 0 1 0 0 0 0 1 0 0 0 0 1", ":1: 'nan' is not a finite number"),
        ("1 0 0 1e39 0 1 0 0 0 0 1 0 0 0 0 1", ":1: '1e39' is not a finite number in float32"),
        ("2 0 0 0 0 1 0 0 0 0 1 0 0 0 0 1", "not a rotation"),
        ("-1 0 0 0 0 1 0 0 0 0 1 0 0 0 0 1", "it is mirrored"),
        ("1 0 0 0 0 1 0 0 0 0 1 0 1 0 0 1", "last row"),
        ("", "holds 0 numbers"),
    ],
)
def test_wrong_poses_are_named(tmp_path, text, complaint):
    path = tmp_path / "000001.txt"
    path.write_text(text)
    with pytest.raises(InputError, match="000001.txt") as error:
        load_pose(path)
    assert complaint in str(error.value)
    assert "\n" not in str(error.value)


def test_intrinsics_scale_with_the_image_and_move_with_the_crop(tmp_path):
    path = tmp_path / "intrinsics.txt"
    path.write_text(INTRINSICS)
    intrinsics = load_intrinsics(path)
    assert (intrinsics.near_plane, intrinsics.scale, intrinsics.grid_origin) == (
        0,
        2.0,
        (0.1, 0.2, 0.3),
    )
    assert not intrinsics.world2cam
    # 60x40 is cropped to 40x40 from column 10, then halved
    np.testing.assert_allclose(intrinsics.matrix(20), [[25, 0, 10], [0, 25, 10], [0, 0, 1]])


def test_a_portrait_photo_scales_by_its_width(tmp_path):
    path = tmp_path / "intrinsics.txt"
    path.write_text("80 20 40\n0 0 0\n0\n1\n80 40\n1\n")
    intrinsics = load_intrinsics(path)
    assert intrinsics.world2cam
    np.testing.assert_allclose(intrinsics.matrix(80), [[160, 0, 40], [0, 160, 40], [0, 0, 1]])


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("50 30 20\n0 0 0\n1\n", "has 3 lines, expected 5; line 4 should hold the scale"),
        (INTRINSICS.replace("0.2", "x"), ":2: 'x' is not a number"),
        (INTRINSICS.replace("2.0", "0"), ":4: the scale is 0"),
        (INTRINSICS.replace("50 30", "-50 30"), ":1: the focal length is -50"),
        (INTRINSICS.replace("40 60", "40"), ":5: holds 1 numbers, expected 2"),
    ],
)
def test_wrong_intrinsics_are_named(tmp_path, text, complaint):
    path = tmp_path / "intrinsics.txt"
    path.write_text(text)
    with pytest.raises(InputError) as error:
        load_intrinsics(path)
    assert f"{path}" in str(error.value)
    assert complaint in str(error.value)


def test_8_and_16_bit_images_and_transparency(tmp_path):
    color = np.array([[[200, 100, 50]]], np.uint8).repeat(4, axis=0).repeat(4, axis=1)
    imageio.imwrite(tmp_path / "8.png", color)
    cv2.imwrite(str(tmp_path / "16.png"), color[..., ::-1].astype(np.uint16) * 257)
    half = np.concatenate([color, np.full((4, 4, 1), 51, np.uint8)], axis=2)  # alpha 0.2
    imageio.imwrite(tmp_path / "alpha.png", half)
    cv2.imwrite(str(tmp_path / "alpha16.png"), half[..., [2, 1, 0, 3]].astype(np.uint16) * 257)
    imageio.imwrite(tmp_path / "gray.png", color[..., 0])
    for name in ("8.png", "16.png"):
        np.testing.assert_array_equal(load_image(tmp_path / name), color)
    for name in ("alpha.png", "alpha16.png"):
        np.testing.assert_array_equal(
            load_image(tmp_path / name)[0, 0], [244, 224, 214]
        )  # 0.2 c + 0.8 * 255
        np.testing.assert_array_equal(load_image(tmp_path / name, "black")[0, 0], [40, 20, 10])
    np.testing.assert_array_equal(load_image(tmp_path / "gray.png")[0, 0], [200, 200, 200])


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_damaged_images_are_named(tmp_path, capfd, suffix):
    path = tmp_path / f"photo{suffix}"
    imageio.imwrite(path, np.random.default_rng(0).integers(0, 255, (64, 64, 3)).astype(np.uint8))
    path.write_bytes(path.read_bytes()[:-600])
    with pytest.raises(InputError, match="photo"):
        load_image(path)
    path.write_bytes(b"no image")
    with pytest.raises(InputError, match="photo"):
        load_image(path)
    assert capfd.readouterr().err == ""


def test_the_center_square_is_as_large_as_the_shorter_side():
    assert center_square(40, 60) == (0, 10, 40)
    assert center_square(61, 40) == (10, 0, 40)


def test_square_resize_crops_the_center_and_averages_areas():
    image = np.zeros((4, 8, 3), np.uint8)
    image[:, 2:6] = np.arange(4)[:, None, None] * 40
    resized = square_resize(image, 2)
    assert resized[:, :, 0].tolist() == [[20, 20], [100, 100]]
    assert square_resize(image, 8).shape == (8, 8, 3)


def test_nearest_views_by_viewing_direction():
    poses = np.stack([look_at_origin([np.cos(a), np.sin(a), 0.5]) for a in (0.0, 0.3, 1.0, 3.0)])
    poses[2, :3, 3] *= 10  # only the viewing direction matters, not the position
    assert nearest_views(poses[:1], poses, 4).tolist() == [[0, 1, 2, 3]]
    assert nearest_views(poses[3:], poses, 2).tolist() == [[3, 2]]


def test_color_depth_goes_from_bright_to_dark():
    brightness = color_depth(np.array([[1.0, 2.0, 3.0]]), 1.0, 3.0).sum(axis=-1)[0]
    assert brightness[0] > brightness[1] > brightness[2]
