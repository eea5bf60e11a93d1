"""Imports a COLMAP model: cameras.bin, images.bin, points3D.bin, or the same as .txt.

    python -m scenes.colmap project/sparse/0 data/mine --images project/images

MODEL may also be the project's folder, with the model in sparse/0 or sparse. Any camera model but
panoramas; images are undistorted to one pinhole camera if necessary. Views are numbered in the
order of their names.
"""

from collections.abc import Sequence
from pathlib import Path

from files.folders import new_folder, refuse_existing
from machine.cli import Parser, run
from scenes.capture.capture import add_flags, write_capture
from scenes.capture.colmap_files import FILES
from scenes.capture.colmap_model import read_capture
from util import InputError

PROG = "scenes.colmap"


def main(argv: Sequence[str] | None = None) -> None:
    parser = Parser(PROG, __doc__)
    parser.add_argument(
        "model", type=Path, metavar="MODEL", help="folder with the model, or the project around it"
    )
    parser.add_argument(
        "target", type=Path, metavar="DST", help="the scene to make: DST/train and DST/test"
    )
    parser.add_argument(
        "--images",
        type=Path,
        metavar="DIR",
        help="the photos (default: the folder `images` in MODEL or the nearest folder above it)",
    )
    add_flags(parser)
    args = parser.parse_args(argv)
    refuse_existing(args.target)
    folder = find_model(args.model)
    capture = read_capture(folder, args.images or find_images(folder))
    with new_folder(args.target) as target:
        report = write_capture(capture, target, args, source=f"COLMAP {folder}")
    print(f"{args.target}: {report}")


def find_model(folder: Path) -> Path:
    """The folder of the model: `folder` itself, or sparse/0 or sparse in it."""
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    for candidate in (folder, folder / "sparse" / "0", folder / "sparse"):
        if any(
            all((candidate / f"{file}{suffix}").is_file() for file in FILES)
            for suffix in (".bin", ".txt")
        ):
            return candidate
    raise InputError(
        f"{folder}: holds no COLMAP model (cameras, images and points3D, as .bin or .txt)"
    )


def find_images(model: Path) -> Path:
    """The folder `images` in the model's folder or up to two folders above it."""
    for folder in (model, *model.absolute().parents[:2]):
        if (folder / "images").is_dir():
            return folder / "images"
    raise InputError(
        f"{model}: no folder `images` in it or above it; give the photos' folder with --images"
    )


if __name__ == "__main__":
    run(PROG, main)
