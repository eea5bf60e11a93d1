"""The camera of a frame of a `transforms.json`, as one of COLMAP's models."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pycolmap

from data_util import load_image
from scenes.capture.sensible import sensible_camera
from scenes.capture.transforms import Frame
from util import InputError

DISTORTION = {
    "PINHOLE": (),
    "OPENCV": ("k1", "k2", "p1", "p2"),
    "OPENCV_FISHEYE": ("k1", "k2", "k3", "k4"),
    "FULL_OPENCV": ("k1", "k2", "p1", "p2", "k3", "k4", "k5", "k6"),
}


def transforms_camera(frame: Frame, path: Path) -> pycolmap.Camera:
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
    return sensible_camera(
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
