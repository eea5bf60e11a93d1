"""Exports the surface that a model has learned as a coloured point cloud.

    python -m evaluation.export --checkpoint latest --logging_root LOGS --out points.ply

The model's depth is rendered from the training poses, or those of --data_root, and fused: what
views agree on stays, within the grid; the background does not. The PLY file holds points in world
coordinates, normals and colours.
"""

from collections.abc import Callable, Iterable, Sequence
from itertools import count
from pathlib import Path

import cv2
import numpy as np
import torch
import trimesh
from jaxtyping import Float
from torch import nn

from checkpoints import find_checkpoint, load_checkpoint
from data_util import BORDER
from dataio import load_scene
from deep_voxels import DeepVoxels
from evaluation.fusion import ROUNDS, Cloud, fuse
from evaluation.pictures import spread
from evaluation.render import (
    Frame,
    load_recorded,
    make_fast_,
    recorded_network,
    recorded_scene,
    render_path,
)
from machine.cli import Parser, run
from machine.progress import Progress
from machine.runtime import choose_device, set_arithmetic
from util import InputError, new_file

PROG = "evaluation.export"
MAX_VIEWS = 100  # more views add no accuracy
PRECISION = "fp32"


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
        file.write(to_ply(cloud))
    print(f"{args.out}: {len(cloud.points)} points")


def fuse_depth(
    model: DeepVoxels,
    cam2world: Float[np.ndarray, "views 4 4"],
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Cloud:
    """The surface that a model has learned, as at most `MAX_VIEWS` of the poses see it; empty if
    they agree on none.

    The model must learn depth (`learns_depth`). `progress` is called with the steps that are done,
    and with all.
    """
    cam2world = cam2world[spread(len(cam2world), MAX_VIEWS)]
    frames = render_path(model, cam2world, None, PRECISION, model.deepvoxels.device)
    return fuse_frames(model, cam2world, frames, progress)


def fuse_frames(
    model: DeepVoxels,
    cam2world: Float[np.ndarray, "views 4 4"],
    frames: Iterable[Frame],
    progress: Callable[[int, int], None],
) -> Cloud:
    """The same of frames that someone else renders, one for each pose."""
    geometry = model.geometry
    steps = count(1)

    def step() -> None:
        progress(next(steps), (1 + ROUNDS) * len(cam2world))

    depth = []
    colors = []
    for frame in frames:
        depth.append(frame.depth)
        colors.append(map_colors(frame.image, geometry.map_sidelength))
        step()
    margin = -(
        -BORDER * geometry.map_sidelength // model.architecture.img_sidelength
    )  # training never sees the border
    return fuse(
        torch.from_numpy(np.stack(depth)),
        torch.from_numpy(np.stack(colors)),
        torch.from_numpy(cam2world).float(),
        geometry,
        margin,
        step,
    )


def map_colors(
    image: Float[np.ndarray, "h h 3"], map_sidelength: int
) -> Float[np.ndarray, "m m 3"]:
    """A frame's image, which lacks its border, averaged around every pixel of the feature map.

    A map's pixel shows what is seen along the ray through its integer coordinate (docs/design.md,
    section 3).
    """
    sidelength = len(image) + 2 * BORDER
    shift = sidelength // map_sidelength // 2
    border = (BORDER + shift, BORDER)
    padded = np.pad(image, (border, border, (0, 0)), mode="edge")[:sidelength, :sidelength]
    return cv2.resize(padded, (map_sidelength, map_sidelength), interpolation=cv2.INTER_AREA)


def learns_depth(model: nn.Module) -> bool:
    """Whether a model renders depth: DeepVoxels with its occlusion net."""
    return isinstance(model, DeepVoxels) and not model.architecture.no_occlusion_net


def to_ply(cloud: Cloud) -> bytes:
    """The cloud as a binary PLY file: points, normals and colours of vertices without faces."""
    vertices = trimesh.Trimesh(
        cloud.points, vertex_normals=cloud.normals, vertex_colors=cloud.colors, process=False
    )
    return vertices.export(file_type="ply", vertex_normal=True)


def load(
    path: Path, data_root: Path | None, device: torch.device
) -> tuple[nn.Module, Float[np.ndarray, "views 4 4"]]:
    """The model of a checkpoint, and the poses of `data_root` or of the scene that it was trained
    on."""
    checkpoint = load_checkpoint(path)
    _, architecture = recorded_network(checkpoint, path)
    scene = load_scene(
        recorded_scene(checkpoint, path, data_root), architecture.img_sidelength, with_images=False
    )
    model, _ = load_recorded(checkpoint, path, scene.intrinsics, device)
    if not learns_depth(model):
        raise InputError(
            f"{path}: learned no depth to export: only DeepVoxels with its occlusion net does"
        )
    make_fast_(model, device)
    return model, scene.cam2world


if __name__ == "__main__":
    run(PROG, main)
