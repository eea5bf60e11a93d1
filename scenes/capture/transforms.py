"""The frames of a `transforms.json` (NeRF-synthetic, instant-ngp, nerfstudio): images, poses, and
all else as it is."""

import json
from collections import ChainMap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from data_util import require_rigid
from files.untrusted import inside
from geometry.cameras import opengl2opencv
from scenes.capture.listing import natural_order, require_files
from util import InputError, read_text

MAX_BYTES = 1 << 25


@dataclass(frozen=True)
class ListedFrame:
    """values: the frame's entries over those that all frames share. cam2world: OpenCV axes."""

    name: str
    image: Path
    cam2world: Float[np.ndarray, "4 4"]
    values: Mapping


def read_frames(path: Path) -> tuple[dict, list[ListedFrame]]:
    """The file's content, and its frames in the natural order of their file names; at least one.

    Checks that every image exists, is listed once and lies in the file's folder, and that every
    pose is rigid. Raises InputError with what is wrong.
    """
    try:
        content = json.loads(read_text(path, MAX_BYTES))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: is not JSON ({error})") from None
    entries = content.get("frames") if isinstance(content, dict) else None
    if not isinstance(entries, list) or not entries:
        raise InputError(f"{path}: has no frames")
    for number, entry in enumerate(entries):
        if (
            not isinstance(entry, dict)
            or not isinstance(entry.get("file_path"), str)
            or not entry["file_path"]
        ):
            raise InputError(f"{path}: frame {number} has no file_path")
    frames = [
        ListedFrame(
            entry["file_path"],
            _image_path(path, entry["file_path"]),
            _pose(entry, path),
            ChainMap(entry, content),
        )
        for entry in entries
    ]
    require_files([frame.image for frame in frames], path)
    first = {}
    for number, frame in enumerate(frames):
        if first.setdefault(frame.image, number) != number:
            raise InputError(
                f"{path}: frames {first[frame.image]} and {number} are both {frame.name}"
            )
    return content, sorted(frames, key=lambda frame: natural_order(frame.name))


def _image_path(transforms: Path, name: str) -> Path:
    """A name without an extension means PNG."""
    path = inside(transforms.parent, name, named_by=transforms)
    return path if path.suffix else Path(f"{path}.png")


def _pose(entry: dict, path: Path) -> Float[np.ndarray, "4 4"]:
    """The frame's pose; the file holds 4x4 or 3x4 camera-to-world matrices with OpenGL axes."""
    subject = f"{path}: the transform_matrix of {entry['file_path']}"
    try:
        pose = np.array(entry["transform_matrix"], dtype=np.float64)
    except (KeyError, TypeError, ValueError, OverflowError):
        pose = np.zeros(0)
    if pose.shape == (3, 4):
        pose = np.vstack([pose, [0, 0, 0, 1]])
    if pose.shape != (4, 4):
        raise InputError(f"{subject} is not 4x4 numbers")
    require_rigid(pose, subject)
    return opengl2opencv(pose)
