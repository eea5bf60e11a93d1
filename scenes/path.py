"""Makes a camera path through a scene: a test folder with poses and intrinsics, ready to render.

    python -m scenes.path orbit --scene data/mine --out data/mine_orbit
    python -m scenes.path walk --scene data/mine --out data/mine_walk
    python -m scenes.path interpolate --scene data/mine --out data/mine_between
        --between 000003 000017
    python -m scenes.path file --camera_path camera_path.json --scene data/mine --out data/mine_ns

`spiral` climbs around the grid's origin as the paper's synthetic test sets do; `orbit` circles it
at the training cameras' median elevation: best for real photos. Both keep a distance that a fifth
of the cameras exceed, so that close-ups count little, and swing to and fro if the cameras see the
object from one side only. `walk` goes smoothly through some of the training poses in their order,
close-ups and turns included. `interpolate` is the paper's path for real captures: linear between
two training poses, given by name or drawn with the seed. `file` takes the poses of nerfstudio's
camera_path.json; with --dataparser, the run's dataparser_transforms.json, from its coordinates.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float

from data_util import read_views, scene_parts, write_scene_folder
from files.folders import new_folder, refuse_existing
from geometry.paths import around, interpolate, smooth_path
from machine.cli import Parser, number, run
from scenes.capture.camera_path import read_camera_path, read_dataparser, scene_rotation
from scenes.capture.listing import warn
from util import InputError

PROG = "scenes.path"
MAX_WALK_KEYFRAMES = 12  # more would show how a hand shakes


def main(argv: Sequence[str] | None = None) -> None:
    parser = Parser(PROG, __doc__)
    parser.add_argument("kind", choices=["spiral", "orbit", "walk", "interpolate", "file"])
    parser.add_argument(
        "--scene", type=Path, required=True, metavar="DIR", help="the scene, or its train folder"
    )
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="the test folder to make"
    )
    parser.add_argument(
        "--frames",
        type=number(int, 1),
        default=200,
        help="number of poses (default: 200, or those of the file)",
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
    parser.add_argument("--camera_path", type=Path, metavar="FILE", help="file: the path")
    parser.add_argument(
        "--dataparser",
        type=Path,
        metavar="FILE",
        help="file: nerfstudio's dataparser_transforms.json (default: the source's coordinates)",
    )
    args = parser.parse_args(argv)
    if (args.kind == "file") != (args.camera_path is not None):
        parser.error("--camera_path: is for `file`, which needs it")
    refuse_existing(args.out)
    scene = read_views(scene_parts(args.scene)[0], with_images=False)
    if args.kind == "file":
        path = _path_of_file(args.camera_path, args.dataparser, args.scene)
        described = f"{args.camera_path}"
    elif args.kind == "interpolate":
        first, second = _choose_pair(scene.names, args.between, args.seed, args.scene)
        path = interpolate(scene.cam2world[first], scene.cam2world[second], args.frames)
        described = f"from {scene.names[first]} to {scene.names[second]}"
    elif args.kind == "walk":
        count = min(len(scene.names), MAX_WALK_KEYFRAMES)
        chosen = np.linspace(0, len(scene.names) - 1, count).round().astype(int)
        keyframes = scene.cam2world[chosen]
        path = smooth_path(keyframes, args.frames, closed=False, scale=scene.intrinsics.scale)
        described = f"through {len(keyframes)} of the training poses"
    else:
        origin = np.array(scene.intrinsics.grid_origin)
        path = around(scene.cam2world, origin, args.frames, climb=args.kind == "spiral")
        described = "around the grid's origin"
    with new_folder(args.out) as folder:
        write_scene_folder(folder, scene.intrinsics, path)
    print(f"{args.out}: {len(path)} poses, {args.kind} {described}")


def _path_of_file(
    file: Path, dataparser: Path | None, scene: Path
) -> Float[np.ndarray, "frames 4 4"]:
    """The poses of a camera_path.json, turned as the importer turned the scene."""
    path, unused = read_camera_path(file, read_dataparser(dataparser))
    if unused:
        warn(f"{file}: not used: {', '.join(unused)}")
    for record in (scene / "scene.json", scene.absolute().parent / "scene.json"):
        if record.is_file():
            path = scene_rotation(record) @ path
            break
    return path


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
