"""Decodes pictures of any bit depth, with or without transparency, as 8 bit RGB or RGBA; PNG and
JPEG alone.

    pixels = decode_rgb(path, background=255)
    pixels = decode_rgba(path)

By the file's content, whatever its name is. A large picture is converted in bands, so that its
memory is that of the decoded and of the converted picture, not a multiple.
"""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import UInt8, UInt16
from PIL import Image

from files.untrusted import PICTURES, reading

MAX_IMAGE_BYTES = 1 << 30
MAX_PIXELS = 1 << 27  # half as many for 16-bit images
PIXELS_PER_BAND = 1 << 18
# EXIF: which way is up
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


def decode_rgb(path: Path, background: int) -> UInt8[np.ndarray, "h w 3"]:
    """The picture over a gray level from 0 to 255. Raises ValueError if it is too large, and what
    Pillow and OpenCV raise if it is damaged."""
    return _decode(path, 3, lambda pixels: _flatten(pixels, background))


def decode_rgba(path: Path) -> UInt8[np.ndarray, "h w 4"]:
    """The picture with its alpha, 255 where it has none. Raises as `decode_rgb`."""
    return _decode(path, 4, _to_rgba)


def _decode(
    path: Path,
    channels: int,
    convert: Callable[[np.ndarray], np.ndarray],
) -> UInt8[np.ndarray, "h w channels"]:
    """The picture's rows, converted from RGB or RGBA of 8 or 16 bits to this many channels of 8
    bits."""
    with Image.open(path, formats=PICTURES) as image:
        width, height = image.size
        depth = png_bit_depth(path) if image.format == "PNG" else 8
        is_deep = depth == 16
        scale_transparency(image, depth)
        if width * height > MAX_PIXELS // (2 if is_deep else 1):
            raise ValueError(f"{width}x{height} pixels are too many")
        read_rows = _deep_rows(path, image) if is_deep else _plain_rows(image)
        pixels = np.empty((height, width, channels), np.uint8)
        step = max(PIXELS_PER_BAND // width, 1)
        for top in range(0, height, step):
            rows = slice(top, min(top + step, height))
            pixels[rows] = convert(read_rows(rows))
        return pixels


def picture_size(path: Path) -> tuple[int, int]:
    """Width and height of a picture, by its header alone. Raises `InputError` if it is none."""
    with (
        reading(path, "a readable image", MAX_IMAGE_BYTES),
        Image.open(path, formats=PICTURES) as image,
    ):
        return image.size


# Not PIL.ImageOps.exif_transpose: it refuses a photo whose EXIF data it cannot write back, and
# copies one that is upright already.


def orientation_of(image: Image.Image) -> int:
    """The image's EXIF orientation, a key of TURNS; 1, upright, if it has none. Raises what Pillow
    raises."""
    value = image.getexif().get(ORIENTATION_TAG, 1)
    return value if value in TURNS else 1


def turn_upright(image: Image.Image, orientation: int) -> Image.Image:
    """The pixels of an image of this orientation as they are to be shown."""
    if orientation == 1:
        return image
    return image.transpose(TURNS[orientation])


def orientation(path: Path) -> int:
    """A picture's EXIF orientation. Raises `InputError` if it is no picture."""
    with (
        reading(path, "a readable image", MAX_IMAGE_BYTES),
        Image.open(path, formats=PICTURES) as image,
    ):
        return orientation_of(image)


def may_be_transparent(path: Path) -> bool:
    """Whether a picture has transparency, by its header alone. Raises what Pillow raises if it is
    no picture."""
    with Image.open(path, formats=PICTURES) as image:
        return has_alpha(image)


def has_alpha(image: Image.Image) -> bool:
    """Whether an opened picture has transparency: a channel, or a colour that stands for it."""
    return "A" in image.getbands() or "transparency" in image.info


def scale_transparency(image: Image.Image, depth: int) -> None:
    """Scales the gray level that stands for transparency in a PNG of 2 or 4 bits, as Pillow scales
    its pixels, but not this level."""
    level = image.info.get("transparency")
    if depth in (2, 4) and image.mode == "L" and isinstance(level, int):
        image.info["transparency"] = level * 255 // (2**depth - 1)


def _plain_rows(image: Image.Image) -> Callable[[slice], UInt8[np.ndarray, "h w channels"]]:
    """A function that gives rows of an 8 bit image as RGB or RGBA."""
    mode = "RGBA" if has_alpha(image) else "RGB"
    image.load()
    return lambda rows: np.asarray(
        image.crop((0, rows.start, image.width, rows.stop)).convert(mode)
    )


def _deep_rows(
    path: Path, image: Image.Image
) -> Callable[[slice], UInt16[np.ndarray, "h w channels"]]:
    """The same for a 16 bit PNG, which OpenCV reads with all its bits; Pillow does not."""
    image.verify()
    pixels = cv2.imdecode(np.fromfile(path, dtype=np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None:
        raise OSError("damaged PNG")
    if pixels.ndim == 2:
        return lambda rows: np.repeat(pixels[rows, :, None], 3, axis=2)
    return lambda rows: pixels[rows][..., [2, 1, 0, 3][: pixels.shape[2]]]


def _flatten(
    pixels: UInt8[np.ndarray, "h w channels"] | UInt16[np.ndarray, "h w channels"], background: int
) -> UInt8[np.ndarray, "h w 3"]:
    """RGB or RGBA of 8 or 16 bits as RGB of 8 bits, over a gray level from 0 to 255."""
    if pixels.dtype == np.uint8 and pixels.shape[2] == 3:
        return pixels
    maximum = np.iinfo(pixels.dtype).max
    colors = pixels[..., :3] / maximum
    if pixels.shape[2] == 4:
        alpha = pixels[..., 3:] / maximum
        colors = colors * alpha + background / 255 * (1 - alpha)
    return np.round(255 * colors).astype(np.uint8)


def _to_rgba(
    pixels: UInt8[np.ndarray, "h w channels"] | UInt16[np.ndarray, "h w channels"],
) -> UInt8[np.ndarray, "h w 4"]:
    """RGB or RGBA of 8 or 16 bits as RGBA of 8 bits."""
    if pixels.dtype == np.uint16:
        pixels = np.round(pixels / 257).astype(np.uint8)
    if pixels.shape[2] == 4:
        return pixels
    return np.dstack([pixels, np.full(pixels.shape[:2], 255, np.uint8)])


def png_bit_depth(path: Path) -> int:
    """Bits per channel of a PNG."""
    with open(path, "rb") as file:
        # IHDR is the first chunk: signature 8, length 4, type 4, width 4, height 4, depth
        return file.read(25)[24]
