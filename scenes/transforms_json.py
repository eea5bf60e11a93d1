"""Imports a `transforms.json` of nerfstudio or instant-ngp.

    python -m scenes.transforms_json capture/transforms.json data/mine

Intrinsics may be shared or each frame's own; distortion (k1..k6, p1, p2; OPENCV, FULL_OPENCV or
OPENCV_FISHEYE) is removed with OpenCV's equations. Poses are camera-to-world with OpenGL axes, as
the format defines; `--up none` keeps the file's world coordinates. Sparse points come from
`ply_file_path` if the file has one. File names without an extension mean PNG. Views are numbered in
the order of their file names.
"""

from collections.abc import Sequence
from pathlib import Path

from machine.cli import Parser, run
from scenes.capture.listing import warnings_last
from scenes.capture.options import CaptureOptions, parse_importer

PROG = "scenes.transforms_json"


def main(argv: Sequence[str] | None = None) -> None:
    parser = Parser(PROG, __doc__)
    parser.add_argument(
        "source",
        type=Path,
        metavar="SRC",
        help="a transforms.json, or the folder that holds it; its images must lie there or below",
    )
    args = parse_importer(parser, argv)
    # here, because they import pycolmap
    from scenes.capture.capture import import_capture
    from scenes.capture.transforms_capture import read_transforms

    options = CaptureOptions.of(args)
    with warnings_last():
        capture = read_transforms(args.source)
        report = import_capture(
            capture, args.masks, args.target, options, f"transforms.json {args.source}"
        )
    print(f"{args.target}: {report}")


if __name__ == "__main__":
    run(PROG, main)
