"""What a `transforms.json` says (NeRF-synthetic, instant-ngp, nerfstudio, BlenderNeRF, TensoRF):
images, masks, poses, intrinsics, splits.

    content = read_transforms_file(Path("transforms.json"))
    content = read_splits(folder)  # of transforms_train.json and its like

Whatever stands in the file is used, or a warning names the field.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from data_util import is_off_by_rounding, nearest_rigid
from files.untrusted import inside
from geometry.cameras import opengl2opencv
from scenes.capture.listing import (
    ImageFinder,
    natural_order,
    warn,
    warn_of_missing,
    warn_of_rounded,
)
from scenes.capture.transforms_camera import Fields, FrameCamera, frame_camera
from util import InputError, read_json

MAX_BYTES = 1 << 25
SPLIT_FIELDS = {
    "train": "train_filenames",
    "validation": "val_filenames",
    "test": "test_filenames",
}
# NeRF-synthetic's: how far its script turned the camera after a frame. The matrices hold that.
STEP_OF_TURNTABLE = "rotation"
SPLIT_FILES = {
    "train": ("transforms_train.json",),
    "validation": ("transforms_val.json", "transforms_validation.json"),
    "test": ("transforms_test.json",),
}


@dataclass(frozen=True)
class ListedFrame:
    """cam2world: OpenCV axes. rounded: whether the file's rotation was off by rounding. mask: an
    image, white where the object is."""

    name: str
    image: Path
    cam2world: Float[np.ndarray, "4 4"]
    rounded: bool
    camera: FrameCamera
    mask: Path | None


@dataclass(frozen=True)
class TransformsContent:
    """frames: in the natural order of their names. splits: the views of train, validation and test
    as indices of frames; empty if the source names none. points: a PLY file."""

    frames: list[ListedFrame]
    splits: dict[str, list[int]]
    points: Path | None


def read_transforms_file(path: Path) -> TransformsContent:
    """The content of one file. Frames without an image are left out, with a warning.

    Raises InputError with what is wrong: a pose that is not rigid, an image that is listed twice or
    lies outside the file's folder, intrinsics that are not numbers, no frames.
    """
    content, entries = _read_frames(path)
    finder = ImageFinder(path.parent)
    used = {"frames", "ply_file_path", STEP_OF_TURNTABLE, *SPLIT_FIELDS.values()}
    without_part = set()
    frames = []
    missing = []
    for entry in entries:
        fields = Fields(entry, content, used, without_part)
        name = fields["file_path"]
        image = finder.find(name, named_by=path)
        if image is None:
            missing.append(name)
        else:
            frames.append(_frame(fields, image, finder, path))
    warn_of_missing(missing, len(entries), path)
    _require_listed_once(frames, path)
    rounded = [frame.name for frame in frames if frame.rounded]
    warn_of_rounded(rounded, len(frames), path)
    _warn_of_far_centers(frames, path)
    frames.sort(key=lambda frame: natural_order(frame.name))
    _warn_of_unused(path, content, entries, used - without_part)
    points = content.get("ply_file_path") or None
    if points is not None:
        points = inside(path.parent, str(points), named_by=path)
    return TransformsContent(frames, _named_splits(content, frames, finder, path), points)


def read_splits(folder: Path, wanted: Collection[str] = tuple(SPLIT_FILES)) -> TransformsContent:
    """The content of `transforms_train.json` and of the files of other splits beside it, which are
    taken as they are. Raises InputError as `read_transforms_file`."""
    contents = {}
    for split in wanted:
        names = SPLIT_FILES[split]
        path = next((folder / name for name in names if (folder / name).exists()), None)
        if path is None and split == "train":
            raise InputError(f"{folder / names[0]}: no such file")
        if path is not None:
            contents[split] = read_transforms_file(path)
    if _images(contents.get("validation")) == _images(contents.get("test")):
        contents.pop("validation", None)
    frames = []
    splits = {}
    for split, content in contents.items():
        if content.splits:
            warn(
                f"{folder / SPLIT_FILES[split][0]}: its lists of file names are not used; the "
                f"whole file is taken as {split} views"
            )
        splits[split] = list(range(len(frames), len(frames) + len(content.frames)))
        frames += content.frames
    return TransformsContent(frames, _without_copies(splits), contents["train"].points)


def _images(content: TransformsContent | None) -> list[Path]:
    return [frame.image for frame in content.frames] if content else []


def _read_frames(path: Path) -> tuple[dict, list[dict]]:
    """The file's content and its frames, each with a file_path."""
    content = read_json(path, MAX_BYTES)
    entries = content.get("frames") if isinstance(content, dict) else None
    if not isinstance(entries, list) or not entries:
        raise InputError(f"{path}: has no frames")
    for number, entry in enumerate(entries):
        name = entry.get("file_path") if isinstance(entry, dict) else None
        if not isinstance(name, str) or not name:
            raise InputError(f"{path}: frame {number} has no file_path")
    return content, entries


