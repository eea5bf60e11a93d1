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

An importer may have turned the source's world upright. --coordinates says whether the poses of a
file are in the scene's world (nerfstudio trained on what scenes.export wrote) or in the source's
(it trained on what was imported).
"""

from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float

from data_util import SceneFolder, read_views, scene_parts, write_scene_folder
from files.folders import new_folder, refuse_existing
from geometry.paths import around, interpolate, smooth_path
from machine.cli import Parser, number, run
from scenes.capture.camera_path import read_camera_path, read_dataparser, read_turn
from scenes.capture.listing import warn
from util import InputError

PROG = "scenes.path"
FRAMES = 200
MAX_WALK_KEYFRAMES = 12  # more would show how a hand shakes
# The kinds of path that use a flag, for flags that not all kinds use
USED_BY = {
    "frames": ("spiral", "orbit", "walk", "interpolate"),
    "between": ("interpolate",),
    "seed": ("interpolate",),
    "camera_path": ("file",),
    "dataparser": ("file",),
    "coordinates": ("file",),
}


def main(argv: Sequence[str] | None = None) -> None:
    args = _parse(argv)
    refuse_existing(args.out)
    scene = read_views(scene_parts(args.scene)[0], with_images=False)
    path, described = _make_path(args, scene)
    with new_folder(args.out) as folder:
        write_scene_folder(folder, scene.intrinsics, path)
    print(f"{args.out}: {len(path)} poses, {args.kind} {described}")


def _parse(argv: Sequence[str] | None) -> Namespace:
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
        help=f"number of poses, but for file, which has its own (default: {FRAMES})",
    )
    pair = parser.add_mutually_exclusive_group()
    pair.add_argument(
        "--between",
        nargs=2,
        metavar=("POSE", "POSE"),
        help="interpolate: names of two training poses, such as 000003 "
        "(default: drawn with --seed)",
    )
    pair.add_argument(
        "--seed", type=number(int, 0), help="interpolate: draws the poses (default: 0)"
    )
    parser.add_argument("--camera_path", type=Path, metavar="FILE", help="file: the path")
    parser.add_argument(
        "--dataparser",
        type=Path,
        metavar="FILE",
        help="file: dataparser_transforms.json of the run whose coordinates the path is in",
    )
    parser.add_argument(
        "--coordinates",
        choices=["scene", "source"],
        help="file: whose world the path is in, with --dataparser the run's data (default: scene "
        "if it was made from photos or a video, else source)",
    )
    args = parser.parse_args(argv)
    for flag, kinds in USED_BY.items():
        if getattr(args, flag) is not None and args.kind not in kinds:
            parser.error(f"--{flag}: is for {', '.join(kinds)}; {args.kind} does not use it")
    if args.kind == "file" and args.camera_path is None:
        parser.error("--camera_path: file needs it")
    return args


def _make_path(args: Namespace, scene: SceneFolder) -> tuple[Float[np.ndarray, "frames 4 4"], str]:
    """The poses, and words for what they follow."""
    frames = args.frames or FRAMES
    if args.kind == "file":
        return _path_of_file(args)
    if args.kind == "interpolate":
        first, second = _choose_pair(scene.names, args.between, args.seed or 0, args.scene)
        described = f"from {scene.names[first]} to {scene.names[second]}"
        try:
            return interpolate(scene.cam2world[first], scene.cam2world[second], frames), described
        except ValueError as error:
            raise InputError(
                f"{args.scene}: {described}: {error}; name others with --between, or draw others "
                "with another --seed"
            ) from None
    if args.kind == "walk":
        count = min(len(scene.names), MAX_WALK_KEYFRAMES)
        chosen = np.linspace(0, len(scene.names) - 1, count).round().astype(int)
        keyframes = scene.cam2world[chosen]
        path = smooth_path(keyframes, frames, closed=False, scale=scene.intrinsics.scale)
        return path, f"through {len(keyframes)} of the training poses"
    origin = np.array(scene.intrinsics.grid_origin)
    path = around(scene.cam2world, origin, frames, climb=args.kind == "spiral")
    return path, "around the grid's origin"


def _path_of_file(args: Namespace) -> tuple[Float[np.ndarray, "frames 4 4"], str]:
    """The poses of a camera_path.json in the scene's world, and words for them."""
    path, unused = read_camera_path(args.camera_path, read_dataparser(args.dataparser))
    if unused:
        warn(f"{args.camera_path}: not used: {', '.join(unused)}")
    turn = read_turn(args.scene)
    if turn is None:
        return path, f"{args.camera_path}"
    # No other program has seen the world in which COLMAP placed photos
    of_photos = turn.source.startswith(("photos", "video"))
    coordinates = args.coordinates or ("scene" if of_photos else "source")
    if coordinates == "source":
        path = turn.rotation @ path
    return path, (
        f"{args.camera_path}, taken in the {coordinates}'s coordinates (--coordinates "
        f"{coordinates})"
    )


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
