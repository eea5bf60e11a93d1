"""Makes a scene folder of photos of an object: structure from motion finds poses and focal length.

    python colmap_wrapper.py --img_dir photos --trgt_dir data/mine

Walk around the object and take 30 to 200 photos with one camera, at one zoom and orientation, neighbours a few degrees
apart, background in view. Everything runs on the CPU through COLMAP's library. Up to 300 photos are matched all with
all; more of them each with the next few and with those at doubling distances in the order of their names, which suits
a walk or the frames of a video. The largest consistent set is kept; photos outside it are listed. The grid's origin,
scale and near plane are chosen from the sparse points and the cameras, and printed.
"""
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from cli import Parser, run
from data_util import list_images
from folders import refuse_existing, scratch_folder
from scenes.capture.capture import add_flags, natural_order, write_capture
from scenes.capture.colmap_model import model_capture
from scenes.capture.photos import place_upright, require_one_size
from scenes.capture.sfm import reconstruct
from util import InputError

PROG = "colmap_wrapper.py"
MAX_EXHAUSTIVE = 300
MIN_REGISTERED = 3


def main(argv: Sequence[str] | None = None) -> None:
    parser = Parser(PROG, __doc__)
    parser.add_argument("--img_dir", type=Path, required=True, metavar="DIR", help="the photos (png, jpg, jpeg)")
    parser.add_argument("--trgt_dir", type=Path, required=True, metavar="DIR",
                        help="the scene to make: DIR/train and DIR/test")
    parser.add_argument("--matching", choices=["exhaustive", "sequential"],
                        help="compare all pairs of photos, or neighbours in the order of names (default: exhaustive "
                             f"up to {MAX_EXHAUSTIVE} photos)")
    add_flags(parser)
    args = parser.parse_args(argv)
    refuse_existing(args.trgt_dir)
    photos = sorted(list_images(args.img_dir), key=lambda path: natural_order(path.name))
    if not photos:
        raise InputError(f"{args.img_dir}: holds no photos (*.png, *.jpg, *.jpeg)")
    if len(photos) == 1:
        raise InputError(f"{photos[0]}: is the only photo; structure from motion needs several, from different places")
    require_one_size(photos)
    matching = args.matching or ("exhaustive" if len(photos) <= MAX_EXHAUSTIVE else "sequential")
    with scratch_folder(args.trgt_dir, "photos") as workspace:
        upright = workspace / "images"
        originals = {place_upright(photo, upright, index): photo.name for index, photo in enumerate(photos)}
        model = reconstruct(upright, list(originals), workspace, matching)
        registered = 0 if model is None else model.num_reg_images()
        if registered < MIN_REGISTERED:
            raise InputError(f"{args.img_dir}: only {registered} of {len(photos)} photos could be related to each "
                             "other. Photos need texture (the background counts), sharpness, and neighbours a few "
                             "degrees apart that show the same thing")
        capture = model_capture(model, upright, named_by=args.img_dir)
        missing = [name for copy, name in originals.items() if copy not in capture.names]
        capture = replace(capture, names=[originals[copy] for copy in capture.names])
        write_capture(capture, args.trgt_dir, args, source=f"photos {args.img_dir}")
    print(f"  {registered} of {len(photos)} photos registered" + (f"; not: {', '.join(missing)}" if missing else ""))


if __name__ == "__main__":
    run(PROG, main)
