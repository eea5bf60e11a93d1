"""The capture of a `transforms.json`, its cameras as COLMAP's models."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pycolmap

from data_util import load_image
from files.points import load_points
from files.untrusted import inside
from scenes.capture.cameras import plausible_camera
from scenes.capture.capture import Capture
from scenes.capture.transforms import ListedFrame, read_frames
from util import InputError

DISTORTION = {
    "PINHOLE": (),
    "OPENCV": ("k1", "k2", "p1", "p2"),
    "OPENCV_FISHEYE": ("k1", "k2", "k3", "k4"),
    "FULL_OPENCV": ("k1", "k2", "p1", "p2", "k3", "k4", "k5", "k6"),
}


def read_transforms(path: Path) -> Capture:
    """Reads the file and the points that it names; raises InputError with what is wrong."""
    content, frames = read_frames(path)
    cameras = [frame_camera(frame, path) for frame in frames]
    points = np.zeros((0, 3))
    colors = np.zeros((0, 3), np.uint8)
    if content.get("ply_file_path"):
        points, colors = load_points(
            inside(path.parent, str(content["ply_file_path"]), named_by=path)
        )
    return Capture(
        [frame.image for frame in frames],
        [frame.name for frame in frames],
        np.stack([frame.cam2world for frame in frames]),
        cameras,
        points,
        colors,
    )


def frame_camera(frame: ListedFrame, path: Path) -> pycolmap.Camera:
    """The camera of a frame of the file `path`. Raises `InputError` for intrinsics that no camera
    has."""
    values = frame.values
    subject = f"{path}: the intrinsics of {frame.name}"
    try:
        has_size = "w" in values and "h" in values
        height, width = (
            (int(values["h"]), int(values["w"])) if has_size else load_image(frame.image).shape[:2]
        )
        if "fl_x" in values:
            focal_x = float(values["fl_x"])
        elif "camera_angle_x" in values:
            focal_x = 0.5 * width / np.tan(0.5 * float(values["camera_angle_x"]))
        else:
            raise InputError(f"{path}: gives neither fl_x nor camera_angle_x for {frame.name}")
        focal_y = float(values.get("fl_y", focal_x))
        center = [float(values.get("cx", width / 2)), float(values.get("cy", height / 2))]
        model = _camera_model(values, path)
        distortion = [float(values.get(name, 0)) for name in DISTORTION[model]]
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(f"{subject} are not numbers ({error})") from None
    return plausible_camera(
        f"{path}: the camera of {frame.name}",
        model,
        width,
        height,
        [focal_x, focal_y, *center, *distortion],
    )


def _camera_model(values: Mapping, path: Path) -> str:
    """COLMAP's name of the camera model; if the file names none, chosen by the distortion
    coefficients that it has."""
    if values.get("is_fisheye"):
        return "OPENCV_FISHEYE"
    named = values.get("camera_model", "OPENCV")
    if named in ("SIMPLE_PINHOLE", "PINHOLE"):
        return "PINHOLE"
    if named not in DISTORTION and named not in ("SIMPLE_RADIAL", "RADIAL"):
        raise InputError(
            f"{path}: camera_model {named} is not one that can be undistorted here: "
            f"{', '.join(['SIMPLE_PINHOLE', 'SIMPLE_RADIAL', 'RADIAL', *DISTORTION])}"
        )
    if named == "OPENCV_FISHEYE":
        return named
    return (
        "FULL_OPENCV"
        if any(float(values.get(name, 0)) for name in ("k3", "k4", "k5", "k6"))
        else "OPENCV"
    )
