"""Imports a COLMAP model: cameras.bin, images.bin, points3D.bin, or the same as .txt.

    python -m scenes.colmap project/sparse/0 data/mine --images project/images

MODEL may also be the project's folder, with the model in sparse/0 or sparse. Any camera model but panoramas: images are
undistorted to one pinhole camera where they need it. Views are numbered by the order of their names.
"""
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pycolmap

from cli import Parser, run
from scenes.capture.capture import Capture, add_flags, require_files, write_capture
from scenes.folder import natural_order, refuse_existing
from util import InputError

PROG = "scenes.colmap"
PARTS = ("cameras", "images", "points3D")


def main(argv: Sequence[str] | None = None) -> None:
    parser = Parser(PROG, __doc__)
    parser.add_argument("model", type=Path, metavar="MODEL", help="folder with the model, or the project around it")
    parser.add_argument("target", type=Path, metavar="DST", help="the scene to make: DST/train and DST/test")
    parser.add_argument("--images", type=Path, metavar="DIR",
                        help="the photos (default: the folder `images` in MODEL or the nearest folder above it)")
    add_flags(parser)
    args = parser.parse_args(argv)
    refuse_existing(args.target)
    folder = find_model(args.model)
    images = args.images or _find_images(folder)
    write_capture(capture_of(read_model(folder), images, named_by=folder), args.target, args, source=f"COLMAP {folder}")


def find_model(folder: Path) -> Path:
    """The folder of the model in or below `folder`."""
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    for candidate in (folder, folder / "sparse" / "0", folder / "sparse"):
        if any(all((candidate / f"{part}{suffix}").is_file() for part in PARTS) for suffix in (".bin", ".txt")):
            return candidate
    raise InputError(f"{folder}: holds no COLMAP model (cameras, images and points3D, as .bin or .txt)")


def read_model(folder: Path) -> pycolmap.Reconstruction:
    """Reads a model; raises InputError where it is damaged or empty."""
    try:
        model = pycolmap.Reconstruction(folder)
    except Exception as error:  # the library raises several kinds for damaged files
        reason = " ".join(str(error).split())
        raise InputError(f"{folder}: is not a readable COLMAP model ({reason})") from None
    if not model.num_reg_images():
        raise InputError(f"{folder}: the model has no registered images")
    return model


def capture_of(model: pycolmap.Reconstruction, image_dir: Path, named_by: Path) -> Capture:
    """The registered views of a model, sorted by name, and its points."""
    views = sorted((model.images[index] for index in model.reg_image_ids()), key=lambda view: natural_order(view.name))
    paths = [image_dir / view.name for view in views]
    require_files(paths, named_by)
    cam2world = np.tile(np.eye(4), (len(views), 1, 1))
    cam2world[:, :3] = [view.cam_from_world().inverse().matrix() for view in views]
    points = list(model.points3D.values())
    return Capture(paths, [view.name for view in views], cam2world, [model.cameras[view.camera_id] for view in views],
                   np.array([point.xyz for point in points], dtype=np.float64).reshape(-1, 3),
                   np.array([point.color for point in points], dtype=np.uint8).reshape(-1, 3))


def _find_images(folder: Path) -> Path:
    for above in (folder, *folder.absolute().parents[:2]):
        if (above / "images").is_dir():
            return above / "images"
    raise InputError(f"{folder}: no folder `images` in it or above it; name the photos' folder with --images")


if __name__ == "__main__":
    run(PROG, main)
