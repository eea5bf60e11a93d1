"""Imports a scene of the NeRF-synthetic dataset (Mildenhall et al. 2020).

    python -m scenes.nerf_synthetic data/nerf_synthetic/lego data/lego --sidelength 64

SRC holds `transforms_train.json` and `transforms_test.json`; DST/train and DST/test become scene folders. Alpha is
composed over white, images shrink by area averaging, and views are numbered in the natural order of their file names
(r_2 before r_10), so that the test cameras stay the smooth path they are.
"""
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float

from cli import Parser, number, run
from data_util import SceneIntrinsics, load_image, square_resize
from scenes.folder import natural_order, new_folder, write_json, write_split
from scenes.geometry.cameras import is_rigid, near_plane, opengl2opencv
from util import InputError

PROG = "scenes.nerf_synthetic"
EXTENT = 2.6  # the sidelength of a grid about the origin that holds the dataset's objects


def main(argv: Sequence[str] | None = None) -> None:
    args = _parse(argv)
    views = {split: _read_transforms(args.source / f"transforms_{split}.json") for split in ("train", "test")}
    centers = np.concatenate([cam2world[:, :3, 3] for _, _, cam2world in views.values()])
    near = (near_plane(centers, np.zeros(3), args.extent) if args.radius is None
            else near_plane(np.array([[args.radius, 0, 0]]), np.zeros(3), args.extent))
    with new_folder(args.target) as folder:
        for split, (focal_per_width, paths, cam2world) in views.items():
            sidelength = args.sidelength or min(load_image(paths[0]).shape[:2])
            intrinsics = SceneIntrinsics(focal_per_width * sidelength, sidelength / 2, sidelength / 2, (0.0, 0.0, 0.0),
                                         near, args.extent, sidelength, sidelength)
            write_split(folder / split, intrinsics, cam2world,
                        (square_resize(_load_square(path), sidelength) for path in paths))
        write_json(folder / "scene.json", {"source": "NeRF-synthetic", "origin": [0.0, 0.0, 0.0], "scale": args.extent,
                                           "near_plane": near})
    print(f"{args.target}: {len(views['train'][1])} training and {len(views['test'][1])} test views, "
          f"grid of sidelength {args.extent:g} about the origin, near plane {near:.4f}")


def _parse(argv: Sequence[str] | None):
    parser = Parser(PROG, __doc__)
    parser.add_argument("source", type=Path, metavar="SRC", help="folder with transforms_train.json and _test.json")
    parser.add_argument("target", type=Path, metavar="DST", help="the scene to make: DST/train and DST/test")
    parser.add_argument("--sidelength", type=number(int, 1), help="image size in pixels (default: as they are)")
    parser.add_argument("--radius", type=number(float, above=0),
                        help="distance of the cameras from the origin (default: the nearest camera's)")
    parser.add_argument("--extent", type=number(float, above=0), default=EXTENT,
                        help="sidelength of the grid in world units (default: %(default)s)")
    return parser.parse_args(argv)


def _read_transforms(path: Path) -> tuple[float, list[Path], Float[np.ndarray, "views 4 4"]]:
    """The focal length per image width, the image files and the camera-to-world poses (OpenCV axes) of one split."""
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    try:
        content = json.loads(path.read_text())
        frames = sorted(content["frames"], key=lambda frame: natural_order(frame["file_path"]))
        poses = np.array([frame["transform_matrix"] for frame in frames], dtype=np.float64)
        focal_per_width = 0.5 / max(np.tan(0.5 * float(content["camera_angle_x"])), 1e-12)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: is not a NeRF-synthetic file ({type(error).__name__}: {error})") from None
    if not frames:
        raise InputError(f"{path}: has no frames")
    if not 0 < focal_per_width < 1e6:
        raise InputError(f"{path}: camera_angle_x is {content['camera_angle_x']}, not an angle between 0 and pi")
    if poses.shape[1:] != (4, 4):
        raise InputError(f"{path}: holds a transform_matrix that is not 4x4 numbers")
    for frame, pose in zip(frames, poses, strict=True):
        if not is_rigid(pose):
            raise InputError(f"{path}: the transform_matrix of {frame['file_path']} is not a rigid transform")
    files = [path.parent / frame["file_path"] for frame in frames]
    files = [file if file.suffix else file.with_suffix(".png") for file in files]
    for file in files:
        if not file.is_file():
            raise InputError(f"{file}: no such file, though {path} names it")
    return focal_per_width, files, opengl2opencv(poses)


def _load_square(path: Path) -> np.ndarray:
    image = load_image(path)
    if image.shape[0] != image.shape[1]:
        raise InputError(f"{path}: is {image.shape[1]}x{image.shape[0]} pixels, not square as NeRF-synthetic's are")
    return image


if __name__ == "__main__":
    run(PROG, main)
