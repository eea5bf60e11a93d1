"""Copies a scene with noise on its training poses, to measure how sensitive a method is to
calibration errors.

    python -m scenes.noise --scene data/cube --out data/cube_noise2 --degrees 2

Each training camera is rotated about its own center, around an axis drawn uniformly, by an angle
drawn from a normal distribution with standard deviation --degrees. Images and test views stay
unchanged.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float

from data_util import list_poses, load_intrinsics, load_pose, scene_parts, write_pose
from files.folders import new_folder, real_path, refuse_existing
from machine.cli import Parser, number, run
from util import InputError, write_json

PROG = "scenes.noise"


def main(argv: Sequence[str] | None = None) -> None:
    parser = Parser(PROG, __doc__)
    parser.add_argument(
        "--scene", type=Path, required=True, metavar="DIR", help="the scene, or its train folder"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="the copy to make")
    parser.add_argument(
        "--degrees",
        type=number(float, above=0),
        required=True,
        help="standard deviation of the angle",
    )
    parser.add_argument(
        "--seed", type=number(int, 0), default=0, help="seed of the axes and angles (default: 0)"
    )
    args = parser.parse_args(argv)
    refuse_existing(args.out)
    if real_path(args.out).is_relative_to(real_path(args.scene)):
        raise InputError(f"--out {args.out}: is inside the scene to be copied")
    train = scene_parts(args.scene)[0]
    paths = list_poses(train / "pose")
    poses = np.stack([load_pose(path) for path in paths])
    intrinsics = load_intrinsics(train / "intrinsics.txt")
    noisy = rotate_randomly(intrinsics.to_cam2world(poses), args.degrees, args.seed)
    noisy = intrinsics.to_cam2world(noisy)  # and back to what the files hold
    with new_folder(args.out) as folder:
        _copy(args.scene, folder)
        for path, pose in zip(paths, noisy, strict=True):
            write_pose(folder / path.relative_to(args.scene), pose)
        write_json(
            folder / "noise.json",
            {"degrees": args.degrees, "seed": args.seed, "scene": str(args.scene)},
        )
    print(
        f"{args.out}: {len(paths)} poses of {train} rotated by {args.degrees:g} degrees (standard "
        "deviation)"
    )


def _copy(source: Path, folder: Path) -> None:
    """Copies what is in `source`, also through links, but no permissions: a read-only scene's copy
    gets other poses."""
    folder.mkdir(exist_ok=True)
    for path in source.iterdir():
        if path.is_dir():
            _copy(path, folder / path.name)
        else:
            shutil.copyfile(path, folder / path.name)


def rotate_randomly(
    cam2world: Float[np.ndarray, "views 4 4"], degrees: float, seed: int
) -> Float[np.ndarray, "views 4 4"]:
    """The cameras rotated about their centers, around random axes, by angles of standard deviation
    `degrees`."""
    random = np.random.default_rng(seed)
    axes = random.standard_normal((len(cam2world), 3))
    axes /= np.linalg.norm(axes, axis=1, keepdims=True)
    vectors = axes * np.radians(random.normal(0, degrees, (len(cam2world), 1)))
    noisy = cam2world.copy()
    noisy[:, :3, :3] = cam2world[:, :3, :3] @ np.stack(
        [cv2.Rodrigues(vector)[0] for vector in vectors]
    )
    return noisy


if __name__ == "__main__":
    run(PROG, main)
