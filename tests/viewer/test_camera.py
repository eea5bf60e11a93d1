"""Where the viewer puts the picture on a browser's canvas, and how it turns the browser's camera
into ours."""

import cv2
import numpy as np
import pytest

from data_util import BORDER, SceneIntrinsics
from geometry.cameras import scene_axes
from geometry.coverage import world2pixels
from tests.conftest import look_at_origin
from viewer.camera import (
    Canvas,
    Place,
    compose,
    depth_on_image,
    edge_color,
    fitting_fov,
    lens_of,
    place_on_canvas,
    to_cam2world,
    to_wxyz,
)
from viewer.scene import first_view

CANVASES = [Canvas(1280, 720), Canvas(500, 900), Canvas(600, 600)]
CENTERED = SceneIntrinsics(70.0, 32.0, 32.0, (0.0, 0.0, 0.0), 1.0, 1.0, 64, 64)
OFF_CENTER = SceneIntrinsics(
    300.0, 170.0, 90.0, (0.0, 0.0, 0.0), 1.0, 1.0, 240, 320
)  # is cropped to a square, too
LENSES = [CENTERED, OFF_CENTER]
AROUND = np.array([200, 220, 240], np.uint8)


@pytest.mark.parametrize("canvas", CANVASES)
@pytest.mark.parametrize("intrinsics", LENSES)
def test_whole_picture_just_fits_on_the_canvas(intrinsics, canvas):
    lens = lens_of(intrinsics, 64)
    left, top, side = place_on_canvas(lens, fitting_fov(lens, canvas), canvas)
    margins = np.array([left, top, canvas.width - left - side, canvas.height - top - side])
    assert margins.min() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("fov", [None, 0.4, 1.3])
@pytest.mark.parametrize("canvas", CANVASES)
@pytest.mark.parametrize("intrinsics", LENSES)
def test_what_the_browser_draws_falls_on_the_picture(intrinsics, canvas, fov):
    """The browser's projection (a vertical field of view, the axis in the middle of the canvas) of
    any point is where our projection of it lies in the picture."""
    lens = lens_of(intrinsics, 64)
    pose = look_at_origin([1.2, -0.9, 0.8])
    fov = fov or fitting_fov(lens, canvas)
    points = np.random.default_rng(0).uniform(-0.5, 0.5, (50, 3))
    in_camera = (points - pose[:3, 3]) @ pose[:3, :3]
    browser = (
        in_camera[:, :2] / in_camera[:, 2:] * canvas.height / 2 / np.tan(fov / 2)
        + np.array(canvas) / 2
    )
    left, top, side = place_on_canvas(lens, fov, canvas)
    pixels = world2pixels(points, pose[None], intrinsics.matrix(64))[0][0]
    ours = np.array([left, top]) + (pixels - BORDER) * side / (64 - 2 * BORDER)
    np.testing.assert_allclose(browser, ours, atol=1e-6)


@pytest.mark.parametrize("most", [10_000, 200])
@pytest.mark.parametrize(
    "where", [Place(100.0, 0.0, 432.0), Place(-60.3, 40.8, 500.0), Place(300.0, 250.0, 27.0)]
)
def test_composed_picture_is_undistorted_and_at_its_place(where, most):
    canvas = Canvas(800, 432)
    size = 54
    picture = np.full((size, size, 3), 255, np.uint8)
    cv2.circle(picture, (30, 22), 10, (0, 0, 0), -1, cv2.LINE_AA)
    result = compose(picture, where, canvas, most, AROUND)
    ratio = min(1, most / where.side)
    assert result.shape[1] / canvas.width == pytest.approx(ratio, abs=1 / canvas.height)
    rows, columns = np.nonzero(result.mean(axis=2) < 100)
    scale = where.side / size * ratio
    center = (np.array([30.5, 22.5]) * where.side / size + where[:2]) * ratio
    np.testing.assert_allclose([columns.mean() + 0.5, rows.mean() + 0.5], center, atol=1.1)
    np.testing.assert_allclose(
        [np.ptp(columns) + 1, np.ptp(rows) + 1], 21 * scale, atol=1.5 + 0.1 * scale
    )
    outside = result[:, : max(0, int(where.left * ratio) - 1)]
    assert (outside == AROUND).all()


def test_enlarging_is_smooth():
    picture = np.zeros((54, 54, 3), np.uint8)
    picture[:, 27:] = 240
    enlarged = compose(picture, Place(0.0, 0.0, 540.0), Canvas(540, 540), 540, AROUND)
    steps = np.diff(enlarged[270, :, 0].astype(int))
    assert np.abs(steps).max() < 60  # nearest neighbour would jump by 240


def test_the_colour_of_a_pictures_edges_is_that_of_most_of_them():
    picture = np.tile(AROUND, (54, 54, 1))
    picture[10:, 20:40] = 0  # an object that reaches the lower edge
    np.testing.assert_array_equal(edge_color(picture), AROUND)


def test_depth_lies_on_the_image_as_the_map_samples_it():
    """Pixel i of the map holds the depth of the ray through coordinate i, where the image's first
    pixel spans 0 to 1 (docs/design.md, section 3): an image pixel's middle, j + 1/2, is at (j +
    1/2) / 4 of a map a quarter its size."""
    column = np.arange(16, dtype=np.float32)
    depth = depth_on_image(np.tile(column, (16, 1)), 64)
    np.testing.assert_allclose(
        depth[20, 4:56], (np.arange(4, 56) + 0.5) / 4, atol=0.02
    )  # cv2 interpolates in 32nds
    np.testing.assert_allclose(
        depth[4:56, 4:56].T, depth_on_image(np.tile(column[:, None], 16), 64)[4:56, 4:56], atol=1e-5
    )


def test_quaternions_and_poses_are_inverse():
    pose = look_at_origin([0.4, 1.1, 0.7])
    np.testing.assert_allclose(to_cam2world(to_wxyz(pose), pose[:3, 3]), pose, atol=1e-12)
    np.testing.assert_allclose(to_cam2world(np.array([1.0, 0, 0, 0]), np.zeros(3)), np.eye(4))


def test_first_view_is_upright_and_looks_at_the_grid():
    upright, rolled, away = (look_at_origin([1.0, 1.0, 0.5]) for _ in range(3))
    rolled[:3, :2] = rolled[:3, :2] @ np.array([[0.8, -0.6], [0.6, 0.8]])
    away[:3, 3] += away[:3, 0]
    up = np.array([0.0, 0, 1])
    assert first_view(np.stack([rolled, away, upright, upright]), np.zeros(3), up) == 2


def test_up_is_up_though_the_cameras_stand_on_one_side():
    upright = np.stack([look_at_origin([1.0, x, 0.3 + x]) for x in np.linspace(-0.8, 0.9, 12)])
    np.testing.assert_allclose(scene_axes(upright)[2], [0, 0, 1], atol=1e-6)
    held_by_hand = upright.copy()
    for i, pose in enumerate(held_by_hand):
        angle = 0.1 * (-1) ** i
        pose[:3, :2] = pose[:3, :2] @ np.array(
            [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
        )
    assert scene_axes(held_by_hand)[2][2] > 0.98
    in_a_row = np.stack([look_at_origin([1.0, 0.0, z]) for z in np.linspace(0.1, 0.6, 12)])
    assert np.isfinite(scene_axes(in_a_row)[2]).all()
    assert scene_axes(in_a_row)[2][2] > 0.9
