"""Photos as structure from motion takes them: of one size, upright, no larger than training can
use, plainly named, and evenly exposed: a surface of several brightnesses cannot be learned."""

import math
import shutil
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pillow_heif
from PIL import Image

from data_util import MAX_IMAGE_BYTES
from files.images import (
    ORIENTATION_TAG,
    SIDEWAYS,
    has_alpha,
    orientation_of,
    png_bit_depth,
    scale_transparency,
    turn_upright,
)
from files.untrusted import PICTURES, reading
from scenes.capture.listing import LISTED_SUFFIXES, natural_order, same_pictures, warn
from util import InputError

# Pixels of the shorter side: the largest --img_sidelength, 1024, and a quarter for what is cropped
KEPT_SIDE = 1280
HEIF_SUFFIXES = {".heic", ".heif"}
PHOTO_SUFFIXES = LISTED_SUFFIXES | HEIF_SUFFIXES
PHOTOS = (*PICTURES, "HEIF", "WEBP", "TIFF")
# EXIF data that tells the exposure
EXIF_FOLDER = 0x8769
TIME = 0x829A
F_NUMBER = 0x829D
SENSITIVITY = 0x8827
MAX_NAMED = 10  # photos in a message
MAX_STOPS = 1.0
MAX_STOPS_OF_BRIGHTNESS = 2.0  # more, because photos of one scene also differ in what they show
GAMMA = 2.2

pillow_heif.register_heif_opener()  # Pillow then opens HEIC files, turned upright


def list_photos(folder: Path) -> list[Path]:
    """The photos of a folder, or if it holds none those in its subfolders, in the natural order of
    their names; at least two. Of one shot as HEIC and as JPEG, the HEIC. Raises InputError."""
    if folder.is_file():
        raise InputError(f"{folder}: is not a folder of photos; a video is given as --video FILE")
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    photos = _photos_among(folder.iterdir(), folder) or _photos_among(folder.rglob("*"), folder)
    if not photos:
        suffixes = ", ".join(sorted(PHOTO_SUFFIXES))
        raise InputError(
            f"{folder}: holds no photos ({suffixes}); a video is given as --video FILE"
        )
    if len(photos) == 1:
        raise InputError(
            f"{photos[0]}: is the only photo; structure from motion needs several, from different "
            "places"
        )
    return sorted(photos, key=lambda path: natural_order(str(path.relative_to(folder))))


def _photos_among(paths: Iterable[Path], folder: Path) -> list[Path]:
    """Those of the paths that are photos and, seen from the folder, not hidden."""
    photos = [path for path in paths if _is_photo(path.relative_to(folder))]
    return _one_per_shot(photos, folder)


def _is_photo(path: Path) -> bool:
    hidden = any(part.startswith((".", "@")) for part in path.parts[-2:])
    return path.suffix.lower() in PHOTO_SUFFIXES and not hidden


def _one_per_shot(photos: list[Path], folder: Path) -> list[Path]:
    """The photos without those that lie beside a HEIC of their name; a warning counts these."""
    heifs = {path.with_suffix("") for path in photos if path.suffix.lower() in HEIF_SUFFIXES}
    copies = [
        path
        for path in photos
        if path.with_suffix("") in heifs and path.suffix.lower() not in HEIF_SUFFIXES
    ]
    if copies:
        warn(
            f"{folder}: {len(copies)} photos are there as HEIC too, which is taken, the first "
            f"{copies[0].name}"
        )
    return [path for path in photos if path not in copies]


def require_one_size(photos: list[Path]) -> tuple[int, int]:
    """The width and height of all photos as they are shown.

    Raises InputError unless all are readable and of one size: one focal length is estimated for
    all. It names those that are not of the commonest size.
    """
    sizes = {photo: upright_size(photo) for photo in photos}
    (size, common), *others = Counter(sizes.values()).most_common()
    if others:
        odd = [photo for photo in photos if sizes[photo] != size]
        names = ", ".join(photo.name for photo in odd[:MAX_NAMED])
        more = f" and {len(odd) - MAX_NAMED} more" if len(odd) > MAX_NAMED else ""
        raise InputError(
            f"{odd[0]}: is {_pixels(sizes[odd[0]])}, but {common} of {len(photos)} photos are "
            f"{_pixels(size)}; all must be of one size, from one camera that is always held the "
            f"same way. Take out of the folder: {names}{more}"
        )
    return size


def _pixels(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]} pixels"


def require_different(photos: list[Path]) -> None:
    """Raises InputError if two photos are the same file: one could become a training view, the
    other a test view."""
    for first, second in same_pictures(photos):
        raise InputError(
            f"{photos[second]}: is the same picture as {photos[first].name}; remove one of them"
        )


def upright_size(path: Path) -> tuple[int, int]:
    """Width and height of an image once it is turned as its EXIF tag says. Raises InputError."""
    with (
        reading(path, "a readable image", MAX_IMAGE_BYTES),
        Image.open(path, formats=PHOTOS) as image,
    ):
        width, height = image.size
        if orientation_of(image) in SIDEWAYS:
            return height, width
        return width, height


