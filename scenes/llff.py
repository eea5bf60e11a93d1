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

from files.folders import new_folder, refuse_existing
from machine.cli import Parser, run
from scenes.capture.listing import warnings_last
from scenes.capture.options import CaptureOptions, add_flags, add_masks_flag, require_pycolmap

PROG = "scenes.llff"


def main(argv: Sequence[str] | None = None) -> None:
    parser = Parser(PROG, __doc__)
    parser.add_argument(
        "source", type=Path, metavar="SRC", help="the folder that holds poses_bounds.npy"
    )
    parser.add_argument(
        "target", type=Path, metavar="DST", help="the scene to make: DST/train and DST/test"
    )
    parser.add_argument(
        "--images",
        type=Path,
        metavar="DIR",
        help="the images (default: images, images_4 or images_8 in SRC)",
    )
    add_masks_flag(parser)
    add_flags(parser)
    args = parser.parse_args(argv)
    refuse_existing(args.target)
    require_pycolmap()
    # here, because they import pycolmap
    from scenes.capture.capture import write_capture
    from scenes.capture.llff import find_llff_images, read_llff
    from scenes.capture.masks import find_masks

    options = CaptureOptions.of(args)
    with warnings_last():
        path = args.source / "poses_bounds.npy"
        capture, near_plane = read_llff(path, args.images or find_llff_images(args.source))
        if args.masks:
            capture = replace(capture, masks=find_masks(args.masks, capture.images))
        if options.grid.near_plane is None:
            options = replace(options, grid=replace(options.grid, near_plane=near_plane))
        with new_folder(args.target) as target:
            report = write_capture(capture, target, options, source=f"LLFF {args.source}")
    print(f"{args.target}: {report}")


if __name__ == "__main__":
    run(PROG, main)
