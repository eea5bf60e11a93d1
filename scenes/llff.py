"""Imports a scene of LLFF (Mildenhall et al. 2019): `poses_bounds.npy` beside a folder of images.

    python -m scenes.llff nerf_llff_data/fern data/fern --images nerf_llff_data/fern/images_4

The images pair with the rows of the file in the order of their names. They may be smaller than the
file says (images_4, images_8). The near plane is nine tenths of the nearest bound, as in NeRF,
unless --near_plane gives it. The cameras face the scene from one side: what they see of a grid is
what can be learned.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from machine.cli import Parser, run
from scenes.capture.listing import warnings_last
from scenes.capture.options import CaptureOptions, parse_importer

PROG = "scenes.llff"


def main(argv: Sequence[str] | None = None) -> None:
    parser = Parser(PROG, __doc__)
    parser.add_argument(
        "source", type=Path, metavar="SRC", help="the folder that holds poses_bounds.npy"
    )
    parser.add_argument(
        "--images",
        type=Path,
        metavar="DIR",
        help="the images (default: images, images_4 or images_8 in SRC)",
    )
    args = parse_importer(parser, argv)
    # here, because they import pycolmap
    from scenes.capture.capture import import_capture
    from scenes.capture.llff import find_llff_images, read_llff

    options = CaptureOptions.of(args)
    with warnings_last():
        path = args.source / "poses_bounds.npy"
        capture, near_plane = read_llff(path, args.images or find_llff_images(args.source))
        if options.grid.near_plane is None:
            why = {"near_plane": f"nine tenths of the nearest bound in {path.name}"}
            grid = replace(options.grid, near_plane=near_plane, why=why)
            options = replace(options, grid=grid)
        report = import_capture(capture, args.masks, args.target, options, f"LLFF {args.source}")
    print(f"{args.target}: {report}")


if __name__ == "__main__":
    run(PROG, main)
