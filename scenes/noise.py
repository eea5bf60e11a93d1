"""Copies a scene with noise on its training poses: how sensitive is a method to errors of calibration?

    python -m scenes.noise --scene data/cube --out data/cube_noise2 --degrees 2

Each training camera is turned about its own center, around an axis drawn uniformly, by an angle drawn from a normal
distribution whose deviation is --degrees. Images and test views stay as they are.
"""
import shutil
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float

from cli import Parser, number, run
from data_util import list_poses, load_intrinsics, load_pose
from scenes.check import scene_parts
from scenes.folder import new_folder, refuse_existing, write_json, write_pose
from util import InputError

PROG = "scenes.noise"


def main(argv: Sequence[str] | None = None) -> None:
    parser = Parser(PROG, __doc__)
    parser.add_argument("--scene", type=Path, required=True, metavar="DIR", help="the scene, or its train folder")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="the copy to make")
    parser.add_argument("--degrees", type=number(float, above=0), required=True, help="standard deviation of the angle")
    parser.add_argument("--seed", type=number(int, 0), default=0, help="draws axes and angles (default: 0)")
    args = parser.parse_args(argv)
    refuse_existing(args.out)
    if args.out.absolute().is_relative_to(args.scene.absolute()):
        raise InputError(f"--out {args.out}: lies in the scene that is to be copied")
    train = scene_parts(args.scene)[0]
    paths = list_poses(train / "pose")
    poses = np.stack([load_pose(path) for path in paths])
    world2cam = load_intrinsics(train / "intrinsics.txt").world2cam
    noisy = turn_randomly(np.linalg.inv(poses) if world2cam else poses, args.degrees, args.seed)
    noisy = np.linalg.inv(noisy) if world2cam else noisy
    with new_folder(args.out) as folder:
        shutil.copytree(args.scene, folder, dirs_exist_ok=True)
        for path, pose in zip(paths, noisy, strict=True):
            write_pose(folder / path.relative_to(args.scene), pose)
        write_json(folder / "noise.json", {"degrees": args.degrees, "seed": args.seed, "scene": str(args.scene)})
    print(f"{args.out}: {len(paths)} poses of {train} turned by {args.degrees:g} degrees (standard deviation)")


def turn_randomly(cam2world: Float[np.ndarray, "views 4 4"], degrees: float,
                  seed: int) -> Float[np.ndarray, "views 4 4"]:
    """The cameras turned about their centers around random axes by angles of standard deviation `degrees`."""
    random = np.random.default_rng(seed)
    axes = random.standard_normal((len(cam2world), 3))
    axes /= np.linalg.norm(axes, axis=1, keepdims=True)
    vectors = axes * np.radians(random.normal(0, degrees, (len(cam2world), 1)))
    noisy = cam2world.copy()
    noisy[:, :3, :3] = cam2world[:, :3, :3] @ np.stack([cv2.Rodrigues(vector)[0] for vector in vectors])
    return noisy


if __name__ == "__main__":
    run(PROG, main)
