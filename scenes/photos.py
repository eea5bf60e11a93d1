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
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from files.folders import new_folder
from machine.cli import Parser, number, run
from machine.progress import Progress
from scenes.capture.capture import add_flags, split_views, write_capture
from scenes.capture.colmap_model import model_capture
from scenes.capture.exposure import exposure_warning
from scenes.capture.masks import find_masks, place_mask
from scenes.capture.photos import (
    KEPT_SIDE,
    kept_size,
    list_photos,
    place_photo,
    require_different,
    require_one_size,
)
from scenes.capture.sfm import reconstruct
from scenes.capture.video import extract_frames
from util import InputError

PROG = "colmap_wrapper.py"
MAX_EXHAUSTIVE = 300
MIN_REGISTERED = 3
FRAMES = 80


def main(argv: Sequence[str] | None = None) -> None:
    args = _parse(argv)
    source = args.video or args.img_dir
    with new_folder(args.trgt_dir) as folder, TemporaryDirectory(dir=folder, prefix=".") as name:
        workspace = Path(name)
        originals = _place(args, workspace)
        split_views(
            len(originals), args.test_every
        )  # refuses a split that would fail after the minutes below
        warning = exposure_warning(
            [workspace / "images" / name for name in originals], list(originals.values())
        )
        if warning:
            print(f"{source}: warning: {warning}")
        matching = args.matching or (
            "exhaustive" if len(originals) <= MAX_EXHAUSTIVE else "sequential"
        )
        model = reconstruct(workspace / "images", list(originals), workspace, matching)
        registered = 0 if model is None else model.num_reg_images()
        if registered < MIN_REGISTERED:
            raise InputError(
                f"{source}: only {registered} of {len(originals)} photos could be related to each "
                "other. "
                "Photos need texture (the background counts), sharpness, and neighbours a few "
                "degrees "
                "apart that show the same thing"
            )
        capture = model_capture(model, workspace / "images", named_by=source)
        missing = [original for name, original in originals.items() if name not in capture.names]
        masks = [_mask_path(workspace, name) for name in capture.names] if args.masks else []
        capture = replace(capture, names=[originals[name] for name in capture.names], masks=masks)
        report = write_capture(
            capture, folder, args, source=f"{'video' if args.video else 'photos'} {source}"
        )
    print(f"{args.trgt_dir}: {report}")
    print(
        f"  {registered} of {len(originals)} photos registered"
        + (f"; not: {', '.join(missing)}" if missing else "")
    )


def _parse(argv: Sequence[str] | None) -> Namespace:
    parser = Parser(PROG, __doc__)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--img_dir", type=Path, metavar="DIR", help="the photos (png, jpg, jpeg, heic, heif)"
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


def _place(args: Namespace, workspace: Path) -> dict[str, str]:
    """Puts photos or frames into workspace/images and masks beside them; their plain names, and
    their names for people.

    All input is checked here, before structure from motion takes its minutes.
    """
    side = max(KEPT_SIDE, args.sidelength or 0)
    if args.video:
        return extract_frames(args.video, args.frames or FRAMES, workspace / "images", side)
    photos = list_photos(args.img_dir)
    size = require_one_size(photos)
    require_different(photos)
    masks = find_masks(args.masks, photos) if args.masks else []
    names = [
        place_photo(photo, workspace / "images", index, side)
        for index, photo in enumerate(Progress(photos, desc="photos", unit="photo"))
    ]
    for mask, photo, name in zip(masks, photos, names, strict=False):
        place_mask(mask, photo, size, kept_size(*size, side), _mask_path(workspace, name))
    return dict(zip(names, (photo.name for photo in photos), strict=True))


def _mask_path(workspace: Path, name: str) -> Path:
    """Where the mask of the photo with this plain name lies."""
    return (workspace / "masks" / name).with_suffix(".png")


if __name__ == "__main__":
    run(PROG, main)
