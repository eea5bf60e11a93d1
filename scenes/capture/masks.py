"""Masks of the photographed object: white is the object, black is what `--background` shall replace
in training.

A mask is any image of the photo's size, as the photo is shown, under the photo's name without or
with its suffix: IMG_1.png or IMG_1.jpg.png for IMG_1.jpg. An image with transparent pixels is a
cut-out: its alpha is the mask.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pycolmap
from jaxtyping import Bool, Float, UInt8
from PIL import Image

from data_util import MAX_IMAGE_BYTES, list_images, load_rgba
from files.images import orientation_of, turn_upright
from files.untrusted import PICTURES, reading
from util import InputError

# Share of the photos seeing a point whose mask must contain it
OBJECT_SHARE = 0.8
HALF = 128


def find_masks(folder: Path, photos: list[Path]) -> list[Path]:
    """The mask of each photo. Raises InputError if one has none or several, or shares its mask with
    another."""
    named = defaultdict(list)
    photo_of = {}
    for mask in list_images(folder):
        named[mask.stem].append(mask)
    candidates = [named[photo.stem] + named[photo.name] for photo in photos]
    missing = [photo.name for photo, masks in zip(photos, candidates, strict=True) if not masks]
    if missing:
        raise InputError(
            f"{folder}: holds no mask for {missing[0]}, such as {Path(missing[0]).stem}.png "
            f"({len(missing)} of {len(photos)} photos have none)"
        )
    for photo, (mask, *others) in zip(photos, candidates, strict=True):
        if others:
            raise InputError(f"{others[0]}: and {mask.name} are masks for the same photo")
        if photo_of.setdefault(mask, photo) is not photo:
            raise InputError(
                f"{mask}: is the mask of {photo_of[mask].name} and of {photo.name}; name it "
                f"{photo.name}.png if it is for the latter"
            )
    return [mask for (mask,) in candidates]


def import_mask(
    mask: Path, photo: Path, size: tuple[int, int], kept: tuple[int, int], target: Path
) -> None:
    """Writes the mask as 8 bit gray PNG, shrunk from `size`, its photo's, to `kept`. Raises
    InputError, also if shrinking leaves no white pixel."""
    pixels = read_mask(mask)
    shown = pixels.shape[1], pixels.shape[0]
    if shown != size:
        raise InputError(
            f"{mask}: is {shown[0]}x{shown[1]} pixels, {photo.name} is shown as {size[0]}x{size[1]}"
            + ("; turn the masks as the photos are shown" if shown == size[::-1] else "")
        )
    shrunk = Image.fromarray(pixels).resize(kept, Image.Resampling.BOX)
    _require_object(np.asarray(shrunk), f"{mask}: shrunk to {kept[0]}x{kept[1]} pixels,")
    target.parent.mkdir(exist_ok=True)
    shrunk.save(target, compress_level=1)


def read_mask(path: Path) -> UInt8[np.ndarray, "h w"]:
    """An image's alpha if it is transparent anywhere, else its brightness, turned upright as its
    EXIF tag says.

    Of levels 0 and 1 alone, 1 is white. Raises InputError if no pixel is.
    """
    pixels = load_rgba(path)
    mask = Image.fromarray(pixels[..., 3])
    if pixels[..., 3].min() == 255:
        mask = Image.fromarray(pixels[..., :3]).convert("L")
    with (
        reading(path, "a readable image", MAX_IMAGE_BYTES),
        Image.open(path, formats=PICTURES) as image,
    ):
        levels = np.array(turn_upright(mask, orientation_of(image)))
    if levels.max() == 1:
        levels = 255 * levels
    _require_object(levels, f"{path}:")
    return levels


def _require_object(mask: UInt8[np.ndarray, "h w"], subject: str) -> None:
    if mask.max() < HALF:
        raise InputError(f"{subject} has no white pixel, but white marks the object")


def cut_out(
    image: UInt8[np.ndarray, "h w 3"],
    mask: UInt8[np.ndarray, "h w"],
    resample: Callable[[np.ndarray], np.ndarray],
) -> UInt8[np.ndarray, "h2 w2 4"]:
    """The image with the mask as alpha, resampled (undistorted, cropped, shrunk); black where it is
    transparent.

    Colors are averaged with their alpha as weight, so that nothing of the background bleeds into
    the object's edge.
    """
    alpha = mask.astype(np.float32) / 255
    weighted = resample(image * alpha[..., None])
    alpha = resample(alpha)
    colors = weighted / np.maximum(alpha, 1 / 255)[..., None]
    return np.round(np.dstack([colors, 255 * alpha])).clip(0, 255).astype(np.uint8)


class Silhouette(NamedTuple):
    """A view's mask, white where the object is, in the size of its camera's image; and its
    camera."""

    mask: UInt8[np.ndarray, "h w"]
    cam2world: Float[np.ndarray, "4 4"]
    camera: pycolmap.Camera


def object_points(
    points: Float[np.ndarray, "points 3"],
    silhouettes: Iterable[Silhouette],
    share: float = OBJECT_SHARE,
) -> Bool[np.ndarray, "points"]:
    """Which points belong to the object: more than this share of the silhouettes that have them in
    view contain them."""
    inside = np.zeros(len(points))
    in_view = np.zeros(len(points))
    for mask, pose, camera in silhouettes:
        in_camera = (points - pose[:3, 3]) @ pose[:3, :3]
        column, row = np.asarray(camera.img_from_cam(in_camera)).reshape(-1, 2).T
        view = (
            (in_camera[:, 2] > 0)
            & (column >= 0)
            & (column < camera.width)
            & (row >= 0)
            & (row < camera.height)
        )
        in_view += view
        inside[view] += mask[row[view].astype(int), column[view].astype(int)] >= HALF
    return inside > share * np.maximum(in_view, 1)
