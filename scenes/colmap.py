"""Imports a COLMAP model: cameras.bin, images.bin, points3D.bin, or the same as .txt.

    python -m scenes.colmap project/sparse/0 data/mine --images project/images

MODEL may also be the project's folder, with the model in sparse/0 or sparse. Any camera model but
panoramas; images are undistorted to one pinhole camera if necessary. Views are numbered in the
order of their names.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from files.folders import new_folder, refuse_existing
from machine.cli import Parser, run
from scenes.capture.listing import warnings_last
from scenes.capture.options import CaptureOptions, add_flags, add_masks_flag, require_pycolmap

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
    add_masks_flag(parser)
    add_flags(parser)
    args = parser.parse_args(argv)
    refuse_existing(args.target)
    require_pycolmap()
    # here, because they import pycolmap
    from scenes.capture.capture import write_capture
    from scenes.capture.colmap_model import find_images, find_model, read_colmap
    from scenes.capture.masks import find_masks

    options = CaptureOptions.of(args)
    with warnings_last():
        folder = find_model(args.model)
        capture = read_colmap(folder, args.images or find_images(folder))
        if args.masks:
            capture = replace(capture, masks=find_masks(args.masks, capture.images))
        with new_folder(args.target) as target:
            report = write_capture(capture, target, options, source=f"COLMAP {folder}")
    print(f"{args.target}: {report}")


if __name__ == "__main__":
    run(PROG, main)
