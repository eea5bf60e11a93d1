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

from files.folders import new_folder, refuse_existing
from machine.cli import Parser, run
from scenes.capture.options import CaptureOptions, add_flags, require_pycolmap

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
    add_flags(parser)
    args = parser.parse_args(argv)
    refuse_existing(args.target)
    path = args.source / "transforms.json" if args.source.is_dir() else args.source
    require_pycolmap()
    # here, because they import pycolmap
    from scenes.capture.capture import write_capture
    from scenes.capture.transforms_capture import read_transforms

    capture = read_transforms(path)
    options = CaptureOptions.of(args)
    with new_folder(args.target) as target:
        report = write_capture(capture, target, options, source=f"transforms.json {path}")
    print(f"{args.target}: {report}")


if __name__ == "__main__":
    run(PROG, main)
