"""Imports a `transforms.json` of nerfstudio or instant-ngp.

    python -m scenes.transforms_json capture/transforms.json data/mine

Intrinsics may be shared or each frame's own; distortion (k1..k4, p1, p2; OPENCV, FULL_OPENCV or OPENCV_FISHEYE) is
undone with OpenCV's equations. Poses are camera-to-world with OpenGL axes, as the format says; they are kept in its
world coordinates. Sparse points come from `ply_file_path` where the file names one. File names without an
extension mean PNG. Views are numbered by the order of their file names.
"""
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pycolmap

from cli import Parser, run
from data_util import load_image
from scenes.capture.capture import Capture, add_flags, require_files, write_capture
from scenes.capture.points import load_points
from scenes.folder import natural_order, refuse_existing
from scenes.geometry.cameras import opengl2opencv
from util import InputError

PROG = "scenes.transforms_json"
DISTORTION = {"PINHOLE": (), "OPENCV": ("k1", "k2", "p1", "p2"), "OPENCV_FISHEYE": ("k1", "k2", "k3", "k4"),
              "FULL_OPENCV": ("k1", "k2", "p1", "p2", "k3", "k4", "k5", "k6")}


def main(argv: Sequence[str] | None = None) -> None:
    parser = Parser(PROG, __doc__)
    parser.add_argument("source", type=Path, metavar="SRC", help="a transforms.json, or the folder that holds it")
    parser.add_argument("target", type=Path, metavar="DST", help="the scene to make: DST/train and DST/test")
    add_flags(parser)
    args = parser.parse_args(argv)
    refuse_existing(args.target)
    path = args.source / "transforms.json" if args.source.is_dir() else args.source
    write_capture(read_transforms(path), args.target, args, source=f"transforms.json {path}")


def read_transforms(path: Path) -> Capture:
    """Reads the file and what it names; raises InputError with what is wrong."""
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    try:
        content = json.loads(path.read_text())
    except ValueError as error:
        raise InputError(f"{path}: is not JSON ({error})") from None
    frames = content.get("frames") if isinstance(content, dict) else None
    if not isinstance(frames, list) or not frames:
        raise InputError(f"{path}: has no frames")
    for number, frame in enumerate(frames):
        if not isinstance(frame, dict) or not isinstance(frame.get("file_path"), str):
            raise InputError(f"{path}: frame {number} has no file_path")
    frames = sorted(frames, key=lambda frame: natural_order(frame["file_path"]))
    images = [_image_path(path.parent, frame["file_path"]) for frame in frames]
    require_files(images, path)
    poses = np.stack([_pose(frame, path) for frame in frames])
    cameras = [_camera({**content, **frame}, image, path) for frame, image in zip(frames, images, strict=True)]
    points, colors = np.zeros((0, 3)), np.zeros((0, 3), np.uint8)
    if content.get("ply_file_path"):
        points, colors = load_points(path.parent / str(content["ply_file_path"]))
    return Capture(images, [frame["file_path"] for frame in frames], opengl2opencv(poses), cameras, points, colors)


def _image_path(folder: Path, name: str) -> Path:
    path = folder / name
    return path if path.suffix else path.with_suffix(".png")


def _pose(frame: dict, path: Path) -> np.ndarray:
    try:
        pose = np.array(frame["transform_matrix"], dtype=np.float64)
    except (KeyError, TypeError, ValueError):
        pose = np.zeros(0)
    if pose.shape == (3, 4):
        pose = np.vstack([pose, [0, 0, 0, 1]])
    if pose.shape != (4, 4) or not np.isfinite(pose).all():
        raise InputError(f"{path}: the transform_matrix of {frame['file_path']} is not 4x4 finite numbers")
    return pose


def _camera(values: dict, image: Path, path: Path) -> pycolmap.Camera:
    """The camera of one frame, from its own values or the shared ones."""
    try:
        given = "w" in values and "h" in values
        height, width = (int(values["h"]), int(values["w"])) if given else load_image(image).shape[:2]
        if "fl_x" in values:
            focal_x = float(values["fl_x"])
        elif "camera_angle_x" in values:
            focal_x = 0.5 * width / np.tan(0.5 * float(values["camera_angle_x"]))
        else:
            raise InputError(f"{path}: gives neither fl_x nor camera_angle_x for {values['file_path']}")
        focal_y = float(values.get("fl_y", focal_x))
        center = [float(values.get("cx", width / 2)), float(values.get("cy", height / 2))]
        model = _model(values, path)
        distortion = [float(values.get(name, 0)) for name in DISTORTION[model]]
    except (TypeError, ValueError) as error:
        raise InputError(f"{path}: the intrinsics of {values['file_path']} are not numbers ({error})") from None
    if not (min(focal_x, focal_y, width, height) > 0 and np.isfinite([focal_x, focal_y, *center, *distortion]).all()):
        raise InputError(f"{path}: the intrinsics of {values['file_path']} are not positive, finite numbers")
    return pycolmap.Camera(model=model, width=width, height=height, params=[focal_x, focal_y, *center, *distortion])


def _model(values: dict, path: Path) -> str:
    """COLMAP's name of the camera model; where the file names none, the distortion that it gives decides."""
    if values.get("is_fisheye"):
        return "OPENCV_FISHEYE"
    named = values.get("camera_model", "OPENCV")
    if named in ("SIMPLE_PINHOLE", "PINHOLE"):
        return "PINHOLE"
    if named not in DISTORTION and named not in ("SIMPLE_RADIAL", "RADIAL"):
        raise InputError(f"{path}: camera_model {named} is not one that can be undistorted here: "
                         f"{', '.join(['SIMPLE_PINHOLE', 'SIMPLE_RADIAL', 'RADIAL', *DISTORTION])}")
    if named == "OPENCV_FISHEYE":
        return named
    return "FULL_OPENCV" if any(float(values.get(name, 0)) for name in ("k3", "k4", "k5", "k6")) else "OPENCV"


if __name__ == "__main__":
    run(PROG, main)
