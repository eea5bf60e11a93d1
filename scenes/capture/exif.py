"""EXIF data of photos: which way is up, and what of it another file can hold."""

from PIL import Image

ORIENTATION_TAG = 0x0112
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
SIDEWAYS = (5, 6, 7, 8)


def orientation_of(image: Image.Image) -> int:
    """The image's EXIF orientation, a key of TURNS; 1, upright, if it has none. Raises what Pillow
    raises."""
    value = image.getexif().get(ORIENTATION_TAG, 1)
    return value if value in TURNS else 1


def turn_upright(image: Image.Image, orientation: int) -> Image.Image:
    """The pixels of an image of this orientation as they are to be shown."""
    return image.transpose(TURNS[orientation]) if orientation in TURNS else image


def upright_exif(image: Image.Image) -> bytes:
    """The image's EXIF data but for its orientation, to be saved; none if Pillow reads it but
    cannot write it."""
    exif = image.getexif()
    exif.pop(ORIENTATION_TAG, None)
    try:
        return exif.tobytes()
    except Exception:  # of many kinds: values are not of the types that their tags have
        return b""
