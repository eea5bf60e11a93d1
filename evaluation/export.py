"""Exports the surface that a model has learned as a coloured point cloud or a triangle mesh.

    python -m evaluation.export --checkpoint latest --logging_root LOGS --out points.ply
    python -m evaluation.export --checkpoint latest --logging_root LOGS --mesh --out surface.glb

The model's depth is rendered from the training poses, or those of --data_root, and fused: what
views agree on stays, within the grid; the background does not. The file holds points in world
coordinates with normals and colours, or with --mesh triangles with colours at their corners.
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
from evaluation.mesh import PASSES, Mesh, fuse_mesh
from evaluation.metrics import mean_around_corners
from evaluation.picture_grid import evenly_spread
from evaluation.render import Frame
from evaluation.trained import PRECISION, TrainedModel, read_checkpoint
from files.glb import to_glb
from files.points import to_ply
from files.runs import find_checkpoint
from machine.cli import Parser, run
from machine.progress import Progress
from machine.runtime import choose_device, set_arithmetic
from util import InputError, new_file

PROG = "evaluation.export"
MESH_FORMATS = (".ply", ".glb")
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
        "--out",
        type=Path,
        required=True,
        metavar="FILE",
        help="the file to make: PLY, or for a mesh GLB too",
    )
    parser.add_argument(
        "--mesh", action="store_true", help="a triangle mesh instead of a point cloud"
    )
    parser.add_shared("device")
    args = parser.parse_args(argv)
    if args.out.exists():
        raise InputError(f"--out {args.out}: already exists; delete it or choose another name")
    _require_known_format(args.out, args.mesh)
    path = find_checkpoint(args.checkpoint, args.logging_root)
    device = torch.device(choose_device(args.device))
    set_arithmetic(PRECISION, device)
    model, cam2world = load(path, args.data_root, device)
    with new_file(args.out) as file, Progress(desc="fusing", unit="step") as bar:

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        if args.mesh:
            mesh = fuse_mesh_of(model, cam2world, show)
            _require_any(mesh.faces, path, len(cam2world))
            file.write(encode(mesh, args.out.suffix, model.intrinsics.grid_origin))
            made = f"{len(mesh.faces)} triangles"
        else:
            cloud = fuse_depth(model, cam2world, show)
            _require_any(cloud.points, path, len(cam2world))
            file.write(to_ply(cloud.points, cloud.colors, cloud.normals))
            made = f"{len(cloud.points)} points"
    print(f"{args.out}: {made}")


def _require_known_format(out: Path, mesh: bool) -> None:
    if mesh and out.suffix.lower() not in MESH_FORMATS:
        raise InputError(f"--out {out}: a mesh is written as {' or '.join(MESH_FORMATS)}")
    if not mesh and out.suffix.lower() == ".glb":
        raise InputError(f"--out {out}: a point cloud is written as PLY; --mesh makes a GLB file")


def _require_any(elements: np.ndarray, path: Path, num_views: int) -> None:
    if not len(elements):
        raise InputError(
            f"{path}: no surface to export: views from {num_views} poses agree on none"
        )


def encode(mesh: Mesh, suffix: str, center: Sequence[float]) -> bytes:
    """A mesh as a file of the format that the suffix names. center: of the grid."""
    if suffix.lower() == ".glb":
        return to_glb(*mesh, np.array(center))
    return to_ply(mesh.vertices, mesh.colors, faces=mesh.faces)


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
    step = _counter(progress, (1 + ROUNDS) * len(cam2world))
    cloud = fuse(depth_maps(model, cam2world, frames, step), step)
    return cloud._replace(points=cloud.points + model.intrinsics.grid_origin)


def fuse_mesh_of(
    model: TrainedModel,
    cam2world: Float[np.ndarray, "views 4 4"],
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Mesh:
    """Like `fuse_depth`, but a mesh: without faces if the views agree on no surface."""
    cam2world = cam2world[evenly_spread(len(cam2world), MAX_VIEWS)]
    step = _counter(progress, (1 + ROUNDS + PASSES) * len(cam2world))
    mesh = fuse_mesh(depth_maps(model, cam2world, model.render_path(cam2world), step), step)
    return mesh._replace(vertices=mesh.vertices + model.intrinsics.grid_origin)


def _counter(progress: Callable[[int, int], None], total: int) -> Callable[[], None]:
    """Returns a function that says, each time it is called, that one step more of all is done."""
    steps = count(1)
    return lambda: progress(next(steps), total)


def depth_maps(
    model: TrainedModel,
    cam2world: Float[np.ndarray, "views 4 4"],
    frames: Iterable[Frame],
    step: Callable[[], None],
) -> DepthMaps:
    """The depth and colours of frames, one for each pose. `step` is called after each."""
    geometry = model.geometry
    sidelength = geometry.map_sidelength
    depth = []
    colors = []
    for frame in frames:
        depth.append(frame.depth)
        colors.append(map_colors(frame.image, sidelength))
        step()
    border = math.ceil(BORDER * sidelength / model.architecture.img_sidelength)
    return DepthMaps(
        torch.from_numpy(np.stack(depth)),
        torch.from_numpy(np.stack(colors)),
        model.poses(cam2world).cpu(),
        geometry,
        margin=border,  # training never sees it
    )


def map_colors(
    image: Float[np.ndarray, "h h 3"], map_sidelength: int
) -> Float[np.ndarray, "m m 3"]:
    """A frame's image, which lacks its border, averaged around every pixel of the feature map."""
    padded = np.pad(image, [(BORDER, BORDER), (BORDER, BORDER), (0, 0)], mode="edge")
    return mean_around_corners(padded, map_sidelength, outside="edge")


if __name__ == "__main__":
    run(PROG, main)
