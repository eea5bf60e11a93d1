"""Imports a scene of the NeRF-synthetic dataset (Mildenhall et al. 2020), or one laid out like it.

    python -m scenes.nerf_synthetic data/nerf_synthetic/lego data/lego --sidelength 64

SRC holds `transforms_train.json`, `transforms_test.json` and perhaps `transforms_val.json`;
DST/train, DST/test and DST/validation become scene folders. Alpha is composed over white, images
are shrunk by area averaging, and views are numbered in the natural order of their file names (r_2
before r_10), so that the test cameras stay a smooth path. Images that are not square, distorted or
off center (BlenderNeRF, TensoRF) are undistorted to one pinhole camera and keep their alpha, as do
those of a scene with masks or sparse points. A scene that is not about the origin is one for
`scenes.transforms_json`, which chooses the grid.
"""

from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from data_util import SceneIntrinsics, load_image, square_resize, write_scene_folder
from files.folders import new_folder
from geometry.cameras import near_plane
from geometry.grid import GivenGrid
from machine.cli import Parser, number, run
from scenes.capture.listing import warn, warn_of_enlarging, warn_of_leaks, warnings_last
from scenes.capture.options import CaptureOptions, require_pycolmap
from scenes.capture.transforms import ListedFrame, TransformsContent, read_splits
from util import InputError, write_json

PROG = "scenes.nerf_synthetic"
SHOWN_NAMES = {"train": "training", "validation": "validation", "test": "test"}
EXTENT = 2.6  # sidelength of a grid about the origin that holds the dataset's objects


def main(argv: Sequence[str] | None = None) -> None:
    args = _parse(argv)
    with warnings_last():
        report = _import(args)
    print(f"{args.target}: {report}")


def _import(args: Namespace) -> str:
    """Makes the scene; returns what it holds."""
    content = _read(args.source)
    distance = args.radius or _nearest_camera(content)
    measured = "--radius" if args.radius else "the nearest camera's distance"
    why = {
        "origin": "the world's, as in the dataset",
        "scale": "--extent",
        "near_plane": f"{measured}, {distance:.4g}, less half the grid's diagonal",
    }
    grid = GivenGrid(np.zeros(3), args.extent, near_plane(distance, args.extent), why)
    splits = {
        split: [content.frames[view] for view in views] for split, views in content.splits.items()
    }
    is_cut_out = any(frame.mask is not None for frame in content.frames)
    if content.points is None and not is_cut_out and all(map(_is_plain, splits.values())):
        with new_folder(args.target) as folder:
            _write_plain(folder, splits, grid, args.sidelength)
        counts = " and ".join(
            f"{len(splits.get(split, []))} {name}"
            for split, name in SHOWN_NAMES.items()
            if split in splits or split == "test"
        )
        return (
            f"{counts} views, grid of sidelength {args.extent:g} about the origin, "
            f"near plane {grid.near_plane:.4f}"
        )
    return _import_capture(content, args.source, args.target, grid, args.sidelength)


def _parse(argv: Sequence[str] | None) -> Namespace:
    parser = Parser(PROG, __doc__)
    parser.add_argument(
        "source",
        type=Path,
        metavar="SRC",
        help="folder with transforms_train.json, _test.json, _val.json",
    )
    parser.add_argument(
        "target", type=Path, metavar="DST", help="the scene to make: DST/train and DST/test"
    )
    parser.add_argument(
        "--sidelength", type=number(int, 1), help="image size in pixels (default: unchanged)"
    )
    parser.add_argument(
        "--radius",
        type=number(float, above=0),
        help="distance of the cameras from the origin (default: the nearest camera's)",
    )
    parser.add_argument(
        "--extent",
        type=number(float, above=0),
        default=EXTENT,
        help="sidelength of the grid in world units (default: %(default)s)",
    )
    return parser.parse_args(argv)


def _read(source: Path) -> TransformsContent:
    """What the files of all splits say. Validation views that cannot be read, such as those of a
    copy without their images, are left out with a warning: a scene needs none."""
    try:
        with warnings_last():
            return read_splits(source)
    except InputError as error:
        content = read_splits(source, ("train", "test"))  # raises the error again if it is theirs
        warn(f"{error}; validation views are left out")
        return content


def _nearest_camera(content: TransformsContent) -> float:
    """The smallest distance of a camera from the origin. Validation views do not decide: the grid
    is the same with and without them."""
    views = [*content.splits["train"], *content.splits.get("test", [])]
    centers = np.stack([content.frames[view].cam2world[:3, 3] for view in views])
    return float(np.linalg.norm(centers, axis=1).min())


def _is_plain(frames: list[ListedFrame]) -> bool:
    """Whether all cameras are one as the dataset's: square, centered, without distortion."""
    cameras = [frame.camera for frame in frames]
    first = cameras[0]
    middle = first.width / 2
    return (
        len(set(cameras)) == 1
        and first.width == first.height
        and (first.center_x, first.center_y) == (middle, middle)
        and abs(first.focal_x - first.focal_y) <= 1e-4 * first.focal_x
        and not any(first.distortion)
    )


def _write_plain(
    folder: Path,
    splits: dict[str, list[ListedFrame]],
    grid: GivenGrid,
    sidelength: int | None,
) -> None:
    """Writes the views of a plain camera, as they are or shrunk."""
    warn_of_enlarging(sidelength, splits["train"][0].camera.width)
    for split, frames in splits.items():
        camera = frames[0].camera
        size = sidelength or min(load_image(frames[0].image).shape[:2])
        intrinsics = SceneIntrinsics(
            camera.focal_x / camera.width * size,
            size / 2,
            size / 2,
            (0.0, 0.0, 0.0),
            grid.near_plane,
            grid.scale,
            size,
            size,
        )
        write_scene_folder(
            folder / split,
            intrinsics,
            np.stack([frame.cam2world for frame in frames]),
            (square_resize(_load_square(frame.image), size) for frame in frames),
        )
    write_json(
        folder / "scene.json",
        {
            "source": "NeRF-synthetic",
            "origin": [0.0, 0.0, 0.0],
            "scale": grid.scale,
            "near_plane": grid.near_plane,
        },
    )
    warn_of_leaks(
        *(
            [(frame.name, frame.image) for frame in splits.get(split, [])]
            for split in ("train", "test")
        )
    )


def _load_square(path: Path) -> np.ndarray:
    image = load_image(path)
    if image.shape[0] != image.shape[1]:
        raise InputError(
            f"{path}: is {image.shape[1]}x{image.shape[0]} pixels, not square as its camera is"
        )
    return image


def _import_capture(
    content: TransformsContent,
    source: Path,
    target: Path,
    grid: GivenGrid,
    sidelength: int | None,
) -> str:
    """Imports views of any cameras; returns what was chosen."""
    require_pycolmap()
    # here, because they import pycolmap
    from scenes.capture.capture import import_capture
    from scenes.capture.transforms_capture import transforms_capture

    capture = transforms_capture(content, source)
    options = CaptureOptions(None, 0, sidelength, "none", grid)
    return import_capture(capture, None, target, options, f"NeRF-synthetic {source}")


if __name__ == "__main__":
    run(PROG, main)
