"""Makes a camera path through a scene: a test folder with poses and intrinsics, ready to render.

    python -m scenes.path orbit --scene data/mine --out data/mine_orbit
    python -m scenes.path walk --scene data/mine --out data/mine_walk
    python -m scenes.path interpolate --scene data/mine --out data/mine_between
        --between 000003 000017

`spiral` climbs around the grid's origin as the paper's synthetic test sets do; `orbit` circles it
at the training cameras' median elevation: best for real photos. Both keep a distance that a fifth
of the cameras exceed, so that close-ups count little, and swing to and fro if the cameras see the
object from one side only. `walk` goes smoothly through some of the training poses in their order,
close-ups and turns included. `interpolate` is the paper's path for real captures: linear between
two training poses, given by name or drawn with the seed.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float

from data_util import SceneIntrinsics, scene_parts, write_scene_folder
from dataio import load_scene
from files.folders import new_folder, refuse_existing
from geometry.cameras import SPIRAL_RADIANS, look_at, scene_axes
from geometry.smooth_path import smooth_path
from machine.cli import Parser, number, run
from util import InputError

PROG = "scenes.path"
MAX_GAP = np.radians(120)  # in azimuth; cameras with a larger gap do not surround the object
MAX_ELEVATION = np.radians(85)
DISTANCE = 80  # percentile of the cameras' distances: nearer ones cut the object
MAX_KEYFRAMES = 12  # of a walk: more would show how a hand shakes


def main(argv: Sequence[str] | None = None) -> None:
    parser = Parser(PROG, __doc__)
    parser.add_argument("kind", choices=["spiral", "orbit", "walk", "interpolate"])
    parser.add_argument(
        "--scene", type=Path, required=True, metavar="DIR", help="the scene, or its train folder"
    )
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="the test folder to make"
    )
    parser.add_argument(
        "--frames", type=number(int, 1), default=200, help="number of poses (default: 200)"
    )
    parser.add_argument(
        "--between",
        nargs=2,
        metavar=("POSE", "POSE"),
        help="interpolate: names of two training poses, such as 000003 "
        "(default: drawn with --seed)",
    )
    parser.add_argument(
        "--seed", type=number(int, 0), default=0, help="interpolate: draws the poses (default: 0)"
    )
    args = parser.parse_args(argv)
    refuse_existing(args.out)
    scene = load_scene(scene_parts(args.scene)[0], sidelength=1, with_images=False)
    if args.kind == "interpolate":
        first, second = _choose_pair(scene.names, args.between, args.seed, args.scene)
        path = interpolate(scene.cam2world[first], scene.cam2world[second], args.frames)
        described = f"from {scene.names[first]} to {scene.names[second]}"
    elif args.kind == "walk":
        keyframes = scene.cam2world[
            np.linspace(0, len(scene) - 1, min(len(scene), MAX_KEYFRAMES)).round().astype(int)
        ]
        path = smooth_path(keyframes, args.frames, closed=False, scale=scene.intrinsics.scale)
        described = f"through {len(keyframes)} of the training poses"
    else:
        path = around(scene.cam2world, scene.intrinsics, args.frames, climb=args.kind == "spiral")
        described = "around the grid's origin"
    with new_folder(args.out) as folder:
        write_scene_folder(folder, scene.intrinsics, path)
    print(f"{args.out}: {args.frames} poses, {args.kind} {described}")


def interpolate(
    first: Float[np.ndarray, "4 4"], second: Float[np.ndarray, "4 4"], frames: int
) -> Float[np.ndarray, "frames 4 4"]:
    """Poses linear between two, both included, with rotations made orthonormal again (paper,
    section 4).

    Raises InputError if the two look in opposite directions: no linear path joins them.
    """
    share = np.linspace(0, 1, frames)[:, None, None]
    path = first * (1 - share) + second * share
    left, sizes, right = np.linalg.svd(path[:, :3, :3])
    if sizes.min() < 0.05:
        raise InputError(
            "--between: the two poses look in opposite directions; no linear path joins them"
        )
    path[:, :3, :3] = (
        left @ right
    )  # the nearest rotation; the determinant stays 1 as no singular value reaches 0
    return path


def around(
    cam2world: Float[np.ndarray, "views 4 4"], intrinsics: SceneIntrinsics, frames: int, climb: bool
) -> Float[np.ndarray, "frames 4 4"]:
    """Cameras around the grid's origin, within the angles of the training cameras; `climb` for the
    spiral.

    A training camera that stands at the origin has no angle and does not count. Raises InputError
    if all do.
    """
    right, back, up = scene_axes(cam2world)
    origin = np.array(intrinsics.grid_origin)
    offsets = cam2world[:, :3, 3] - origin
    offsets = offsets[offsets.any(axis=1)]
    if not len(offsets):
        raise InputError(
            "--scene: all its cameras stand at the grid's center; no path leads around it"
        )
    distances = np.linalg.norm(offsets, axis=1)
    radius = np.percentile(distances, DISTANCE)
    elevations = np.arcsin(np.clip(offsets @ up / distances, -1, 1))
    azimuths = np.arctan2(offsets @ back, offsets @ right)
    progress = np.arange(frames) / frames
    if climb:
        low, high = np.percentile(elevations, [5, 95])
        elevation = np.minimum(low + (high - low) * progress, MAX_ELEVATION)
        angles = SPIRAL_RADIANS * progress
    else:
        elevation = np.full(frames, min(np.median(elevations), MAX_ELEVATION))
        angles = 2 * np.pi * progress
    azimuth = _limit_azimuth(angles, azimuths)[:, None]
    directions = np.cos(elevation)[:, None] * (np.cos(azimuth) * right + np.sin(azimuth) * back)
    return look_at(origin + radius * (directions + np.sin(elevation)[:, None] * up), origin, up)


def _limit_azimuth(
    angles: Float[np.ndarray, "frames"], azimuths: Float[np.ndarray, "views"]
) -> Float[np.ndarray, "frames"]:
    """The path's angles if the cameras, at `azimuths`, surround the object; else a swing to and fro
    along the arc that nine tenths of them span."""
    ordered = np.sort(azimuths)
    gaps = np.diff(np.append(ordered, ordered[0] + 2 * np.pi))
    largest = int(gaps.argmax())
    if gaps[largest] < MAX_GAP:
        return angles
    start = ordered[(largest + 1) % len(ordered)]
    low, high = np.percentile((ordered - start) % (2 * np.pi), [5, 95])
    return start + low + (high - low) * (1 - np.cos(angles)) / 2


def _choose_pair(
    names: list[str], between: list[str] | None, seed: int, scene: Path
) -> tuple[int, int]:
    if between is None:
        if len(names) < 2:
            raise InputError(f"{scene}: has one pose; interpolation needs two")
        first, second = np.random.default_rng(seed).choice(len(names), size=2, replace=False)
        return int(first), int(second)
    for name in between:
        if name not in names:
            raise InputError(
                f"--between {name}: {scene} has no such pose (they are {names[0]} to {names[-1]})"
            )
    return names.index(between[0]), names.index(between[1])


if __name__ == "__main__":
    run(PROG, main)
