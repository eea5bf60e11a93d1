"""Imports a COLMAP model: cameras.bin, images.bin, points3D.bin, or the same as .txt.

    python -m scenes.colmap project/sparse/0 data/mine --images project/images

MODEL may also be the project's folder, with the model in sparse/0 or sparse. Any camera model but
panoramas; images are undistorted to one pinhole camera if necessary. Views are numbered in the
order of their names.
"""

from collections.abc import Sequence
from pathlib import Path

from machine.cli import Parser, run
from scenes.capture.listing import warnings_last
from scenes.capture.options import CaptureOptions, parse_importer

PROG = "scenes.colmap"


def main(argv: Sequence[str] | None = None) -> None:
    parser = Parser(PROG, __doc__)
    parser.add_argument(
        "model", type=Path, metavar="MODEL", help="folder with the model, or the project around it"
    )
    parser.add_argument(
        "--images",
        type=Path,
        metavar="DIR",
        help="the photos (default: the folder `images` in MODEL or the nearest folder above it)",
    )
    args = parse_importer(parser, argv)
    # here, because they import pycolmap
    from scenes.capture.capture import import_capture
    from scenes.capture.colmap_model import find_images, find_model, read_colmap

    options = CaptureOptions.of(args)
    with warnings_last():
        folder = find_model(args.model)
        capture = read_colmap(folder, args.images or find_images(folder))
        report = import_capture(capture, args.masks, args.target, options, f"COLMAP {folder}")
    print(f"{args.target}: {report}")


if __name__ == "__main__":
    run(PROG, main)
