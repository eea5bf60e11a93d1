"""Refuses cameras that cannot be meant, by their size and focal lengths."""

from files.images import MAX_PIXELS
from util import InputError

# Focal length as a multiple of the image's longer side: fisheye to telescope
FOCAL_RANGE = (0.01, 1e4)
MAX_STRETCH = 10  # one focal length over the other


def require_size(subject: str, width: int, height: int) -> None:
    """Raises InputError, which opens with `subject`, for a size in pixels that no image has."""
    if min(width, height) < 1 or width * height > MAX_PIXELS:
        raise InputError(f"{subject} is for images of {width}x{height} pixels")


def require_focal_lengths(subject: str, width: int, height: int, focals: list[float]) -> None:
    """Raises InputError, which opens with `subject`, for a focal length, in pixels, that is
    implausible in images of this size; one that is not finite, too."""
    low, high = (share * max(width, height) for share in FOCAL_RANGE)
    for focal in focals:
        if not low <= focal <= high:
            raise InputError(
                f"{subject} has a focal length of {focal:g} pixels, in images of {width}x{height}"
            )
    if focals and max(focals) > MAX_STRETCH * min(focals):
        raise InputError(
            f"{subject} has focal lengths of {focals[0]:g} and {focals[1]:g} pixels; pixels are "
            "nearly square"
        )
