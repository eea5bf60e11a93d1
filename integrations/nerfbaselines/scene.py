"""A data set of NerfBaselines as a scene folder, through what the importers share
(`scenes.capture`): one pinhole camera, the grid chosen, masks as transparency."""

import os
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8
from nerfbaselines import Dataset

from data_util import BACKGROUNDS, nearest_rigid, view_name, write_image
from files.points import usable_points
from geometry.grid import GivenGrid
from scenes.capture.cameras import plausible_camera
from scenes.capture.capture import Capture, write_capture
from scenes.capture.options import CaptureOptions
from util import InputError

GRAY = 128  # of points without a colour
# All views are for training; the world may be turned upright.
OPTIONS = CaptureOptions(test_every=0, val_every=0, sidelength=None, up="cameras", grid=GivenGrid())


def background_of(dataset: Dataset) -> str:
    """The name in `BACKGROUNDS` of the colour behind transparent pixels, black unless the data set
    says it, as NerfBaselines composes them. Raises `InputError` for another colour."""
    color = dataset["metadata"].get("background_color")
    levels = [0, 0, 0] if color is None else np.asarray(color).tolist()
    for name, level in BACKGROUNDS.items():
        if levels == [level] * 3:
            return name
    raise InputError(
        f"the data set has the background colour {levels}; DeepVoxels knows white and black"
    )


def write_dataset(dataset: Dataset, folder: Path) -> str:
    """Writes the views as `folder/train`, and `folder/scene.json` with the rotation from the data
    set's world to the scene's. Returns lines for people. Raises `InputError` for what cannot be a
    scene."""
    color_space = dataset["metadata"].get("color_space", "srgb")
    if color_space != "srgb":
        raise InputError(f"the data set's colours are {color_space}; DeepVoxels learns from srgb")
    names = [os.path.relpath(path, dataset["image_paths_root"]) for path in dataset["image_paths"]]
    cameras = dataset["cameras"]
    sizes = cameras.image_sizes.tolist()
    points, colors = _points(dataset)
    images = _write_images(dataset["images"], sizes, folder / "images")
    masks = dataset.get("masks")
    if masks is not None:
        masks = [255 * (np.asarray(mask) > 0).astype(np.uint8) for mask in masks]
        masks = _write_images(masks, sizes, folder / "masks")
    capture = Capture(
        images,
        names,
        np.stack(
            [
                nearest_rigid(cam2world(pose), f"the pose of {name}")
                for name, pose in zip(names, cameras.poses, strict=True)
            ]
        ),
        [
            plausible_camera(f"the camera of {name}", "PINHOLE", width, height, params)
            for name, (width, height), params in zip(
                names, sizes, cameras.intrinsics.tolist(), strict=True
            )
        ],
        points,
        colors,
        masks=masks or [],
    )
    return write_capture(capture, folder, OPTIONS, source="a data set of NerfBaselines")


def cam2world(pose: Float[np.ndarray, "_ 4"]) -> Float[np.ndarray, "4 4"]:
    """A pose of NerfBaselines, which has our axes, as a 4x4 matrix."""
    matrix = np.eye(4)
    matrix[:3] = pose[:3]
    return matrix


def _points(
    dataset: Dataset,
) -> tuple[Float[np.ndarray, "points 3"], UInt8[np.ndarray, "points 3"]]:
    """The sparse points and their colours, none if the data set has none."""
    points = dataset.get("points3D_xyz")
    if points is None:
        return np.zeros((0, 3)), np.zeros((0, 3), np.uint8)
    colors = dataset.get("points3D_rgb")
    if colors is None:
        colors = np.full(points.shape, GRAY)
    return usable_points(points.astype(np.float64), colors.astype(np.uint8))


def _write_images(images, sizes: list[list[int]], folder: Path) -> list[Path]:
    """Writes images, gray ones too, which may be padded beyond their sizes (width, height), as
    PNG."""
    folder.mkdir()
    paths = []
    for index, (image, (width, height)) in enumerate(zip(images, sizes, strict=True)):
        image = np.atleast_3d(image[:height, :width])
        if image.shape[2] == 1:
            image = image.repeat(3, axis=2)
        paths.append(folder / f"{view_name(index)}.png")
        write_image(paths[-1], image)
    return paths
