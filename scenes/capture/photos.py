"""Photos as structure from motion takes them: all of one size, upright, under plain names."""
from pathlib import Path

from PIL import Image, ImageOps

from util import InputError

ORIENTATION_TAG = 0x0112


def require_one_size(photos: list[Path]) -> None:
    """Raises InputError unless all photos are readable and of one size: one focal length is estimated for all."""
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


def place_upright(photo: Path, folder: Path, index: int) -> str:
    """Puts the photo into the folder under a plain name and returns it: a link, or a rotated copy if its EXIF tag says
    that it lies on its side. COLMAP and the images written later must agree on what is up."""
    folder.mkdir(exist_ok=True)
    with Image.open(photo) as image:
        if image.getexif().get(ORIENTATION_TAG, 1) == 1:
            name = f"{index:06d}{photo.suffix.lower()}"
            (folder / name).symlink_to(photo.absolute())
        else:
            name = f"{index:06d}.png"
            upright = ImageOps.exif_transpose(image)
            upright.save(folder / name, exif=upright.getexif())
    return name
