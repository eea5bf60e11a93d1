"""Imports a `transforms.json` of nerfstudio or instant-ngp.

    python -m scenes.transforms_json capture/transforms.json data/mine

Intrinsics may be shared or each frame's own; distortion (k1..k6, p1, p2; OPENCV, FULL_OPENCV or
OPENCV_FISHEYE) is removed with OpenCV's equations. Poses are camera-to-world with OpenGL axes, as
the format defines; `--up none` keeps the file's world coordinates. Sparse points come from
`ply_file_path` if the file has one. File names without an extension mean PNG. Views are numbered in
the order of their file names.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from files.folders import new_folder, refuse_existing
from machine.cli import Parser, run
from scenes.capture.listing import warnings_last
from scenes.capture.options import CaptureOptions, add_flags, add_masks_flag, require_pycolmap

PROG = "scenes.transforms_json"


def main(argv: Sequence[str] | None = None) -> None:
    parser = Parser(PROG, __doc__)
    parser.add_argument(
        "source",
        type=Path,
        metavar="SRC",
        help="a transforms.json, or the folder that holds it; its images must lie there or below",
    )
    parser.add_argument(
        "target", type=Path, metavar="DST", help="the scene to make: DST/train and DST/test"
    )
    add_masks_flag(parser)
    add_flags(parser)
    args = parser.parse_args(argv)
    refuse_existing(args.target)
    require_pycolmap()
    # here, because they import pycolmap
    from scenes.capture.capture import write_capture
    from scenes.capture.masks import find_masks
    from scenes.capture.transforms_capture import read_transforms

    options = CaptureOptions.of(args)
    with warnings_last():
        capture = read_transforms(args.source)
        if args.masks:
            capture = replace(capture, masks=find_masks(args.masks, capture.images))
        with new_folder(args.target) as target:
            report = write_capture(
                capture, target, options, source=f"transforms.json {args.source}"
            )
    print(f"{args.target}: {report}")


if __name__ == "__main__":
    run(PROG, main)
