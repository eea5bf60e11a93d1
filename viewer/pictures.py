"""The pictures that a browser can choose, on its canvas."""

import cv2
import numpy as np
from jaxtyping import UInt8

from data_util import color_depth, crop_border
from dataio import Scene
from evaluation.pictures import GAP, to_uint8
from evaluation.render import Frame
from viewer.camera import NEUTRAL, Canvas, Lens, compose, depth_on_image, fitting_fov, place

COLOR = "Colour"
DEPTH = "Depth"
BESIDE_DEPTH = "Colour beside depth"
BESIDE_PHOTO = "Render beside nearest photo"
NOTHING = "Nothing"
PAIRS = {
    BESIDE_DEPTH,
    BESIDE_PHOTO,
}  # two pictures side by side; what the browser draws falls on neither
# The largest side to which a smaller picture is enlarged here; the browser enlarges it further
MAX_PIXELS = 512


def choices(has_depth: bool, has_photos: bool) -> list[str]:
    """The pictures that there are of a model and a scene."""
    left_out = set() if has_depth else {DEPTH, BESIDE_DEPTH}
    left_out |= set() if has_photos else {BESIDE_PHOTO}
    return [
        choice
        for choice in (COLOR, DEPTH, BESIDE_DEPTH, BESIDE_PHOTO, NOTHING)
        if choice not in left_out
    ]


def draw(
    choice: str,
    frame: Frame,
    photo: UInt8[np.ndarray, "s s 3"] | None,
    depth_range: tuple[float, float],
    lens: Lens,
    canvas: Canvas,
) -> UInt8[np.ndarray, "h w 3"]:
    """The chosen picture of a frame, scaled to the canvas. Pairs share it half and half."""
    color = to_uint8(frame.image)
    depth = None
    if choice in (DEPTH, BESIDE_DEPTH):
        depth = color_depth(crop_border(depth_on_image(frame.depth, lens.sidelength)), *depth_range)
    if choice in PAIRS:
        half = Canvas(max(1, canvas.width // 2), canvas.height)
        pair = np.concatenate(
            [
                _fitted(picture, lens, half)
                for picture in (color, depth if choice == BESIDE_DEPTH else photo)
            ],
            axis=1,
        )
        middle = pair.shape[1] // 2
        pair[:, middle - GAP // 2 : middle + GAP // 2] = NEUTRAL
        return pair
    return _fitted(depth if choice == DEPTH else color, lens, canvas)


def photo(views: Scene, view: int) -> UInt8[np.ndarray, "s s 3"]:
    """A training photo without its border."""
    return np.ascontiguousarray(crop_border(views.images[view]).permute(1, 2, 0).numpy())


def depth_legend(width: int = 256, height: int = 16) -> UInt8[np.ndarray, "h w 3"]:
    """The colours of depth, from the nearest, left, to the farthest."""
    return cv2.resize(
        color_depth(np.linspace(0, 1, width)[None], 0.0, 1.0),
        (width, height),
        interpolation=cv2.INTER_NEAREST,
    )


def _fitted(
    picture: UInt8[np.ndarray, "s s 3"], lens: Lens, canvas: Canvas
) -> UInt8[np.ndarray, "h w 3"]:
    return compose(
        picture,
        place(lens, fitting_fov(lens, canvas), canvas),
        canvas,
        max(MAX_PIXELS, lens.sidelength),
    )
