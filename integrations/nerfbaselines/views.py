"""Renders a camera of NerfBaselines, whose size and intrinsics need not be those of training.

The model renders squares through its own pinhole camera. Another camera at the same place sees the
same image plane, elsewhere and at another scale. So the part of the plane that it sees is rendered
in as many of the model's squares as it takes (windows), and resampled to its pixels. A window's
border, which training never sees, is left out, so that even the camera of training takes four.
"""

import math
from dataclasses import replace
from itertools import product

import cv2
import numpy as np
from jaxtyping import Float

from data_util import BORDER, crop_border
from evaluation.render import Frame, with_moved_principal_point
from evaluation.trained import TrainedModel

EDGE_TOLERANCE = 0.01  # pixels by which an edge may be off


class CameraRenderer:
    """Renders a trained model through any pinhole camera. The volume is inpainted once for each
    place of a window."""

    def __init__(self, model: TrainedModel):
        self.model = model
        self._windows = {}

    def render(
        self,
        cam2world: Float[np.ndarray, "4 4"],
        intrinsics: tuple[float, float, float, float],
        size: tuple[int, int],
    ) -> tuple[Float[np.ndarray, "h w 3"], Float[np.ndarray, "h w"] | None]:
        """The image in [0, 1] and, where the model has any, depth along z in world units.

        cam2world: in the scene's world. intrinsics: focal lengths and principal point along x and
        y, in pixels of which the first spans 0 to 1. size: width and height.
        """
        seen_x, seen_y = self._seen(intrinsics, size)
        side = self.model.architecture.img_sidelength
        lefts = window_starts(*seen_x, side)
        tops = window_starts(*seen_y, side)
        columns = np.array(seen_x) - (lefts[0] + BORDER)
        rows = np.array(seen_y) - (tops[0] + BORDER)
        picture = resample(self._canvas(cam2world, lefts, tops), columns, rows, size)
        depth = picture[..., 3] if self.model.learns_depth else None
        return picture[..., :3].clip(0, 1), depth

    def _seen(
        self, intrinsics: tuple[float, float, float, float], size: tuple[int, int]
    ) -> tuple[tuple[float, float], tuple[float, float]]:
        """From where to where a camera's image reaches, along x and y, in pixels of the model's."""
        matrix = self.model.intrinsics.matrix(self.model.architecture.img_sidelength)
        ranges = []
        for axis in range(2):
            focal = intrinsics[axis]
            center = intrinsics[axis + 2]
            ends = np.array([0, size[axis]])
            low, high = (ends - center) / focal * matrix[axis, axis] + matrix[axis, 2]
            ranges.append((float(low), float(high)))
        return ranges[0], ranges[1]

    def _canvas(
        self, cam2world: Float[np.ndarray, "4 4"], lefts: list[int], tops: list[int]
    ) -> Float[np.ndarray, "height width channels"]:
        """The insides of the windows side by side, averaged where they overlap."""
        inside = self.model.architecture.img_sidelength - 2 * BORDER
        height = tops[-1] - tops[0] + inside
        width = lefts[-1] - lefts[0] + inside
        channels = 4 if self.model.learns_depth else 3
        total = np.zeros((height, width, channels), np.float32)
        count = np.zeros((height, width, 1), np.float32)
        for top, left in product(tops, lefts):
            picture = image_and_depth(self._window(left, top).render_view(cam2world))
            row = top - tops[0]
            column = left - lefts[0]
            place = np.s_[row : row + inside, column : column + inside]
            total[place] += crop_border(picture, channels_last=True)
            count[place] += 1
        return total / count

    def _window(self, left: int, top: int) -> TrainedModel:
        """The model, whose image begins so many of its pixels further right and down."""
        if (left, top) == (0, 0):
            return self.model
        if (left, top) not in self._windows:
            network = with_moved_principal_point(self.model.network, -left, -top)
            self._windows[left, top] = replace(self.model, network=network)
        return self._windows[left, top]


def window_starts(low: float, high: float, side: int) -> list[int]:
    """Where windows of `side` pixels begin whose insides cover low to high: one at 0 if it does,
    else as few as it takes, evenly spread."""
    if low >= BORDER - EDGE_TOLERANCE and high <= side - BORDER + EDGE_TOLERANCE:
        return [0]
    first = math.floor(low + EDGE_TOLERANCE) - BORDER
    last = max(first, math.ceil(high - EDGE_TOLERANCE) + BORDER - side)
    count = 1 + math.ceil((last - first) / (side - 2 * BORDER))
    return np.round(np.linspace(first, last, count)).astype(int).tolist()


def image_and_depth(frame: Frame) -> Float[np.ndarray, "s s channels"]:
    """A frame's image and, as a fourth channel, its depth at every pixel.

    A map pixel's ray goes through an integer coordinate of the map (docs/design.md, section 3), an
    image pixel's through the middle of the pixel.
    """
    if frame.depth is None:
        return frame.whole
    side = len(frame.whole)
    at = ((np.arange(side) + 0.5) * len(frame.depth) / side).astype(np.float32)
    columns, rows = np.meshgrid(at, at)
    depth = cv2.remap(
        frame.depth.astype(np.float32),
        columns,
        rows,
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )
    return np.dstack([frame.whole, depth])


def resample(
    canvas: Float[np.ndarray, "_ _ channels"],
    seen_x: Float[np.ndarray, "2"],
    seen_y: Float[np.ndarray, "2"],
    size: tuple[int, int],
) -> Float[np.ndarray, "h w channels"]:
    """The rectangle of a canvas from seen_x[0] to seen_x[1] and so on as an image of `size` (width,
    height): sampled bilinearly, and averaged over a pixel's area where it shrinks."""
    width, height = size
    shrinks = max(np.ptp(seen_x) / width, np.ptp(seen_y) / height)
    samples = max(1, math.ceil(shrinks - EDGE_TOLERANCE))
    at = []
    for (low, high), count in ((seen_x, width * samples), (seen_y, height * samples)):
        at.append((low + (np.arange(count) + 0.5) * (high - low) / count - 0.5).astype(np.float32))
    columns, rows = np.meshgrid(*at)
    sampled = cv2.remap(
        canvas.astype(np.float32),
        columns,
        rows,
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )
    if samples > 1:
        sampled = cv2.resize(sampled, size, interpolation=cv2.INTER_AREA)
    return sampled
