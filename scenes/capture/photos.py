"""Photos as structure from motion takes them: of one size, upright, no larger than training can
use, plainly named."""

import shutil
from pathlib import Path

import pillow_heif
from PIL import Image

from data_util import MAX_IMAGE_BYTES, list_images
from files.images import has_alpha
from files.untrusted import PICTURES, reading
from scenes.capture.exif import SIDEWAYS, orientation_of, turn_upright, upright_exif
from scenes.capture.files import natural_order, same_pictures
from util import InputError

# Pixels of the shorter side: the largest --img_sidelength, 1024, and a quarter for what is cropped
KEPT_SIDE = 1280
HEIF_SUFFIXES = {".heic", ".heif"}
PHOTOS = (*PICTURES, "HEIF")

pillow_heif.register_heif_opener()  # Pillow then opens HEIC files, turned upright


def list_photos(folder: Path) -> list[Path]:
    """The photos of a folder in the natural order of their names; at least two. Raises
    InputError."""
    photos = list_images(folder) + [
        path for path in folder.iterdir() if path.suffix.lower() in HEIF_SUFFIXES
    ]
    if not photos:
        raise InputError(f"{folder}: holds no photos (*.png, *.jpg, *.jpeg, *.heic, *.heif)")
    if len(photos) == 1:
        raise InputError(
            f"{photos[0]}: is the only photo; structure from motion needs several, from different "
            "places"
        )
    return sorted(photos, key=lambda path: natural_order(path.name))


def require_one_size(photos: list[Path]) -> tuple[int, int]:
    """The width and height of all photos as they are shown.

    Raises InputError unless all are readable and of one size: one focal length is estimated for
    all.
    """
    first_size = None
    for photo in photos:
        size = shown_size(photo)
        first_size = first_size or size
        if size != first_size:
            raise InputError(
                f"{photo}: is {size[0]}x{size[1]} pixels, {photos[0].name} is {first_size[0]}x"
                f"{first_size[1]}; all photos must be of one size, from one camera"
            )
    return first_size


def require_different(photos: list[Path]) -> None:
    """Raises InputError if two photos are the same file: one could become a training view, the
    other a test view."""
    for first, second in same_pictures(photos):
        raise InputError(
            f"{photos[second]}: is the same picture as {photos[first].name}; remove one of them"
        )


def shown_size(path: Path) -> tuple[int, int]:
    """Width and height of an image once it is turned as its EXIF tag says. Raises InputError."""
    with reading(path, "a readable image", MAX_IMAGE_BYTES, PHOTOS), Image.open(path) as image:
        return image.size[::-1] if orientation_of(image) in SIDEWAYS else image.size


def kept_size(width: int, height: int, side: int) -> tuple[int, int]:
    """The size of an image whose shorter side is shrunk to `side` pixels; unchanged if it is no
    larger."""
    ratio = min(side / min(width, height), 1)
    return round(width * ratio), round(height * ratio)


def place_photo(photo: Path, folder: Path, index: int, side: int) -> str:
    """Puts the photo into the folder under a plain name and returns it.

    It is a copy if COLMAP reads it as it is; else a PNG with the EXIF data: decoded from HEIC,
    turned upright, its shorter side shrunk to `side` pixels by area averaging. One photo is in
    memory at a time. Raises InputError.
    """
    folder.mkdir(exist_ok=True)
    size = kept_size(*shown_size(photo), side)
    with reading(photo, "a readable image", MAX_IMAGE_BYTES, PHOTOS), Image.open(photo) as image:
        as_it_is = image.format in PICTURES and image.size == size and orientation_of(image) == 1
        if as_it_is:
            image.load()  # a damaged photo is refused here, where its name is known
        else:
            upright = _upright(image, size)
            exif = upright_exif(image)
    name = f"{index:06d}{photo.suffix.lower() if as_it_is else '.png'}"
    if as_it_is:
        shutil.copyfile(photo, folder / name)
    else:
        upright.save(folder / name, exif=exif, compress_level=1)
    return name


def _upright(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """The image turned as its EXIF tag says and shrunk to `size`, with its transparency."""
    image.draft(
        "RGB", (min(size), min(size))
    )  # a JPEG then decodes at a half, a quarter or an eighth of its size
    image = turn_upright(image, orientation_of(image))
    if image.mode == "I;16":
        image = image.point(lambda level: level / 256).convert("L")
    if has_alpha(image):
        image = image.convert("RGBA")
    elif image.mode not in ("RGB", "L"):
        image = image.convert("RGB")
    return image.resize(size, Image.Resampling.BOX)
