"""Masks of the photographed object: white is the object, black is what `--background` shall replace in training.

A mask is any image of the photo's size, as the photo is shown, under the photo's name without or with its suffix:
IMG_1.png or IMG_1.jpg.png for IMG_1.jpg. An image with transparent pixels is a cut-out: its alpha is the mask.
"""
from pathlib import Path

import numpy as np
import pycolmap
from jaxtyping import Bool, Float, UInt8
from PIL import Image

from data_util import list_images, load_image, square_resize
from util import InputError

OBJECT_SHARE = 0.8  # of the photos that have a point in view; in the masks of that many it belongs to the object
HALF = 128


def find_masks(folder: Path, photos: list[Path]) -> list[Path]:
    """The mask of each photo. Raises InputError if one has none or two."""
    masks = {}
    for mask in list_images(folder):
        if mask.stem in masks:
            raise InputError(f"{mask}: and {masks[mask.stem].name} are masks for the same photo")
        masks[mask.stem] = mask
    found = [masks.get(photo.stem) or masks.get(photo.name) for photo in photos]
    missing = [photo.name for photo, mask in zip(photos, found, strict=True) if mask is None]
    if missing:
        raise InputError(f"{folder}: holds no mask for {missing[0]}, such as {Path(missing[0]).stem}.png "
                         f"({len(missing)} of {len(photos)} photos have none)")
    return found


def place_mask(mask: Path, photo: Path, size: tuple[int, int], kept: tuple[int, int], target: Path) -> None:
    """Writes the mask as 8 bit gray PNG, shrunk from `size`, its photo's, to `kept`. Raises InputError."""
    pixels = read_mask(mask)
    shown = pixels.shape[1], pixels.shape[0]
    if shown != size:
        raise InputError(f"{mask}: is {shown[0]}x{shown[1]} pixels, {photo.name} is shown as {size[0]}x{size[1]}"
                         + ("; turn the masks as the photos are shown" if shown == size[::-1] else ""))
    if pixels.max() < HALF:
        raise InputError(f"{mask}: has no white pixel, but white marks the object")
    target.parent.mkdir(exist_ok=True)
    Image.fromarray(pixels).resize(kept, Image.Resampling.BOX).save(target, compress_level=1)


def read_mask(path: Path) -> UInt8[np.ndarray, "h w"]:
    """An image's alpha if it is transparent anywhere, else its brightness; of levels 0 and 1 alone, 1 is white."""
    pixels = load_image(path)
    with Image.open(path) as image:
        alpha = np.asarray(image.convert("RGBA"))[..., 3] if image.has_transparency_data else np.uint8([255])
    if alpha.min() < 255:
        return alpha.copy()
    gray = np.asarray(Image.fromarray(pixels).convert("L"))
    return 255 * gray if gray.max() == 1 else gray


def cut_out(image: UInt8[np.ndarray, "h w 3"], mask: UInt8[np.ndarray, "h w 3"],
            sidelength: int | None) -> UInt8[np.ndarray, "h2 w2 4"]:
    """The image with the mask as alpha, cropped and shrunk to `sidelength` if given; black where it is transparent.

    Colors are averaged with their alpha as weight, so that nothing of the background bleeds into the object's edge.
    """
    weighted = np.round(image * (mask / 255)).astype(np.uint8)
    if sidelength:
        weighted, mask = square_resize(weighted, sidelength), square_resize(mask, sidelength)
    color = np.round(255 * (weighted / np.maximum(mask, 1))).clip(0, 255).astype(np.uint8)
    return np.concatenate([color, mask[..., :1]], axis=2)


def object_points(points: Float[np.ndarray, "points 3"], masks: list[Path], cam2world: Float[np.ndarray, "views 4 4"],
                  cameras: list[pycolmap.Camera]) -> Bool[np.ndarray, "points"]:
    """Which sparse points belong to the object: nearly all photos that have them in view have them in their mask."""
    inside, in_view = np.zeros(len(points)), np.zeros(len(points))
    for path, pose, camera in zip(masks, cam2world, cameras, strict=True):
        mask = load_image(path)[..., 0]
        in_camera = (points - pose[:3, 3]) @ pose[:3, :3]
        column, row = np.asarray(camera.img_from_cam(in_camera)).reshape(-1, 2).T
        view = (in_camera[:, 2] > 0) & (column >= 0) & (column < camera.width) & (row >= 0) & (row < camera.height)
        in_view += view
        inside[view] += mask[row[view].astype(int), column[view].astype(int)] >= HALF
    return inside > OBJECT_SHARE * np.maximum(in_view, 1)
