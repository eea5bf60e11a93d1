"""Imports a `transforms.json` of nerfstudio or instant-ngp.

    python -m scenes.transforms_json capture/transforms.json data/mine

Intrinsics may be shared or each frame's own; distortion (k1..k6, p1, p2; OPENCV, FULL_OPENCV or OPENCV_FISHEYE) is
removed with OpenCV's equations. Poses are camera-to-world with OpenGL axes, as the format defines; `--up none` keeps
the file's world coordinates. Sparse points come from `ply_file_path` if the file has one. File names without an
extension mean PNG. Views are numbered in the order of their file names.
"""
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pycolmap

from cli import Parser, run
from data_util import load_image
from folders import refuse_existing
from foreign import inside
from scenes.capture.capture import Capture, add_flags, write_capture
from scenes.capture.sensible import sensible_camera
from scenes.capture.transforms import Frame, read_frames
from scenes.geometry.points import load_points
from util import InputError

PROG = "scenes.transforms_json"
DISTORTION = {"PINHOLE": (), "OPENCV": ("k1", "k2", "p1", "p2"), "OPENCV_FISHEYE": ("k1", "k2", "k3", "k4"),
              "FULL_OPENCV": ("k1", "k2", "p1", "p2", "k3", "k4", "k5", "k6")}


def main(argv: Sequence[str] | None = None) -> None:
    parser = Parser(PROG, __doc__)
    parser.add_argument("source", type=Path, metavar="SRC",
                        help="a transforms.json, or the folder that holds it; its images must lie there or below")
    parser.add_argument("target", type=Path, metavar="DST", help="the scene to make: DST/train and DST/test")
    add_flags(parser)
    args = parser.parse_args(argv)
    refuse_existing(args.target)
    path = args.source / "transforms.json" if args.source.is_dir() else args.source
    write_capture(read_capture(path), args.target, args, source=f"transforms.json {path}")


def read_capture(path: Path) -> Capture:
    """Reads the file and the points that it names; raises InputError with what is wrong."""
    content, frames = read_frames(path)
    cameras = [_camera(frame, path) for frame in frames]
    points, colors = np.zeros((0, 3)), np.zeros((0, 3), np.uint8)
    if content.get("ply_file_path"):
        points, colors = load_points(inside(path.parent, str(content["ply_file_path"]), named_by=path))
    return Capture([frame.image for frame in frames], [frame.name for frame in frames],
                   np.stack([frame.cam2world for frame in frames]), cameras, points, colors)


def _camera(frame: Frame, path: Path) -> pycolmap.Camera:
    values, subject = frame.values, f"{path}: the intrinsics of {frame.name}"
    try:
        has_size = "w" in values and "h" in values
        height, width = (int(values["h"]), int(values["w"])) if has_size else load_image(frame.image).shape[:2]
        if "fl_x" in values:
            focal_x = float(values["fl_x"])
        elif "camera_angle_x" in values:
            focal_x = 0.5 * width / np.tan(0.5 * float(values["camera_angle_x"]))
        else:
            raise InputError(f"{path}: gives neither fl_x nor camera_angle_x for {frame.name}")
        focal_y = float(values.get("fl_y", focal_x))
        center = [float(values.get("cx", width / 2)), float(values.get("cy", height / 2))]
        model = _camera_model(values, path)
        distortion = [float(values.get(name, 0)) for name in DISTORTION[model]]
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(f"{subject} are not numbers ({error})") from None
    return sensible_camera(f"{path}: the camera of {frame.name}", model, width, height,
                           [focal_x, focal_y, *center, *distortion])


def _camera_model(values: Mapping, path: Path) -> str:
    """COLMAP's name of the camera model; if the file names none, chosen by the distortion coefficients that it has."""
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
