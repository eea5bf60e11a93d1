"""Records what a model has learned in a file that any browser shows, without a server.

    python -m viewer.record --checkpoint latest --logging_root LOGS --out scene.html
    python -m viewer.record --checkpoint latest --logging_root LOGS --out grid.viser --show features

The features of its grid, its surface, and the training cameras can be turned and flown through;
rendered views need the model, so `python -m viewer`. An .html file is complete and opens by a
double click. A .viser file is for web sites, beside viser's client (https://viser.studio).
"""

from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import viser

from evaluation.learned_surface import fuse_mesh_of
from evaluation.trained import PRECISION, TrainedModel, read_checkpoint
from files.glb import to_glb
from files.runs import find_checkpoint
from machine.cli import Parser, run
from machine.runtime import choose_device, set_arithmetic
from util import InputError, new_file
from viewer.access import Access
from viewer.browser import MIN_VISIBILITY
from viewer.features import feature_cloud
from viewer.scene import SceneInView, load_scene_in_view, load_viewed_model
from viewer.scene_objects import ROOT, add_cameras, add_points
from viewer.session import set_first_view, start_server, stop_server

PROG = "viewer.record"
SHOWN = ("features", "surface", "cameras")
FORMATS = (".html", ".viser")
STEP_BACK = 1.9  # times the distance of a training camera, to have all cameras in view
Y_UP_TO_Z_UP = (np.sqrt(0.5), np.sqrt(0.5), 0.0, 0.0)  # a quaternion, as viser takes it


def main(argv: Sequence[str] | None = None) -> None:
    args = _parse(argv)
    device = torch.device(choose_device(args.device))
    set_arithmetic(PRECISION, device)
    path = find_checkpoint(args.checkpoint, args.logging_root)
    checkpoint = read_checkpoint(path)
    scene = load_scene_in_view(checkpoint, args.data_root)
    model = load_viewed_model(checkpoint, scene, device)
    if not model.learns_depth and {"features", "surface"} & set(args.show):
        raise InputError(
            f"{path}: learned no depth: of such a model, --show cameras is all there is"
        )
    with new_file(args.out) as file:
        content = record(model, scene, args.show, html=args.out.suffix.lower() == ".html")
        file.write(content)
    print(f"{args.out}: {' and '.join(args.show)}, {len(content) / 1e6:.1f} MB")


def _parse(argv: Sequence[str] | None) -> Namespace:
    parser = Parser(PROG, __doc__)
    parser.add_shared("checkpoint")
    parser.add_shared("logging_root")
    parser.add_shared(
        "data_root",
        help="the scene, or its train folder (default: what the checkpoint was trained on)",
    )
    parser.add_argument(
        "--show",
        nargs="+",
        choices=SHOWN,
        default=["surface", "cameras"],
        help="what to record (default: surface cameras)",
    )
    parser.add_argument(
        "--out", type=Path, required=True, metavar="FILE", help="the file to make, .html or .viser"
    )
    parser.add_shared("device")
    args = parser.parse_args(argv)
    if args.out.suffix.lower() not in FORMATS:
        raise InputError(f"--out {args.out}: a recording is written as {' or '.join(FORMATS)}")
    if args.out.exists():
        raise InputError(f"--out {args.out}: already exists; delete it or choose another name")
    return args


def record(model: TrainedModel, scene: SceneInView, show: Sequence[str], html: bool) -> bytes:
    """A recording of what `show` names, as a page that is complete, or for viser's client."""
    server = start_server("127.0.0.1", 0, Access("127.0.0.1", ()))
    try:
        set_first_view(server, scene)
        if "features" in show:
            add_features(server.scene, model, scene)
        if "surface" in show:
            add_surface(server.scene, model, scene)
        if "cameras" in show:
            add_cameras(server.scene, scene)
            camera = server.initial_camera
            center = np.array(camera.look_at)
            camera.position = center + STEP_BACK * (np.array(camera.position) - center)
        recording = server.get_scene_serializer()
        return recording.as_html().encode() if html else recording.serialize()
    finally:
        stop_server(server)


def add_features(api: viser.SceneApi, model: TrainedModel, scene: SceneInView) -> None:
    cloud = feature_cloud(model, scene, lambda work: work()).above(MIN_VISIBILITY)
    voxel = scene.intrinsics.scale / model.geometry.grid_dim
    add_points(api, f"{ROOT}/features", cloud.points, cloud.colors, size=0.5 * voxel)


def add_surface(api: viser.SceneApi, model: TrainedModel, scene: SceneInView) -> None:
    mesh = fuse_mesh_of(model, scene.views.cam2world)
    if not len(mesh.faces):
        raise InputError(
            f"{model.path}: no surface to record: views from {len(scene.views)} poses agree on none"
        )
    glb = to_glb(*mesh, center=np.zeros(3))
    api.add_glb(f"{ROOT}/surface", glb, wxyz=Y_UP_TO_Z_UP, cast_shadow=False, receive_shadow=False)


if __name__ == "__main__":
    run(PROG, main)
