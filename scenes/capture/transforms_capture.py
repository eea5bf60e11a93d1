"""The capture of a `transforms.json`, or of a pair of `transforms_train.json` and
`transforms_test.json`."""

from pathlib import Path

import numpy as np
import pycolmap

from files.points import load_points
from scenes.capture.cameras import plausible_camera
from scenes.capture.capture import Capture
from scenes.capture.transforms import (
    SPLIT_FILES,
    TransformsContent,
    read_splits,
    read_transforms_file,
)
from scenes.capture.transforms_camera import FrameCamera


def read_transforms(source: Path) -> Capture:
    """Reads a file, or what lies in a folder: transforms.json, else the files of splits. Raises
    InputError with what is wrong."""
    path = source / "transforms.json" if source.is_dir() else source
    train_file = path.with_name(SPLIT_FILES["train"][0])
    has_splits = train_file.exists() and (path == train_file or not path.exists())
    if has_splits:
        return transforms_capture(read_splits(path.parent), path.parent)
    return transforms_capture(read_transforms_file(path), path)


def transforms_capture(content: TransformsContent, named_by: Path) -> Capture:
    """The capture that a file describes. Raises InputError for implausible intrinsics."""
    frames = content.frames
    points = np.zeros((0, 3))
    colors = np.zeros((0, 3), np.uint8)
    if content.points is not None:
        points, colors = load_points(content.points)
    return Capture(
        [frame.image for frame in frames],
        [frame.name for frame in frames],
        np.stack([frame.cam2world for frame in frames]),
        [
            colmap_camera(frame.camera, f"{named_by}: the camera of {frame.name}")
            for frame in frames
        ],
        points,
        colors,
        masks=[frame.mask for frame in frames],
        splits=content.splits,
    )


def colmap_camera(camera: FrameCamera, subject: str) -> pycolmap.Camera:
    """The camera as COLMAP's. Raises InputError, which opens with `subject`, if it is
    implausible."""
    params = [camera.focal_x, camera.focal_y, camera.center_x, camera.center_y, *camera.distortion]
    return plausible_camera(subject, camera.model, camera.width, camera.height, params)
