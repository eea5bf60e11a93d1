"""A scene folder's files: images, poses, intrinsics (`geometry.intrinsics`), read and written
(docs/design.md, section 7).

The layout is the original DeepVoxels release's. Poses are camera-to-world 4x4 matrices with OpenCV
axes (x right, y down, z forward); images are RGB. Bad input raises `InputError` with one line that
names the file.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float, Float32, Int, UInt8, UInt16

from files.images import MAX_IMAGE_BYTES, decode_rgb, decode_rgba
from files.untrusted import MAX_NUMBER, parse_numbers, reading
from geometry.intrinsics import (  # noqa: F401  all of it belongs to a scene folder's files
    DEFAULT_NEAR_PLANE,
    SceneIntrinsics,
    center_square,
    load_intrinsics,
    same_aspect_ratio,
    write_intrinsics,
)
from machine.progress import Progress
from util import InputError, new_file, read_text, write_text

IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg"}
BACKGROUNDS = {"white": 255, "black": 0}
# Pixels at the image border, where padding shows, are left out of losses, metrics and written
# frames
BORDER = 5
# Largest entry of R R^T - 1 up to which a pose's R is a rotation, and taken as it is
MAX_ROTATION_ERROR = 1e-3
# The same of a rotation that was rounded, for which the nearest one is taken
MAX_ROUNDED_ERROR = 1e-2


@dataclass(frozen=True)
class SceneFolder:
    """The content of a scene folder, its images as files. names: the pose files' stems. images: one
    for each pose, None if only poses were asked for. cam2world: OpenCV axes, world units."""

    names: list[str]
    cam2world: Float[np.ndarray, "views 4 4"]
    images: list[Path] | None
    intrinsics: SceneIntrinsics


def read_views(root: Path, sampling_pattern: str = "all", with_images: bool = True) -> SceneFolder:
    """Reads `root/intrinsics.txt`, `root/pose` and, unless `with_images` is false, the list of
    images in `root/rgb`; of the views those that the sampling pattern selects.

    Raises `InputError`, naming the file, if a file is missing or wrong or does not match the
    others.
    """
    if not root.is_dir():
        raise InputError(f"{root}: no such folder")
    intrinsics = load_intrinsics(root / "intrinsics.txt")
    poses = list_poses(root / "pose")
    images = None
    if with_images:
        images = pair_views(root, list_images(root / "rgb"), poses)
    selected = sampled_views(len(poses), sampling_pattern)
    cam2world = intrinsics.to_cam2world(np.stack([load_pose(poses[view]) for view in selected]))
    if images is not None:
        images = [images[view] for view in selected]
    return SceneFolder([poses[view].stem for view in selected], cam2world, images, intrinsics)


def pair_views(
    root: Path, files: list[Path], poses: list[Path], folder: str = "rgb", noun: str = "image"
) -> list[Path]:
    """The file of each pose of the scene folder `root`, such as its image: of the same name, else
    of the same last number, else of the same numbers, else in the order of their numbers or, where
    a name has none, of their names.

    folder, noun: where the files are and what one is called after "an", for messages. Raises
    `InputError` if the counts differ, or if some names or numbers agree but not all: then a file is
    not that of its pose.
    """
    if len(files) != len(poses):
        raise InputError(
            f"{root}: {folder} holds {len(files)} {noun}s, pose holds {len(poses)} poses; "
            "they pair by name or by sorted order, so the numbers must agree"
        )
    keys = (lambda path: path.stem, _last_number, _numbers)
    by_key = [(_unique(files, key), _unique(poses, key)) for key in keys]
    for file_of, pose_of in by_key:  # all agree
        if file_of and file_of.keys() == pose_of.keys():
            file_of_pose = {pose: file_of[key] for key, pose in pose_of.items()}
            return [file_of_pose[pose] for pose in poses]
    for file_of, pose_of in by_key:  # some agree
        shared = file_of.keys() & pose_of.keys()
        if shared:
            lonely = next(pose for key, pose in pose_of.items() if key not in file_of)
            raise InputError(
                f"{root}: {len(shared)} of {len(poses)} poses have an {noun} of their name or "
                f"number, {lonely.name} has none; give an {noun} and its pose the same name"
            )
    if all(_numbers(path) for path in (*files, *poses)):  # none agrees
        in_order = sorted(poses, key=_numbers)
        file_of = dict(zip(in_order, sorted(files, key=_numbers), strict=True))
        return [file_of[pose] for pose in poses]
    return files


def _unique(paths: list[Path], key: Callable[[Path], object]) -> dict:
    """The paths by their keys; empty unless each has a key of its own."""
    by_key = {key(path): path for path in paths}
    if None in by_key or len(by_key) < len(paths):
        return {}
    return by_key


def _numbers(path: Path) -> tuple[int, ...] | None:
    """The numbers in a file's name without suffix; None if it has none."""
    return tuple(int(digits[:100]) for digits in re.findall(r"[0-9]+", path.stem)) or None


