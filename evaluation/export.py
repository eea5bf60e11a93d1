"""Exports the surface that a model has learned as a coloured point cloud or a triangle mesh.

    python -m evaluation.export --checkpoint latest --logging_root LOGS --out points.ply
    python -m evaluation.export --checkpoint latest --logging_root LOGS --mesh --out surface.glb

The model's depth is rendered from the training poses, or those of --data_root, and fused: what
views agree on stays, within the grid; the background does not. The file holds points in world
coordinates with normals and colours, or with --mesh triangles with colours at their corners.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float

from evaluation.learned_surface import fuse_depth, fuse_mesh_of
from evaluation.mesh import Mesh
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
    suffix = out.suffix.lower()
    if mesh and suffix not in MESH_FORMATS:
        raise InputError(f"--out {out}: a mesh is written as {' or '.join(MESH_FORMATS)}")
    if not mesh and suffix != ".ply":
        hint = "; --mesh makes a GLB file" if suffix == ".glb" else ""
        raise InputError(f"--out {out}: a point cloud is written as .ply{hint}")


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


if __name__ == "__main__":
    run(PROG, main)
