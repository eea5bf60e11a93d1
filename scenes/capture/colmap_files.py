"""Reads COLMAP's files of cameras, images and points, binary or text
(https://colmap.github.io/format.html).

COLMAP's own reader believes the counts in the files: where one is damaged it waits for ever or
fills the memory. Here no record may pass the end of its file, nor anything follow the last one.
Newer versions of COLMAP write rigs and frames beside these files; for each image they repeat its
pose.
"""

import math
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pycolmap
from jaxtyping import Float, UInt8

from files.points import usable_points
from scenes.capture.cameras import parameter_count, plausible_camera
from util import InputError, require_file

MAX_BYTES = 1 << 33
CAMERA_MODELS = {
    model.value: model for model in pycolmap.CameraModelId.__members__.values() if model.value >= 0
}
CAMERA = struct.Struct("<IiQQ")
PARAMETER = struct.Struct("<d")
IMAGE = struct.Struct("<I7dI")
OBSERVATION_BYTES = 24
POINT = struct.Struct("<Q3d3BdQ")
TRACK_BYTES = 8
COUNT = struct.Struct("<Q")
MIN_IMAGE_BYTES = IMAGE.size + 1 + COUNT.size


@dataclass(frozen=True)
class ImageRecord:
    """rotation: world-to-camera, a quaternion (w, x, y, z) of any length. translation:
    world-to-camera, world units."""

    name: str
    camera_id: int
    rotation: tuple[float, ...]
    translation: tuple[float, ...]


@dataclass(frozen=True)
class ColmapModel:
    """The content of a model's files. The points are the finite ones."""

    cameras: dict[int, pycolmap.Camera]
    images: list[ImageRecord]
    points: Float[np.ndarray, "points 3"]
    colors: UInt8[np.ndarray, "points 3"]


def has_model(folder: Path) -> bool:
    """Whether the folder holds a model: cameras and images, as .bin or .txt."""
    return _suffix(folder) is not None


def count_images(folder: Path) -> int:
    """How many images the model in the folder has."""
    suffix = _suffix(folder)
    if suffix == ".bin":
        return _Records(folder / "images.bin").count(MIN_IMAGE_BYTES)
    return len(_text_images(folder / "images.txt"))


def read_files(folder: Path) -> ColmapModel:
    """Reads the binary files if the folder has cameras and images as such, else the text files;
    without points if there are none. Raises InputError with what is wrong."""
    suffix = _suffix(folder)
    if suffix == ".bin":
        read_cameras = _binary_cameras
        read_images = _binary_images
        read_points = _binary_points
    else:
        suffix = ".txt"
        read_cameras = _text_cameras
        read_images = _text_images
        read_points = _text_points
    cameras = read_cameras(folder / f"cameras{suffix}")
    images = read_images(folder / f"images{suffix}")
    points = np.zeros((0, 3)), np.zeros((0, 3), np.uint8)
    if (folder / f"points3D{suffix}").exists():
        points = read_points(folder / f"points3D{suffix}")
    return ColmapModel(cameras, images, *points)


def _suffix(folder: Path) -> str | None:
    """.bin or .txt, as which the folder holds cameras and images."""
    for suffix in (".bin", ".txt"):
        if all((folder / f"{file}{suffix}").is_file() for file in ("cameras", "images")):
            return suffix
    return None


class _Records:
    """A binary file's records, from the first byte to the last."""

    def __init__(self, path: Path):
        require_file(path, MAX_BYTES)
        self.path = path
        self.data = path.read_bytes()
        self.position = 0

    def take(self, layout: struct.Struct) -> tuple:
        start = self.position
        self.skip(1, layout.size)
        return layout.unpack_from(self.data, start)

    def skip(self, count: int, size: int) -> None:
        self.position += count * size
        if self.position > len(self.data):
            raise InputError(
                f"{self.path}: is damaged or cut off: a record reaches beyond the file's end"
            )

    def count(self, smallest: int) -> int:
        """How many records follow, of at least `smallest` bytes each."""
        (count,) = self.take(COUNT)
        if count * smallest > len(self.data) - self.position:
            raise InputError(
                f"{self.path}: is damaged or cut off: it claims {count} records, more than it can "
                "hold"
            )
        return count

    def name(self) -> str:
        end = self.data.find(b"\0", self.position)
        if end < 0:
            raise InputError(f"{self.path}: is damaged or cut off: a name has no end")
        name = os.fsdecode(self.data[self.position : end])
        self.position = end + 1
        return name

    def finish(self) -> None:
        if self.position != len(self.data):
            raise InputError(
                f"{self.path}: is damaged: {len(self.data) - self.position} bytes follow the last "
                "record"
            )


def _binary_cameras(path: Path) -> dict[int, pycolmap.Camera]:
    records = _Records(path)
    cameras = {}
    for _ in range(records.count(CAMERA.size)):
        camera_id, model_id, width, height = records.take(CAMERA)
        if model_id not in CAMERA_MODELS:
            raise InputError(f"{path}: is damaged: no camera model has the number {model_id}")
        model = CAMERA_MODELS[model_id].name
        params = [records.take(PARAMETER)[0] for _ in range(parameter_count(model))]
        subject = _new_camera(path, cameras, camera_id)
        cameras[camera_id] = plausible_camera(subject, model, width, height, params)
    records.finish()
    return cameras


