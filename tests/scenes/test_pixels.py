"""The pixels of imported images lie where the scene's camera sees them: distortion, cameras of
their own, crops."""

import json

import cv2
import numpy as np
import pycolmap
import pytest

from data_util import list_images, list_poses, load_image, load_intrinsics, load_pose, write_image
from geometry.cameras import look_at, opengl2opencv
from scenes import transforms_json
from scenes.capture.cameras import Undistorter, shared_pinhole


def center_of(blob):
    """Where the blob's middle lies, in pixels; the first pixel spans 0 to 1."""
    row, column = np.mgrid[: blob.shape[0], : blob.shape[1]] + 0.5
    return [(blob * axis).sum() / blob.sum() for axis in (column, row)]


@pytest.mark.parametrize(("width", "height"), [(120, 90), (90, 120)])
def test_a_crop_takes_the_principal_point_with_it(tmp_path, width, height):
    """A point of the world, photographed by a camera whose axis is not in the middle, then cropped
    and shrunk."""
    focal = 150.0
    cx = width / 2 - 7
    cy = height / 2 + 5
    point = np.array([0.1, -0.05, 0.08])
    poses = look_at(
        np.array([[2.0, 0, 1], [1, 2, 1], [-1, 2, 0.5]]), np.zeros(3), np.array([0.0, 0, 1])
    )
    frames = []
    for number, pose in enumerate(poses):
        x, y, z = (point - pose[:3, 3]) @ pose[:3, :3]
        row, column = np.mgrid[:height, :width] + 0.5
        squares = (column - focal * x / z - cx) ** 2 + (row - focal * y / z - cy) ** 2
        write_image(
            tmp_path / f"{number}.png",
            np.repeat(np.uint8(250 * np.exp(-squares / 18))[..., None], 3, axis=2),
        )
        frames.append(
            {"file_path": f"{number}.png", "transform_matrix": opengl2opencv(pose).tolist()}
        )
    (tmp_path / "transforms.json").write_text(
        json.dumps({"fl_x": focal, "cx": cx, "cy": cy, "w": width, "h": height, "frames": frames})
    )
    transforms_json.main(
        [str(tmp_path), str(tmp_path / "scene"), "--test_every", "0", "--sidelength", "45"]
    )
    train = tmp_path / "scene" / "train"
    matrix = load_intrinsics(train / "intrinsics.txt").matrix(45)
    for image, path in zip(list_images(train / "rgb"), list_poses(train / "pose"), strict=True):
        pose = load_pose(path)
        x, y, z = matrix @ ((point - pose[:3, 3]) @ pose[:3, :3])
        np.testing.assert_allclose(
            center_of(load_image(image)[..., 0].astype(float)), [x / z, y / z], atol=0.1
        )


@pytest.mark.parametrize(
    ("model", "distortion"),
    [("OPENCV", [-0.2, 0.05, 0.001, -0.002]), ("OPENCV_FISHEYE", [0.05, -0.01, 0.002, 0.0])],
)
def test_undistortion_is_opencvs(model, distortion):
    """A point of the world lands where a pinhole camera sees it, by OpenCV's own distortion
    functions."""
    width = 320
    height = 240
    camera = pycolmap.Camera(
        model=model, width=width, height=height, params=[200, 205, 165, 118, *distortion]
    )
    target = shared_pinhole([camera])
    rays = np.array([[x, y, 1.0] for x in (-0.4, 0, 0.3) for y in (-0.3, 0.05, 0.25)])
    matrix = np.array([[200.0, 0, 165], [0, 205, 118], [0, 0, 1]])
    distort = cv2.fisheye.projectPoints if model == "OPENCV_FISHEYE" else cv2.projectPoints
    seen_at = distort(rays[:, None], np.zeros(3), np.zeros(3), matrix, np.array(distortion))[
        0
    ].reshape(-1, 2)
    photo = np.zeros((height, width, 3), np.uint8)
    for number, (x, y) in enumerate(seen_at):
        grid_x, grid_y = np.meshgrid(np.arange(width) + 0.5 - x, np.arange(height) + 0.5 - y)
        photo[..., number % 3] |= (200 * np.exp(-(grid_x**2 + grid_y**2) / 8)).astype(np.uint8)
    image = Undistorter(target)(photo, camera).astype(float)
    assert (target.width, target.height) == (width, height)
    for number, ray in enumerate(rays):
        expected = ray[:2] * target.focal_length_x + [
            target.principal_point_x,
            target.principal_point_y,
        ]
        x, y = np.meshgrid(
            np.arange(width) + 0.5 - expected[0], np.arange(height) + 0.5 - expected[1]
        )
        near = image[..., number % 3] * (np.hypot(x, y) < 8)
        offset = [(near * axis).sum() / near.sum() for axis in (x, y)]
        np.testing.assert_allclose(offset, 0, atol=0.15)


def test_undistorted_images_are_filled_to_the_border():
    for k1 in (-0.25, 0.2):
        camera = pycolmap.Camera(
            model="SIMPLE_RADIAL", width=200, height=150, params=[150, 100, 75, k1]
        )
        photo = np.full((150, 200, 3), 200, np.uint8)
        target = shared_pinhole([camera])
        maps = Undistorter(target)._source_pixels(camera)
        assert maps.min() > -1.5 and maps[..., 0].max() < 200.5 and maps[..., 1].max() < 150.5
        assert (Undistorter(target)(photo, camera) == 200).all()


@pytest.mark.parametrize(
    ("size", "params"),
    [((300, 300), [241, -0.35]), ((400, 300), [287, -0.434]), ((400, 300), [250, -0.45, 0.05])],
)
def test_undistortion_ends_where_the_polynomial_turns_back(size, params):
    """Beyond, the image would be mirrored; r + k1 r^3 + k2 r^5 turns back where its derivative is
    zero."""
    width, height = size
    focal, *ks = params
    camera = pycolmap.Camera(
        model="SIMPLE_RADIAL" if len(ks) == 1 else "RADIAL",
        width=width,
        height=height,
        params=[focal, width / 2, height / 2, *ks],
    )
    squares = np.roots([5 * k for k in ks[1:]] + [3 * ks[0], 1])
    fold = np.sqrt(squares[squares > 0].min())
    reach = np.hypot(width, height) / 2 / shared_pinhole([camera]).focal_length_x
    assert 0.99 * fold < reach < 1.002 * fold


def test_frames_may_have_their_own_intrinsics(tmp_path):
    """Two frames of one disc, through different focal lengths, become images of one camera."""
    frames = []
    for number, focal in enumerate([60.0, 90.0]):
        image = np.zeros((64, 64, 3), np.uint8)
        cv2.circle(image, (32, 32), round(0.2 * focal), (255, 255, 255), -1)
        write_image(tmp_path / f"{number}.png", image)
        pose = np.eye(4)
        pose[:3, 3] = number * 0.01, 0, 2
        frames.append(
            {
                "file_path": str(number),
                "transform_matrix": pose.tolist(),
                "fl_x": focal,
                "w": 64,
                "h": 64,
            }
        )
    (tmp_path / "transforms.json").write_text(json.dumps({"frames": frames}))
    transforms_json.main([str(tmp_path), str(tmp_path / "scene"), "--test_every", "0"])
    shares = [
        (load_image(path) > 128).mean()
        for path in list_images(tmp_path / "scene" / "train" / "rgb")
    ]
    focal = load_intrinsics(tmp_path / "scene" / "train" / "intrinsics.txt").focal
    assert focal == pytest.approx(90, rel=0.02)
    np.testing.assert_allclose(shares, np.pi * (0.2 * focal / 64) ** 2, rtol=0.06)