def kept_size(width: int, height: int, side: int) -> tuple[int, int]:
    """The size of an image whose shorter side is shrunk to `side` pixels; unchanged if it is no
    larger."""
    ratio = min(side / min(width, height), 1)
    return round(width * ratio), round(height * ratio)


def import_photo(photo: Path, folder: Path, index: int, side: int) -> str:
    """Puts the photo into the folder under a plain name and returns it.

    It is a copy if COLMAP reads it as it is; else a PNG with the EXIF data: decoded from HEIC,
    turned upright, its shorter side shrunk to `side` pixels by area averaging. One photo is in
    memory at a time. Raises InputError.
    """
    folder.mkdir(exist_ok=True)
    size = kept_size(*upright_size(photo), side)
    with (
        reading(photo, "a readable image", MAX_IMAGE_BYTES),
        Image.open(photo, formats=PHOTOS) as image,
    ):
        upright = orientation_of(image) == 1
        if image.format in PICTURES and image.size == size and upright:
            image.load()  # a damaged photo is refused here, where its name is known
            name = f"{index:06d}{photo.suffix.lower()}"
            shutil.copyfile(photo, folder / name)
        else:
            name = f"{index:06d}.png"
            if image.format == "PNG":
                scale_transparency(image, png_bit_depth(photo))
            shown = _shrink(image, size)
            shown.save(folder / name, exif=_upright_exif(image), compress_level=1)
    return name


def _shrink(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """The image turned as its EXIF tag says and shrunk to `size`, with its transparency."""
    # A JPEG then decodes at a half, a quarter or an eighth of its size.
    image.draft("RGB", (min(size), min(size)))
    image = turn_upright(image, orientation_of(image))
    if image.mode == "I;16":
        image = image.point(lambda level: level / 256).convert("L")
    if has_alpha(image):
        image = image.convert("RGBA")
    elif image.mode not in ("RGB", "L"):
        image = image.convert("RGB")
    return image.resize(size, Image.Resampling.BOX)


def _upright_exif(image: Image.Image) -> bytes:
    """The image's EXIF data, to be saved, but for its orientation, which `image` loses; none if
    Pillow reads the data but cannot write it."""
    exif = image.getexif()
    exif.pop(ORIENTATION_TAG, None)
    try:
        return exif.tobytes()
    except Exception:  # of many kinds: values are not of the types that their tags have
        return b""


def exposure_warning(photos: list[Path], names: list[str]) -> str | None:
    """A line if the most and the least exposed photo differ by more than a stop, a factor of two;
    else None.

    Judged by exposure time, aperture and sensitivity if all photos have them as EXIF data, else by
    mean brightness. `names` are the photos' names in the line.
    """
    stops = {name: exif_stops(photo) for name, photo in zip(names, photos, strict=True)}
    if None not in stops.values():
        return _difference(stops, MAX_STOPS, "EXIF data")
    return brightness_warning(
        {name: brightness_stops(photo) for name, photo in zip(names, photos, strict=True)}
    )


def brightness_warning(stops: dict[str, float]) -> str | None:
    """The same line, by mean brightness (`brightness_stops`), by the photos' names."""
    return _difference(stops, MAX_STOPS_OF_BRIGHTNESS, "mean brightness")


def _difference(stops: dict[str, float], limit: float, judged_by: str) -> str | None:
    if not stops:
        return None
    low = min(stops, key=stops.get)
    high = max(stops, key=stops.get)
    if stops[high] - stops[low] <= limit:
        return None
    return (
        f"exposures differ by {stops[high] - stops[low]:.1f} stops (from {judged_by}; least "
        f"{low}, most {high}), which blurs what is learned; lock exposure and white balance when "
        "you take photos"
    )


def exif_stops(photo: Path) -> float | None:
    """log2 of exposure time times sensitivity over the f-number squared; None if the photo does not
    tell."""
    with Image.open(photo, formats=PICTURES) as image:
        values = image.getexif().get_ifd(EXIF_FOLDER)
    try:
        time, f_number, sensitivity = (
            float(np.ravel(values[tag])[0]) for tag in (TIME, F_NUMBER, SENSITIVITY)
        )
        stops = math.log2(time * sensitivity / f_number**2)
    except (KeyError, TypeError, ValueError, ArithmeticError, IndexError):
        return None
    return stops if math.isfinite(stops) else None  # a value of 0/0 is not a number


def brightness_stops(photo: Path) -> float:
    """log2 of the mean linear brightness, 0 for white; at least -10."""
    with Image.open(photo, formats=PICTURES) as image:
        image.draft("L", (64, 64))
        gray = np.asarray(
            image.convert("L").resize((64, 64), Image.Resampling.BOX), dtype=np.float64
        )
    return math.log2(max(((gray / 255) ** GAMMA).mean(), 2**-10))
