"""Photos of an object become a scene folder: poses, focal length and grid are found by structure from motion.

    python colmap_wrapper.py --img_dir photos --trgt_dir data/mine

Walk around the object and take 30 to 200 photos with one camera, zoom and orientation held, neighbours a few degrees
apart, background in view. Everything runs on the CPU through COLMAP's library. Photos are matched all with all up to
300 of them; beyond that each with the next few and with those at doubling distances in the order of their names, as
suits a walk or the frames of a video. The largest consistent set is kept; photos outside it are listed. The grid's
origin, scale and near plane are chosen from the sparse points and the cameras, and printed.
"""
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pycolmap
from PIL import Image, ImageOps

from cli import Parser, run
from data_util import list_images
from scenes.capture.capture import Capture, add_flags, write_capture
from scenes.capture.sfm import reconstruct
from scenes.colmap import capture_of
from scenes.folder import natural_order, refuse_existing
from util import InputError

PROG = "colmap_wrapper.py"
EXHAUSTIVE_UP_TO = 300
FEWEST_REGISTERED = 3
ORIENTATION_TAG = 0x0112


def main(argv: Sequence[str] | None = None) -> None:
    parser = Parser(PROG, __doc__)
    parser.add_argument("--img_dir", type=Path, required=True, metavar="DIR", help="the photos (png, jpg, jpeg)")
    parser.add_argument("--trgt_dir", type=Path, required=True, metavar="DIR",
                        help="the scene to make: DIR/train and DIR/test")
    parser.add_argument("--matching", choices=["exhaustive", "sequential"],
                        help="compare all pairs of photos, or neighbours in the order of names (default: exhaustive "
                             f"up to {EXHAUSTIVE_UP_TO} photos)")
    add_flags(parser)
    args = parser.parse_args(argv)
    refuse_existing(args.trgt_dir)
    photos = sorted(list_images(args.img_dir), key=lambda path: natural_order(path.name))
    _validate(photos, args.img_dir)
    matching = args.matching or ("exhaustive" if len(photos) <= EXHAUSTIVE_UP_TO else "sequential")
    with tempfile.TemporaryDirectory(prefix="structure_from_motion_") as workspace:
        upright = Path(workspace) / "images"
        names = {_place_upright(photo, upright, index): photo for index, photo in enumerate(photos)}
        model = reconstruct(upright, list(names), Path(workspace), matching)
        registered = 0 if model is None else model.num_reg_images()
        if registered < FEWEST_REGISTERED:
            raise InputError(f"{args.img_dir}: only {registered} of {len(photos)} photos could be related to each "
                             "other. Photos need texture (the background counts), sharpness, and neighbours a few "
                             "degrees apart that show the same thing")
        write_capture(_capture(model, upright, names), args.trgt_dir, args, source=f"photos {args.img_dir}")
        _report_unregistered(model, names)


def _validate(photos: list[Path], folder: Path) -> None:
    """One camera means photos of one size: the focal length is estimated once for all."""
    if not photos:
        raise InputError(f"{folder}: holds no photos (*.png, *.jpg, *.jpeg)")
    if len(photos) == 1:
        raise InputError(f"{photos[0]}: is the only photo; structure from motion needs several, from different places")
    first_size = None
    for photo in photos:
        try:
            with Image.open(photo) as image:
                size = ImageOps.exif_transpose(image).size
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise InputError(f"{photo}: is not a readable image ({error})") from None
        first_size = first_size or size
        if size != first_size:
            raise InputError(f"{photo}: is {size[0]}x{size[1]} pixels, {photos[0].name} is {first_size[0]}x"
                             f"{first_size[1]}; all photos must be of one size, from one camera")


def _place_upright(photo: Path, folder: Path, index: int) -> str:
    """Puts the photo under a plain name: a link, or a turned copy where its EXIF tag says that it lies on its side."""
    folder.mkdir(exist_ok=True)
    with Image.open(photo) as image:
        if image.getexif().get(ORIENTATION_TAG, 1) == 1:
            name = f"{index:06d}{photo.suffix.lower()}"
            (folder / name).symlink_to(photo.absolute())
        else:
            name = f"{index:06d}.png"
            turned = ImageOps.exif_transpose(image)
            turned.save(folder / name, exif=turned.getexif())
    return name


def _capture(model: pycolmap.Reconstruction, upright: Path, photos: dict[str, Path]) -> Capture:
    """The registered photos under their own names."""
    capture = capture_of(model, upright, named_by=upright)
    return replace(capture, names=[photos[name].name for name in capture.names])


def _report_unregistered(model: pycolmap.Reconstruction, names: dict[str, Path]) -> None:
    registered = {model.images[index].name for index in model.reg_image_ids()}
    missing = [photo.name for name, photo in names.items() if name not in registered]
    print(f"  {len(registered)} of {len(names)} photos registered"
          + (f"; not: {', '.join(missing)}" if missing else ""))


if __name__ == "__main__":
    run(PROG, main)
