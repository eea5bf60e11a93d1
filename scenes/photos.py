"""Makes a scene folder of photos of an object: structure from motion finds poses and focal length.

    python colmap_wrapper.py --img_dir photos --trgt_dir data/mine
    python colmap_wrapper.py --video walk.mp4 --trgt_dir data/mine

Walk around the object and take 30 to 200 photos with one camera, at one zoom and orientation,
neighbours a few degrees apart, background in view. Everything runs on the CPU through COLMAP's
library. Up to 300 photos are matched all with all; more of them each with the next few and with
those at doubling distances in the order of their names, which suits a walk or the frames of a
video. The largest consistent set is kept; photos outside it are listed. The grid's origin, scale
and near plane are chosen from the sparse points and the cameras, and printed.

Photos of more than 1280 pixels along their shorter side are shrunk to that before anything else:
training uses at most 1024. With --masks the object is cut out, but poses are found with the whole
photos.
"""

from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from files.folders import new_folder
from machine.cli import Parser, number, run
from machine.pasted import command, shown_path
from scenes.capture.listing import warnings_last
from scenes.capture.options import CaptureOptions, add_flags, require_pycolmap

PROG = "colmap_wrapper.py"
MAX_EXHAUSTIVE = 300  # photos
FRAMES = 80
ENOUGH = 30  # photos


def main(argv: Sequence[str] | None = None) -> None:
    args = _parse(argv)
    require_pycolmap()
    # here, because they import pycolmap
    from scenes.capture.capture import write_capture
    from scenes.capture.from_photos import PhotoSource, import_pictures, relate

    options = CaptureOptions.of(args)
    source = PhotoSource(args.img_dir, args.masks, args.video, args.frames or FRAMES)
    with (
        warnings_last(),
        new_folder(args.trgt_dir) as folder,
        TemporaryDirectory(dir=folder, prefix=".") as name,
    ):
        pictures = import_pictures(source, Path(name), options)
        matching = args.matching
        if matching is None:
            matching = "exhaustive" if len(pictures.originals) <= MAX_EXHAUSTIVE else "sequential"
        capture, missing = relate(pictures, matching)
        kind = "video" if args.video else "photos"
        report = write_capture(capture, folder, options, source=f"{kind} {source.path}")
    print(f"{args.trgt_dir}: {report}")
    print(
        f"  cameras found for {len(capture.names)} of {len(pictures.originals)} photos"
        + (f"; not for {', '.join(missing)}" if missing else "")
    )
    if len(capture.names) < ENOUGH:
        print(f"  warning: that is few; {ENOUGH} photos or more, from all sides, give better views")
    print(f"to see in {shown_path(args.trgt_dir / 'check.png')} whether that is right:")
    print(command("-m", "scenes.check", shown_path(args.trgt_dir)))


def _parse(argv: Sequence[str] | None) -> Namespace:
    parser = Parser(PROG, __doc__)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--img_dir",
        type=Path,
        metavar="DIR",
        help="the photos (png, jpg, jpeg, heic, heif, webp, tif, tiff)",
    )
    source.add_argument("--video", type=Path, metavar="FILE", help="a video instead of photos")
    parser.add_argument(
        "--trgt_dir",
        type=Path,
        required=True,
        metavar="DIR",
        help="the scene to make: DIR/train and DIR/test",
    )
    parser.add_argument(
        "--frames",
        type=number(int, 2),
        metavar="N",
        help="frames to take of the video: the sharpest of each of N equal intervals (default: "
        f"{FRAMES})",
    )
    parser.add_argument(
        "--masks",
        type=Path,
        metavar="DIR",
        help="an image for each photo, of its name and of its size as shown: white (or opaque) is "
        "the "
        "object, the rest becomes transparent, and training sees --background there",
    )
    parser.add_argument(
        "--matching",
        choices=["exhaustive", "sequential"],
        help="compare all pairs of photos, or neighbours in the order of names (default: "
        "exhaustive "
        f"up to {MAX_EXHAUSTIVE} photos)",
    )
    add_flags(parser)
    args = parser.parse_args(argv)
    if args.video and args.masks:
        parser.error("--masks: needs the photos in --img_dir, not a --video")
    if args.frames and not args.video:
        parser.error("--frames: needs a --video")
    return args


if __name__ == "__main__":
    run(PROG, main)
