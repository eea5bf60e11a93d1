"""The pictures that a browser can choose, on its canvas."""

from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from data_util import BORDER, color_depth, crop_border
from dataio import Scene
from evaluation.picture_grid import GAP_PIXELS, to_uint8
from evaluation.render import Frame
from viewer.camera import (
    Canvas,
    Lens,
    compose,
    depth_on_image,
    edge_color,
    fitting_fov,
    place_on_canvas,
)

COLOR = "Colour"
DEPTH = "Depth"
BESIDE_DEPTH = "Colour beside depth"
BESIDE_PHOTO = "Render beside nearest photo"
NOTHING = "Nothing"
DEPTHS = {DEPTH, BESIDE_DEPTH}
# Two pictures side by side: what the browser draws falls on neither
PAIRS = {BESIDE_DEPTH, BESIDE_PHOTO}
SEPARATOR = 225  # the gray level between them
ENLARGED_SIDE = 512  # pixels to which a smaller picture is enlarged here; the browser does the rest


def choices(has_depth: bool, has_photos: bool) -> list[str]:
    """The pictures that there are of a model and a scene."""
    depths = [DEPTH, BESIDE_DEPTH] if has_depth else []
    photos = [BESIDE_PHOTO] if has_photos else []
    return [COLOR, *depths, *photos, NOTHING]


class Shot(NamedTuple):
    """What can be shown of a pose: the frame, the colour around it, and the nearest training photo,
    if it is wanted. size: pixels a side to which pictures are shrunk; None for the model's."""

    frame: Frame
    background: UInt8[np.ndarray, "3"]
    photo: UInt8[np.ndarray, "s s 3"] | None = None
    size: int | None = None

    def depth(self, lens: Lens) -> Float[np.ndarray, "s s"]:
        """Depth in world units, at the size of the image and without its border."""
        return crop_border(depth_on_image(self.frame.depth, lens.sidelength))

    def depth_range(self, lens: Lens) -> tuple[float, float]:
        """The nearest and the farthest depth in view, but for a hundredth of the pixels at both
        ends: what the colours span."""
        nearest, farthest = np.percentile(self.depth(lens), (1, 99))
        return float(nearest), float(farthest)

    def colored_depth(self, lens: Lens) -> UInt8[np.ndarray, "s s 3"]:
        """The depth in colours."""
        return color_depth(self.depth(lens), *self.depth_range(lens))


def draw(choice: str, shot: Shot, lens: Lens, canvas: Canvas) -> UInt8[np.ndarray, "h w 3"]:
    """The chosen picture, scaled to the canvas. Pairs share it half and half."""
    if choice == DEPTH:
        return _draw_depth(shot, lens, canvas)
    color = to_uint8(shot.frame.image)
    if choice not in PAIRS:
        return _fit(color, lens, canvas, shot)
    half = Canvas(max(1, canvas.width // 2), canvas.height)
    if choice == BESIDE_DEPTH:
        other = _draw_depth(shot, lens, half)
    else:
        other = _fit(shot.photo, lens, half, shot)
    pair = np.concatenate([_fit(color, lens, half, shot), other], axis=1)
    middle = pair.shape[1] // 2
    pair[:, middle - GAP_PIXELS // 2 : middle + GAP_PIXELS // 2] = SEPARATOR
    return pair


def _draw_depth(shot: Shot, lens: Lens, canvas: Canvas) -> UInt8[np.ndarray, "h w 3"]:
    colors = shot.colored_depth(lens)
    return _fit(colors, lens, canvas, shot._replace(background=edge_color(colors)))


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


def _fit(
    picture: UInt8[np.ndarray, "s s 3"], lens: Lens, canvas: Canvas, shot: Shot
) -> UInt8[np.ndarray, "h w 3"]:
    side = lens.sidelength - 2 * BORDER
    shrinks = shot.size is not None and shot.size < side
    return compose(
        picture,
        place_on_canvas(lens, fitting_fov(lens, canvas), canvas),
        canvas,
        shot.size if shrinks else max(ENLARGED_SIDE, lens.sidelength),
        shot.background,
    )