def _frame(fields: Fields, image: Path, finder: ImageFinder, path: Path) -> ListedFrame:
    name = fields["file_path"]
    mask = None
    if listed := fields.get("mask_path"):
        mask = finder.find(str(listed), named_by=path)
        if mask is None:
            raise InputError(f"{path.parent / str(listed)}: no such file; it is the mask of {name}")
    subject = f"{path}: the transform_matrix of {name}"
    matrix = _matrix(fields, subject)
    pose = opengl2opencv(nearest_rigid(matrix, subject))
    camera = frame_camera(fields, image, path)
    return ListedFrame(name, image, pose, is_off_by_rounding(matrix), camera, mask)


def _matrix(fields: Mapping, subject: str) -> Float[np.ndarray, "4 4"]:
    """The frame's matrix; the file holds 4x4 or 3x4 camera-to-world matrices with OpenGL axes."""
    try:
        matrix = np.array(fields["transform_matrix"], dtype=np.float64)
    except (KeyError, TypeError, ValueError, OverflowError):
        matrix = np.zeros(0)
    if matrix.shape == (3, 4):
        matrix = np.vstack([matrix, [0, 0, 0, 1]])
    if matrix.shape != (4, 4):
        raise InputError(f"{subject} is not 4x4 numbers")
    return matrix


def _require_listed_once(frames: list[ListedFrame], path: Path) -> None:
    first = {}
    for number, frame in enumerate(frames):
        if first.setdefault(frame.image, number) != number:
            raise InputError(
                f"{path}: frames {first[frame.image]} and {number} are both {frame.name}"
            )


def _named_splits(
    content: dict, frames: list[ListedFrame], finder: ImageFinder, path: Path
) -> dict[str, list[int]]:
    """The views that train_filenames and its like name, as indices of frames; empty if there are
    none."""
    index_of = {frame.image: index for index, frame in enumerate(frames)}
    splits = {}
    strangers = []
    for split, name in SPLIT_FIELDS.items():
        listed = content.get(name) or []
        if not isinstance(listed, list) or not all(isinstance(entry, str) for entry in listed):
            raise InputError(f"{path}: {name} is not a list of names")
        found = [index_of.get(finder.find(entry, named_by=path)) for entry in listed]
        splits[split] = sorted({index for index in found if index is not None})
        strangers += [entry for entry, index in zip(listed, found, strict=True) if index is None]
    splits = _without_copies(splits)
    if splits and "train" not in splits:
        raise InputError(f"{path}: names no frame in train_filenames that is there")
    if strangers:
        warn(
            f"{path}: {len(strangers)} names in lists of file names are of no frame that is there, "
            f"the first {strangers[0]}"
        )
    left_out = len(frames) - len(set().union(*splits.values()))
    if splits and left_out:
        warn(f"{path}: {left_out} of {len(frames)} frames are in no list of file names; left out")
    return splits


def _without_copies(splits: dict[str, list[int]]) -> dict[str, list[int]]:
    """The splits that have views; validation views are the test views where there are no others."""
    splits = {split: views for split, views in splits.items() if views}
    if "validation" in splits and splits.get("test") in (None, splits["validation"]):
        splits["test"] = splits.pop("validation")
    return splits


def _warn_of_unused(path: Path, content: dict, entries: list[dict], used: set[str]) -> None:
    """One line that names the fields that have no part in the scene."""
    unused = sorted({str(name) for values in (content, *entries) for name in values} - used)
    if unused:
        warn(f"{path}: not used: {', '.join(unused)[:1000]}")


def _warn_of_far_centers(frames: list[ListedFrame], path: Path) -> None:
    """One line about principal points in the outer quarters of their images: a crop, or numbers
    that are no pixels."""
    far = []
    for frame in frames:
        camera = frame.camera
        across = abs(camera.center_x - camera.width / 2)
        down = abs(camera.center_y - camera.height / 2)
        if across > camera.width / 4 or down > camera.height / 4:
            far.append(frame)
    if far:
        camera = far[0].camera
        warn(
            f"{path}: {len(far)} of {len(frames)} principal points are far from the middle of "
            f"their image, the first {camera.center_x:g} {camera.center_y:g} of {far[0].name}, "
            f"{camera.width}x{camera.height}; cx and cy are taken as pixels"
        )
