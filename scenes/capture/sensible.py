"""Cameras as files from elsewhere give them: refused where no lens and no crop of a photo could be
meant."""

import math

import numpy as np
import pycolmap

from files.images import MAX_PIXELS
from util import InputError

FOCAL_RANGE = (
    0.01,
    1e4,
)  # focal length as a multiple of the image's longer side: fisheye to telescope
MAX_STRETCH = 10  # one focal length over the other
# Principal point's distance from the image's middle, as a multiple of its size: crops of larger
# photos
MAX_OFFSET = 10
MAX_DISTORTION = 1e4


def parameter_count(model: str) -> int:
    """The number of parameters of COLMAP's camera model of this name."""
    return len(pycolmap.Camera.create_from_model_name(1, model, 1.0, 1, 1).params)


def sensible_camera(
    subject: str, model: str, width: int, height: int, params: list[float]
) -> pycolmap.Camera:
    """COLMAP's camera with these parameters, in pixels. Raises InputError, which opens with
    `subject`, for a size, a focal length, a principal point or a distortion that cannot be
    meant."""
    if min(width, height) < 1 or width * height > MAX_PIXELS:
        raise InputError(f"{subject} is for images of {width}x{height} pixels")
    if len(params) != parameter_count(model):
        raise InputError(
            f"{subject} has {len(params)} parameters; {model} has {parameter_count(model)}"
        )
    if not np.isfinite(params).all():
        raise InputError(f"{subject} has parameters that are not finite")
    camera = pycolmap.Camera(model=model, width=width, height=height, params=params)
    focals = [params[index] for index in camera.focal_length_idxs()]
    low, high = (share * max(width, height) for share in FOCAL_RANGE)
    for focal in focals:
        if not low <= focal <= high:
            raise InputError(
                f"{subject} has a focal length of {focal:g} pixels, in images of {width}x{height}"
            )
    if focals and max(focals) > MAX_STRETCH * min(focals):
        raise InputError(
            f"{subject} has focal lengths of {focals[0]:g} and {focals[1]:g} pixels; pixels are "
            "nearly "
            "square"
        )
    for index, size in zip(camera.principal_point_idxs(), (width, height), strict=True):
        if abs(params[index] - size / 2) > MAX_OFFSET * size:
            raise InputError(
                f"{subject} has its principal point at {params[index]:g}, in images of "
                f"{width}x{height}"
            )
    largest = max((abs(params[index]) for index in camera.extra_params_idxs()), default=0.0)
    if not math.isfinite(largest) or largest > MAX_DISTORTION:
        raise InputError(f"{subject} has a distortion coefficient of {largest:g}")
    return camera