def _last_number(path: Path) -> int | None:
    numbers = _numbers(path)
    return numbers[-1] if numbers else None


def sampled_views(count: int, sampling_pattern: str) -> range:
    """The indices that a `--sampling_pattern` selects from `count` views: all, or with skip_N every
    (N+1)th."""
    if sampling_pattern == "all":
        return range(count)
    word, _, number = sampling_pattern.partition("_")
    if word != "skip" or not number.isascii() or not number.isdigit() or len(number) > 6:
        raise InputError(
            f"--sampling_pattern {sampling_pattern}: is unknown; choose 'all' or 'skip_N', such as "
            "skip_1"
        )
    return range(0, count, int(number) + 1)


def scene_parts(folder: Path) -> list[Path]:
    """The scene folders of a scene: `folder` itself if it has pose/, else its subfolders with
    pose/, train first."""
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    if (folder / "pose").is_dir():
        return [folder]
    parts = sorted(
        (part for part in folder.iterdir() if (part / "pose").is_dir()),
        key=lambda part: (part.name != "train", part.name),
    )
    if not parts:
        raise InputError(
            f"{folder}: holds no scene: neither pose/ nor a folder with pose/, such as train/"
        )
    return parts


def view_name(index: int) -> str:
    """The name of a view's files without suffix; names sort in the order of the views."""
    return f"{index:06d}"


def write_scene_folder(
    folder: Path,
    intrinsics: SceneIntrinsics,
    cam2world: Float[np.ndarray, "views 4 4"],
    images: Iterable[UInt8[np.ndarray, "h w channels"]] | None = None,
) -> None:
    """Writes poses, intrinsics and, if given, one image per pose, in the same order."""
    write_poses(folder, cam2world)
    write_intrinsics(folder / "intrinsics.txt", intrinsics)
    if images is not None:
        (folder / "rgb").mkdir()
        for index, image in enumerate(
            Progress(images, desc=folder.name, total=len(cam2world), unit="image")
        ):
            write_image(folder / "rgb" / f"{view_name(index)}.png", image)


# Poses


def list_poses(folder: Path) -> list[Path]:
    """The pose files of a folder, sorted by name; at least one."""
    paths = sorted(path for path in _visible_files(folder) if path.suffix.lower() == ".txt")
    if not paths:
        raise InputError(f"{folder}: holds no pose files (*.txt)")
    return paths


def load_pose(path: Path) -> Float[np.ndarray, "4 4"]:
    """Reads one pose: 16 numbers on one line or 4 lines of 4, a rigid transform. A rotation that is
    off by rounding becomes the nearest one."""
    return nearest_rigid(_read_matrix(path), f"{path}:")


