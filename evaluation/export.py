"""Exports the surface that a model has learned as a coloured point cloud.

    python -m evaluation.export --checkpoint latest --logging_root LOGS --out points.ply

The model's depth is rendered from the training poses, or those of --data_root, and fused: what
views agree on stays, within the grid; the background does not. The PLY file holds points in world
coordinates, normals and colours.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from itertools import count
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float

from data_util import BORDER
from evaluation.fusion import ROUNDS, Cloud, DepthMaps, fuse
from evaluation.metrics import mean_around_corners
from evaluation.picture_grid import evenly_spread
from evaluation.render import Frame
from evaluation.trained import PRECISION, TrainedModel, read_checkpoint
from files.points import to_ply
from files.runs import find_checkpoint
from machine.cli import Parser, run
from machine.progress import Progress
from machine.runtime import choose_device, set_arithmetic
from util import InputError, new_file

PROG = "evaluation.export"
MAX_VIEWS = 100  # more views add no accuracy


def main(argv: Sequence[str] | None = None) -> None:
    parser = Parser(PROG, __doc__)
    parser.add_shared("checkpoint")
    parser.add_shared("logging_root")
    parser.add_shared(
        "data_root",
        help="scene folder with the poses to see the model from, many and all around "
        "(default: the one that it was trained on)",
    )
    parser.add_argument(
        "--out", type=Path, required=True, metavar="FILE", help="the PLY file to make"
    )
    parser.add_shared("device")
    args = parser.parse_args(argv)
    if args.out.exists():
        raise InputError(f"--out {args.out}: already exists; delete it or choose another name")
    path = find_checkpoint(args.checkpoint, args.logging_root)
    device = torch.device(choose_device(args.device))
    set_arithmetic(PRECISION, device)
    model, cam2world = load(path, args.data_root, device)
    with new_file(args.out) as file, Progress(desc="fusing", unit="step") as bar:

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        cloud = fuse_depth(model, cam2world, show)
        if not len(cloud.points):
            raise InputError(
                f"{path}: no surface to export: views from {len(cam2world)} poses agree on none"
            )
        file.write(to_ply(cloud.points, cloud.colors, cloud.normals))
    print(f"{args.out}: {len(cloud.points)} points")


def load(
    path: Path, data_root: Path | None, device: torch.device
) -> tuple[TrainedModel, Float[np.ndarray, "views 4 4"]]:
    """The model of a checkpoint, and the poses of `data_root` or of the scene that it was trained
    on."""
    checkpoint = read_checkpoint(path)
    views = checkpoint.load_poses(checkpoint.scene_root(data_root))
    model = checkpoint.load_model(views.intrinsics, device)
    if not model.learns_depth:
        raise InputError(
            f"{path}: learned no depth to export: only DeepVoxels with its occlusion net does"
        )
    return model, views.cam2world


def fuse_depth(
    model: TrainedModel,
    cam2world: Float[np.ndarray, "views 4 4"],
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Cloud:
    """The surface that a model has learned, as at most `MAX_VIEWS` of the poses see it; empty if
    they agree on none.

    The model must learn depth (`learns_depth`). `progress` is called with the steps that are done,
    and with all.
    """
    cam2world = cam2world[evenly_spread(len(cam2world), MAX_VIEWS)]
    return fuse_frames(model, cam2world, model.render_path(cam2world), progress)


def fuse_frames(
    model: TrainedModel,
    cam2world: Float[np.ndarray, "views 4 4"],
    frames: Iterable[Frame],
    progress: Callable[[int, int], None],
) -> Cloud:
    """Like `fuse_depth`, from frames already rendered, one for each pose."""
    geometry = model.geometry
    sidelength = geometry.map_sidelength
    steps = count(1)

    def step() -> None:
        progress(next(steps), (1 + ROUNDS) * len(cam2world))

    depth = []
    colors = []
    for frame in frames:
        depth.append(frame.depth)
        colors.append(map_colors(frame.image, sidelength))
        step()
    border = math.ceil(BORDER * sidelength / model.architecture.img_sidelength)
    maps = DepthMaps(
        torch.from_numpy(np.stack(depth)),
        torch.from_numpy(np.stack(colors)),
        model.poses(cam2world).cpu(),
        geometry,
        margin=border,  # training never sees it
    )
    cloud = fuse(maps, step)
    return cloud._replace(points=cloud.points + model.intrinsics.grid_origin)


def map_colors(
    image: Float[np.ndarray, "h h 3"], map_sidelength: int
) -> Float[np.ndarray, "m m 3"]:
    """A frame's image, which lacks its border, averaged around every pixel of the feature map."""
    padded = np.pad(image, [(BORDER, BORDER), (BORDER, BORDER), (0, 0)], mode="edge")
    return mean_around_corners(padded, map_sidelength, outside="edge")


if __name__ == "__main__":
    run(PROG, main)
