"""Imports a scene of the NeRF-synthetic dataset (Mildenhall et al. 2020).

    python -m scenes.nerf_synthetic data/nerf_synthetic/lego data/lego --sidelength 64

SRC holds `transforms_train.json` and `transforms_test.json`; DST/train and DST/test become scene
folders. Alpha is composed over white, images are shrunk by area averaging, and views are numbered
in the natural order of their file names (r_2 before r_10), so that the test cameras stay a smooth
path.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from data_util import SceneIntrinsics, load_image, square_resize, write_scene_folder
from files.folders import new_folder
from geometry.cameras import near_plane
from machine.cli import Parser, number, run
from scenes.capture.listing import warn_of_leaks
from scenes.capture.transforms import ListedFrame, read_frames
from util import InputError, write_json

PROG = "scenes.nerf_synthetic"
EXTENT = 2.6  # sidelength of a grid about the origin that holds the dataset's objects


def main(argv: Sequence[str] | None = None) -> None:
    args = _parse(argv)
    splits = {
        split: _read_split(args.source / f"transforms_{split}.json") for split in ("train", "test")
    }
    cam2world = {
        split: np.stack([frame.cam2world for frame in frames])
        for split, (_, frames) in splits.items()
    }
    distance = (
        args.radius
        or np.linalg.norm(np.concatenate(list(cam2world.values()))[:, :3, 3], axis=1).min()
    )
    near = near_plane(distance, args.extent)
    with new_folder(args.target) as folder:
        for split, (focal_per_width, frames) in splits.items():
            sidelength = args.sidelength or min(load_image(frames[0].image).shape[:2])
            intrinsics = SceneIntrinsics(
                focal_per_width * sidelength,
                sidelength / 2,
                sidelength / 2,
                (0.0, 0.0, 0.0),
                near,
                args.extent,
                sidelength,
                sidelength,
            )
            write_scene_folder(
                folder / split,
                intrinsics,
                cam2world[split],
                (square_resize(_load_square(frame.image), sidelength) for frame in frames),
            )
        write_json(
            folder / "scene.json",
            {
                "source": "NeRF-synthetic",
                "origin": [0.0, 0.0, 0.0],
                "scale": args.extent,
                "near_plane": near,
            },
        )
    print(
        f"{args.target}: {len(cam2world['train'])} training and {len(cam2world['test'])} test "
        "views, "
        f"grid of sidelength {args.extent:g} about the origin, near plane {near:.4f}"
    )
    warn_of_leaks(
        *([(frame.name, frame.image) for frame in frames] for _, frames in splits.values())
    )


def _parse(argv: Sequence[str] | None):
    parser = Parser(PROG, __doc__)
    parser.add_argument(
        "source", type=Path, metavar="SRC", help="folder with transforms_train.json and _test.json"
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


def _read_split(path: Path) -> tuple[float, list[ListedFrame]]:
    """The focal length as a multiple of the image's width, and the frames."""
    content, frames = read_frames(path)
    try:
        focal_per_width = 0.5 / max(np.tan(0.5 * float(content["camera_angle_x"])), 1e-12)
    except (KeyError, ValueError, TypeError, OverflowError) as error:
        raise InputError(
            f"{path}: has no usable camera_angle_x ({type(error).__name__}: {error})"
        ) from None
    if not 0 < focal_per_width < 1e6:
        raise InputError(
            f"{path}: camera_angle_x is {content['camera_angle_x']}, not an angle between 0 and pi"
        )
    return focal_per_width, frames


def _load_square(path: Path) -> np.ndarray:
    image = load_image(path)
    if image.shape[0] != image.shape[1]:
        raise InputError(
            f"{path}: is {image.shape[1]}x{image.shape[0]} pixels, not square as NeRF-synthetic's "
            "are"
        )
    return image


if __name__ == "__main__":
    run(PROG, main)