def rounded_poses(paths: list[Path]) -> str | None:
    """A line that names the poses whose rotation is off by rounding; None if there are none."""
    rounded = [path.name for path in paths if is_off_by_rounding(_read_matrix(path))]
    if not rounded:
        return None
    return (
        f"{len(rounded)} of {len(paths)} rotations are off by rounding, the first of {rounded[0]}; "
        "the nearest rotations are taken"
    )


def _read_matrix(path: Path) -> Float[np.ndarray, "4 4"]:
    values = []
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        values += parse_numbers(path, number, line)
    if len(values) != 16:
        raise InputError(f"{path}: holds {len(values)} numbers, a pose is 16 (a 4x4 matrix)")
    return np.array(values).reshape(4, 4)


def require_rigid(pose: Float[np.ndarray, "4 4"], subject: str) -> None:
    """Raises `InputError` unless the matrix is a finite rotation and translation. `subject` opens
    the message."""
    rotation = pose[:3, :3]
    if not (np.abs(pose) <= MAX_NUMBER).all():
        reason = "it holds numbers that are not finite in float32"
    elif not np.allclose(pose[3], [0, 0, 0, 1], atol=1e-4):
        reason = f"its last row is {pose[3].tolist()}, not 0 0 0 1"
    elif not np.allclose(rotation @ rotation.T, np.eye(3), atol=MAX_ROTATION_ERROR):
        reason = "its upper left 3x3 is not a rotation"
    elif np.linalg.det(rotation) < 0:
        reason = "it is mirrored (its upper left 3x3 has the determinant -1): one axis is negated"
    else:
        return
    raise InputError(f"{subject} is not a rigid transform: {reason}")


def is_off_by_rounding(pose: Float[np.ndarray, "4 4"]) -> bool:
    """Whether the pose's rotation was rounded, to three decimals or so: too much to be taken as it
    is, too little to be wrong."""
    rotation = pose[:3, :3]
    error = np.abs(rotation @ rotation.T - np.eye(3)).max()
    return bool(MAX_ROTATION_ERROR < error < MAX_ROUNDED_ERROR)


def nearest_rigid(pose: Float[np.ndarray, "4 4"], subject: str) -> Float[np.ndarray, "4 4"]:
    """The pose, with the nearest rotation in place of one that is off by rounding. Raises
    `InputError` as `require_rigid`."""
    if is_off_by_rounding(pose):
        left, _, right = np.linalg.svd(pose[:3, :3])
        pose = pose.copy()
        pose[:3, :3] = left @ right
    require_rigid(pose, subject)
    return pose


def write_poses(folder: Path, cam2world: Float[np.ndarray, "views 4 4"]) -> None:
    """Writes `folder/pose/000000.txt` and so on."""
    (folder / "pose").mkdir(parents=True, exist_ok=True)
    for index, pose in enumerate(cam2world):
        write_pose(folder / "pose" / f"{view_name(index)}.txt", pose)


def write_pose(path: Path, pose: Float[np.ndarray, "4 4"]) -> None:
    """Writes 16 numbers on one line that read back to the same floats."""
    # Adding 0 turns a negative zero into 0.
    write_text(path, " ".join(repr(float(value) + 0.0) for value in pose.reshape(-1)) + "\n")


def nearest_views(
    cam2world: Float[np.ndarray, "views 4 4"],
    reference: Float[np.ndarray, "references 4 4"],
    count: int,
) -> Int[np.ndarray, "views count"]:
    """For each view the `count` references nearest in viewing direction, the nearest first (paper,
    section 3.1).

    Ties keep the order of the references, so that the result does not depend on the platform.
    """
    cosines = cam2world[:, :3, 2] @ reference[:, :3, 2].T
    return np.argsort(-np.round(cosines, 9), axis=1, kind="stable")[:, :count]


# Images


def list_images(folder: Path) -> list[Path]:
    """The images of a folder, sorted by name: the order in which they pair with poses."""
    return sorted(path for path in _visible_files(folder) if path.suffix.lower() in IMAGE_SUFFIXES)


