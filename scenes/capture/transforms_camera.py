"""The camera of a frame of a `transforms.json`: its own fields before those of its file.

Fields that no camera uses, or that another one overrules, are noted.
"""

import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from files.images import picture_size
from scenes.capture.plausible import require_focal_lengths, require_size
from util import InputError

# The distortion coefficients of COLMAP's camera models, in the order of their parameters
DISTORTION = {
    "PINHOLE": (),
    "OPENCV": ("k1", "k2", "p1", "p2"),
    "OPENCV_FISHEYE": ("k1", "k2", "k3", "k4"),
    "FULL_OPENCV": ("k1", "k2", "p1", "p2", "k3", "k4", "k5", "k6"),
    "THIN_PRISM_FISHEYE": ("k1", "k2", "p1", "p2", "k3", "k4", "sx1", "sy1"),
}
COEFFICIENTS = {name for names in DISTORTION.values() for name in names}
# Models that are a case of another one
SPECIAL_CASES = {
    "SIMPLE_PINHOLE": "PINHOLE",
    "SIMPLE_RADIAL": "OPENCV",
    "RADIAL": "OPENCV",
    "SIMPLE_RADIAL_FISHEYE": "OPENCV_FISHEYE",
    "RADIAL_FISHEYE": "OPENCV_FISHEYE",
}
NO_PINHOLE = ("latlong", "equirectangular", "ftheta_p0")  # instant-ngp's other lenses
FOCAL_TOLERANCE = 0.01  # relative difference of two fields that give the same focal length


@dataclass(frozen=True)
class FrameCamera:
    """A frame's intrinsics in pixels; the first pixel spans 0 to 1. model: COLMAP's name.
    distortion: as `DISTORTION` orders it."""

    width: int
    height: int
    focal_x: float
    focal_y: float
    center_x: float
    center_y: float
    model: str
    distortion: tuple[float, ...]


@dataclass
class Fields(Mapping):
    """The entries of a frame over those of its file.

    used: names of all that were asked for. without_part: names whose value another field overrules,
    in this frame or another one, or that the camera model does not have.
    """

    entry: Mapping
    shared: Mapping
    used: set[str] = field(default_factory=set)
    without_part: set[str] = field(default_factory=set)

    def __getitem__(self, name: str):
        self.used.add(name)
        if name in self.entry:
            return self.entry[name]
        return self.shared[name]

    def __iter__(self) -> Iterator[str]:
        return iter({**self.shared, **self.entry})

    def __len__(self) -> int:
        return len({**self.shared, **self.entry})


def frame_camera(fields: Fields, image: Path, path: Path) -> FrameCamera:
    """The intrinsics of a frame, its own before the file's. Raises InputError if they are not
    numbers, or if size or focal length is implausible."""
    name = fields["file_path"]
    subject = f"{path}: the camera of {name}"
    for lens in NO_PINHOLE:
        if fields.get(lens):
            raise InputError(f"{path}: {lens} of {name} is not a lens that can be undistorted here")
    try:
        width, height = _size(fields, image)
        require_size(subject, width, height)
        focal_x = _focal_length(fields, "x", width)
        focal_y = _focal_length(fields, "y", height)
        if focal_x is None and focal_y is None:
            raise InputError(
                f"{path}: gives no focal length for {name} (fl_x, fx, K, x_fov or camera_angle_x)"
            )
        focal_x = focal_y if focal_x is None else focal_x
        focal_y = focal_x if focal_y is None else focal_y
        require_focal_lengths(subject, width, height, [focal_x, focal_y])
        center_x = _first(fields, "cx", lambda k: k[0][2], default=width / 2)
        center_y = _first(fields, "cy", lambda k: k[1][2], default=height / 2)
        model = _camera_model(fields, path)
        _note_coefficients(fields, model)
        distortion = tuple(_real(fields.get(name, 0)) for name in DISTORTION[model])
    except (TypeError, ValueError, OverflowError, LookupError) as error:
        raise InputError(f"{path}: the intrinsics of {name} are not numbers ({error})") from None
    return FrameCamera(
        width,
        height,
        focal_x,
        focal_y,
        center_x,
        center_y,
        model,
        distortion,
    )


def _size(fields: Fields, image: Path) -> tuple[int, int]:
    if {"w", "h"} <= set(fields):
        return int(fields["w"]), int(fields["h"])
    return picture_size(image)


def _focal_length(fields: Fields, axis: str, size: int) -> float | None:
    """The focal length along an axis in pixels, None if there is none: the frame's before the
    file's, and pixels before angles. Fields that contradict the one taken are noted."""
    index = "xy".index(axis)

    def of_angle(name: str, radians: float) -> float:
        if not 0 < radians < math.pi:
            raise ValueError(f"{name} is not an angle between 0 and pi")
        return size / 2 / math.tan(radians / 2)

    readers = {
        f"fl_{axis}": _real,
        f"f{axis}": _real,
        "K": lambda k: _real(k[index][index]),
        f"{axis}_fov": lambda angle: of_angle(f"{axis}_fov", math.radians(_real(angle))),
        f"camera_angle_{axis}": lambda angle: of_angle(f"camera_angle_{axis}", _real(angle)),
    }
    fields.used.update(readers)
    for values in (fields.entry, fields.shared):
        found = {name: read(values[name]) for name, read in readers.items() if name in values}
        if found:
            focal = next(iter(found.values()))
            fields.without_part.update(
                name
                for name, other in found.items()
                if abs(other - focal) > FOCAL_TOLERANCE * focal
            )
            return focal
    return None


def _first(fields: Fields, name: str, of_matrix: Callable, default: float) -> float:
    """A coordinate of the principal point: the frame's before the file's."""
    fields.used.add(name)
    for values in (fields.entry, fields.shared):
        if name in values:
            return _real(values[name])
        if "K" in values:
            return _real(of_matrix(values["K"]))
    return float(default)


def _real(value) -> float:
    """A number, or text that is one. JSON's true and false are none."""
    if isinstance(value, bool):
        raise TypeError(f"{json.dumps(value)} is no number")
    return float(value)


def _flag(value, name: str) -> bool:
    if value not in (True, False):  # 1 and 0 too
        raise TypeError(f"{name} is {json.dumps(value)}, neither true nor false")
    return bool(value)


def _camera_model(fields: Fields, path: Path) -> str:
    """COLMAP's name of the camera model; if the file names none, chosen by the distortion
    coefficients that it has."""
    if _flag(fields.get("is_fisheye", False), "is_fisheye"):
        return "OPENCV_FISHEYE"
    named = fields.get("camera_model", "OPENCV")
    model = SPECIAL_CASES.get(named, named)
    if model not in DISTORTION:
        known = ", ".join([*SPECIAL_CASES, *DISTORTION])
        raise InputError(
            f"{path}: camera_model {named} is not one that can be undistorted here: {known}"
        )
    if model == "OPENCV" and any(_number(fields, name) for name in ("k3", "k4", "k5", "k6")):
        return "FULL_OPENCV"
    return model


def _note_coefficients(fields: Fields, model: str) -> None:
    """Notes the coefficients that the model does not have. One that is 0 says nothing, whatever the
    model."""
    for name in COEFFICIENTS:
        fields.used.add(name)
        if _number(fields, name) and name not in DISTORTION[model]:
            fields.without_part.add(name)


def _number(fields: Fields, name: str) -> float:
    """The value of a field, 0 if there is none, without using it."""
    return _real(fields.entry.get(name, fields.shared.get(name, 0)))