def _binary_images(path: Path) -> list[ImageRecord]:
    records = _Records(path)
    images = []
    for _ in range(records.count(MIN_IMAGE_BYTES)):
        _, *pose, camera_id = records.take(IMAGE)
        images.append(ImageRecord(records.name(), camera_id, tuple(pose[:4]), tuple(pose[4:])))
        records.skip(records.count(OBSERVATION_BYTES), OBSERVATION_BYTES)
    records.finish()
    return images


def _binary_points(
    path: Path,
) -> tuple[Float[np.ndarray, "points 3"], UInt8[np.ndarray, "points 3"]]:
    records = _Records(path)
    count = records.count(POINT.size)
    points = np.empty((count, 3))
    colors = np.empty((count, 3), np.uint8)
    for index in range(count):
        _, x, y, z, red, green, blue, _, track = records.take(POINT)
        points[index] = x, y, z
        colors[index] = red, green, blue
        records.skip(track, TRACK_BYTES)
    records.finish()
    return usable_points(points, colors)


def _text_cameras(path: Path) -> dict[int, pycolmap.Camera]:
    cameras = {}
    for line in _lines(path):
        with line.reading("a camera: ID, MODEL, WIDTH, HEIGHT, PARAMS"):
            camera_id, model, width, height, *params = line.text.split()
            model = pycolmap.CameraModelId.__members__[model].name
            size = int(width), int(height)
            subject = _new_camera(path, cameras, int(camera_id))
            cameras[int(camera_id)] = plausible_camera(
                subject, model, *size, [float(word) for word in params]
            )
    return cameras


def _text_images(path: Path) -> list[ImageRecord]:
    """Two lines for each image; the second holds its observations, perhaps none."""
    images = []
    lines = _lines(path, with_empty=True)
    for line in lines:
        if not line.is_empty():
            with line.reading("an image: ID, QW, QX, QY, QZ, TX, TY, TZ, CAMERA_ID, NAME"):
                _, w, x, y, z, *translation, camera_id, name = line.text.split(maxsplit=9)
                if len(translation) != 3:
                    raise ValueError
                images.append(
                    ImageRecord(
                        name.rstrip(),
                        int(camera_id),
                        tuple(map(float, (w, x, y, z))),
                        tuple(map(float, translation)),
                    )
                )
            observations = next(lines, None)
            if observations is not None and observations.is_image():
                raise InputError(
                    f"{path}:{observations.number}: is an image where the observations of "
                    f"{images[-1].name} are expected, a line that may be empty but must be there"
                )
    return images


def _text_points(path: Path) -> tuple[Float[np.ndarray, "points 3"], UInt8[np.ndarray, "points 3"]]:
    points = []
    colors = []
    for line in _lines(path):
        with line.reading("a point: ID, X, Y, Z, R, G, B, ERROR, TRACK"):
            _, x, y, z, red, green, blue, _ = line.text.split(maxsplit=8)[:8]
            points.append((float(x), float(y), float(z)))
            colors.append(bytes([int(red), int(green), int(blue)]))
    return usable_points(
        np.array(points).reshape(-1, 3), np.frombuffer(b"".join(colors), np.uint8).reshape(-1, 3)
    )


@dataclass(frozen=True)
class _Line:
    path: Path
    number: int
    text: str

    def is_empty(self) -> bool:
        return not self.text.strip() or self.text.lstrip().startswith("#")

    def is_image(self) -> bool:
        """Whether the line reads as an image, not as its observations, which are three numbers
        each."""
        words = self.text.split()
        return len(words) >= 10 and (len(words) % 3 > 0 or not _are_numbers(words[9:]))

    @contextmanager
    def reading(self, wanted: str) -> Iterator[None]:
        """Whatever cannot be converted in the block becomes an InputError that names the line."""
        try:
            yield
        except (ValueError, KeyError, OverflowError):
            raise InputError(f"{self.path}:{self.number}: is not {wanted}") from None


def _lines(path: Path, with_empty: bool = False) -> Iterator[_Line]:
    """The lines of a text file; `with_empty`, also the empty ones and the comments."""
    require_file(path, MAX_BYTES)
    with open(path, encoding="utf-8-sig", errors="surrogateescape") as file:
        for number, text in enumerate(file, start=1):
            line = _Line(path, number, text)
            if with_empty or not line.is_empty():
                yield line


def _new_camera(path: Path, cameras: dict[int, pycolmap.Camera], camera_id: int) -> str:
    """What names the camera in messages. Raises InputError if it is there already."""
    subject = f"{path}: camera {camera_id}"
    if camera_id in cameras:
        raise InputError(f"{subject} is there twice")
    return subject


def _are_numbers(words: list[str]) -> bool:
    try:
        return all(math.isfinite(float(word)) for word in words)
    except ValueError:
        return False
