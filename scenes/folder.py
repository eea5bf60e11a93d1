"""Writing scene folders: `rgb/`, `pose/` and `intrinsics.txt`, complete or not there at all.

The layout is the original DeepVoxels release's, so that its readers, and those of later projects, read ours. Reading is
in `data_util`.
"""
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float, UInt8
from tqdm import tqdm

from data_util import SceneIntrinsics
from util import InputError


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """A temporary folder beside `target` that becomes `target` when the block ends well, and vanishes otherwise."""
    refuse_existing(target)
    partial = target.absolute().with_name(f".{target.absolute().name}.{os.getpid()}.partial")
    partial.mkdir(parents=True)
    try:
        yield partial
        finish_folder(partial, target)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def refuse_existing(target: Path) -> None:
    """Raises unless `target` is absent or an empty folder."""
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise InputError(f"{target}: exists already; delete it or name another folder")


def finish_folder(partial: Path, target: Path) -> None:
    """Gives the finished folder its name."""
    refuse_existing(target)
    if target.exists():
        target.rmdir()
    partial.rename(target)


def view_name(index: int) -> str:
    """The name of a view's files without suffix; names sort in the order of the views."""
    return f"{index:06d}"


def natural_order(name: str) -> list[int | str]:
    """A sorting key by which numbers in names compare as numbers: r_2 before r_10."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name)]


def write_split(folder: Path, intrinsics: SceneIntrinsics, cam2world: Float[np.ndarray, "views 4 4"],
                images: Iterable[UInt8[np.ndarray, "h w 3"]] | None = None) -> None:
    """Writes one scene folder: poses, intrinsics and, where given, the images, one per pose and in their order."""
    write_poses(folder, cam2world)
    write_intrinsics(folder / "intrinsics.txt", intrinsics)
    if images is not None:
        (folder / "rgb").mkdir()
        for index, image in enumerate(tqdm(images, desc=folder.name, total=len(cam2world), unit="image")):
            write_image(folder / "rgb" / f"{view_name(index)}.png", image)


def write_poses(folder: Path, cam2world: Float[np.ndarray, "views 4 4"]) -> None:
    """Writes `folder/pose/000000.txt` and so on."""
    (folder / "pose").mkdir(parents=True, exist_ok=True)
    for index, pose in enumerate(cam2world):
        write_pose(folder / "pose" / f"{view_name(index)}.txt", pose)


def write_pose(path: Path, cam2world: Float[np.ndarray, "4 4"]) -> None:
    """Writes a camera-to-world matrix (OpenCV axes) as 16 numbers on one line that read back to the same floats."""
    # Adding 0 turns a negative zero into 0.
    path.write_text(" ".join(repr(float(value) + 0.0) for value in cam2world.reshape(-1)) + "\n")


def write_intrinsics(path: Path, intrinsics: SceneIntrinsics) -> None:
    """Writes the five lines: `f cx cy 0`, the grid's origin, near plane, scale, `height width`.

    The fourth number of the first line is what the original's later readers expect. There is no sixth line: the poses
    are camera-to-world.
    """
    rows = [(intrinsics.focal, intrinsics.cx, intrinsics.cy, 0.0), intrinsics.grid_origin, (intrinsics.near_plane,),
            (intrinsics.scale,), (int(intrinsics.height), int(intrinsics.width))]
    lines = [" ".join(str(value) if isinstance(value, int) else repr(float(value)) for value in row) for row in rows]
    path.write_text("\n".join(lines) + "\n")


def write_image(path: Path, image: UInt8[np.ndarray, "h w 3"]) -> None:
    """Writes an RGB image as PNG. A file that exists is whole: it is renamed into place."""
    _, encoded = cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    temporary = path.with_suffix(".tmp")
    temporary.write_bytes(encoded.tobytes())
    temporary.replace(path)


def write_json(path: Path, content: dict) -> None:
    """Writes what was chosen, and why, for people and programs to read."""
    path.write_text(json.dumps(content, indent=2) + "\n")