def list_depth_maps(folder: Path) -> list[Path]:
    """The files of true depth, `.npz`, of a folder, sorted by name; none where there is no such
    folder."""
    if not folder.is_dir():
        return []
    return sorted(path for path in _visible_files(folder) if path.suffix.lower() == ".npz")


def load_image(path: Path, background: str = "white") -> UInt8[np.ndarray, "h w 3"]:
    """Reads an 8 or 16 bit PNG or JPEG as 8 bit RGB; transparent pixels are composed over
    `background`."""
    with reading(path, "a readable image", MAX_IMAGE_BYTES):
        return decode_rgb(path, BACKGROUNDS[background])


def load_rgba(path: Path) -> UInt8[np.ndarray, "h w 4"]:
    """Reads an 8 or 16 bit PNG or JPEG as 8 bit RGB and alpha, 255 where it is opaque."""
    with reading(path, "a readable image", MAX_IMAGE_BYTES):
        return decode_rgba(path)


def write_image(
    path: Path, image: UInt8[np.ndarray, "h w c"] | UInt16[np.ndarray, "h w *c"]
) -> None:
    """Writes an image, RGB, RGBA or gray, as PNG, whole or not at all."""
    encoded = encode_png(image)
    with new_file(path) as file:
        file.write(encoded)


def encode_png(image: UInt8[np.ndarray, "h w *c"] | UInt16[np.ndarray, "h w *c"]) -> memoryview:
    """The bytes of a PNG of an image, RGB, RGBA or gray."""
    if image.ndim == 3:
        image = cv2.cvtColor(
            image, cv2.COLOR_RGBA2BGRA if image.shape[2] == 4 else cv2.COLOR_RGB2BGR
        )
    _, encoded = cv2.imencode(".png", image)
    return encoded.data


def square_resize(
    image: UInt8[np.ndarray, "h w *c"] | Float32[np.ndarray, "h w *c"],
    sidelength: int,
) -> UInt8[np.ndarray, "s s *c"] | Float32[np.ndarray, "s s *c"]:
    """Center-crops to a square and scales to `sidelength`, shrinking by area averaging (paper,
    section 4)."""
    top, left, side = center_square(*image.shape[:2])
    image = image[top : top + side, left : left + side]
    if side == sidelength:
        return np.ascontiguousarray(image)
    interpolation = cv2.INTER_AREA if sidelength < side else cv2.INTER_LINEAR
    return cv2.resize(image, (sidelength, sidelength), interpolation=interpolation)


def crop_border(images, channels_last: bool = False):
    """Images (..., height, width), or (..., height, width, channels), tensor or array, without
    their outermost `BORDER` pixels, which training never sees."""
    inner = slice(BORDER, -BORDER)
    return images[..., inner, inner, :] if channels_last else images[..., inner, inner]


def color_depth(
    depth: Float[np.ndarray, "*b h w"], nearest: float, farthest: float
) -> UInt8[np.ndarray, "*b h w 3"]:
    """Depth as RGB colors: yellow at `nearest`, dark blue at `farthest` and beyond."""
    closeness = np.clip((farthest - depth) / max(farthest - nearest, 1e-12), 0, 1)
    levels = np.round(255 * closeness).astype(np.uint8)
    palette = cv2.applyColorMap(np.arange(256, dtype=np.uint8)[:, None], cv2.COLORMAP_VIRIDIS)[
        :, 0, ::-1
    ]
    return palette[levels]


def _visible_files(folder: Path) -> list[Path]:
    """What lies in a folder, without hidden files, such as macOS's `._NAME`."""
    if not folder.exists():
        raise InputError(f"{folder}: no such folder")
    if not folder.is_dir():
        raise InputError(f"{folder}: is not a folder")
    return [path for path in folder.iterdir() if not path.name.startswith(".")]
