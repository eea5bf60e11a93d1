"""LLFF's `poses_bounds.npy`: for each image a 3x5 matrix and the depths of the nearest and of the
farthest point.

capture, near_plane = read_llff(folder / "poses_bounds.npy", folder / "images_4")
"""

from pathlib import Path

import numpy as np

from data_util import is_off_by_rounding, list_images, nearest_rigid
from files.untrusted import reading
from scenes.capture.cameras import plausible_camera
from scenes.capture.capture import Capture
from scenes.capture.listing import warn_of_rounded
from util import InputError

MAX_BYTES = 1 << 28
NEAR_SHARE = 0.9  # of the nearest bound (NeRF, Mildenhall et al. 2020)


def find_llff_images(folder: Path) -> Path:
    """The folder of the images that lie there, the largest first. Raises InputError."""
    for name in ("images", "images_4", "images_8"):
        if (folder / name).is_dir():
            return folder / name
    raise InputError(f"{folder}: holds no folder images, images_4 or images_8; give --images")


def read_llff(path: Path, image_dir: Path) -> tuple[Capture, float]:
    """The capture, and the near plane that the bounds give. Raises InputError.

    A matrix holds the camera's down, right and backward axes and its center, in world coordinates,
    and as the last column height, width and focal length in pixels.
    """
    kind = "LLFF's poses and bounds, an array of 17 numbers for each image"
    with reading(path, kind, MAX_BYTES) as limits:
        limits.memory_for(path.stat().st_size)
        rows = np.asarray(np.load(path, allow_pickle=False), dtype=np.float64)
        if rows.ndim != 2 or rows.shape[1] != 17 or not len(rows):
            raise ValueError(f"its shape is {rows.shape}")
        if not np.isfinite(rows).all():
            raise ValueError("it holds numbers that are not finite")
    images = list_images(image_dir)
    if len(images) != len(rows):
        raise InputError(
            f"{path}: holds {len(rows)} poses, {image_dir} {len(images)} images; they pair by the "
            "order of names, so the numbers must agree"
        )
    poses = []
    rounded = []
    cameras = []
    for image, row in zip(images, rows, strict=True):
        matrix = row[:15].reshape(3, 5)
        down, right, backward, center, (height, width, focal) = matrix.T
        pose = np.eye(4)
        pose[:3] = np.stack([right, down, -backward, center], axis=1)
        poses.append(nearest_rigid(pose, f"{path}: the pose of {image.name}"))
        if is_off_by_rounding(pose):
            rounded.append(image.name)
        size = int(round(width)), int(round(height))
        subject = f"{path}: the camera of {image.name}"
        params = [float(focal), size[0] / 2, size[1] / 2]
        cameras.append(plausible_camera(subject, "SIMPLE_PINHOLE", *size, params))
    warn_of_rounded(rounded, len(images), path)
    near_plane = NEAR_SHARE * float(rows[:, 15].min())
    if not near_plane > 0:
        raise InputError(f"{path}: its nearest bound is {rows[:, 15].min():g}, not above 0")
    capture = Capture(
        images,
        [image.name for image in images],
        np.stack(poses),
        cameras,
        np.zeros((0, 3)),
        np.zeros((0, 3), np.uint8),
    )
    return capture, near_plane
