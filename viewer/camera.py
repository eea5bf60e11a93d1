"""The browser's camera and ours: poses, fields of view, and where a scene's picture lies on the
canvas.

The browser projects to the middle of its canvas, with a vertical field of view. A scene's picture
is square, has its principal point anywhere, and is shown without the border that training never
sees. All that the browser draws falls on the picture if it is scaled and shifted as
`place_on_canvas` says.
"""

from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Float, Real, UInt8
from scipy.spatial.transform import Rotation

from data_util import BORDER, SceneIntrinsics


class Lens(NamedTuple):
    """The pinhole camera of square pictures, in their pixels; the first pixel spans 0 to 1."""

    focal: float
    cx: float
    cy: float
    sidelength: int


class Canvas(NamedTuple):
    """The size of what is drawn on, in pixels."""

    width: int
    height: int


class Place(NamedTuple):
    """Where a picture without its border lies on a canvas, in pixels: its left and top edges and
    its sidelength."""

    left: float
    top: float
    side: float


def lens_of(intrinsics: SceneIntrinsics, sidelength: int) -> Lens:
    """The lens of a scene's pictures of `sidelength` pixels."""
    matrix = intrinsics.matrix(sidelength)
    return Lens(float(matrix[0, 0]), float(matrix[0, 2]), float(matrix[1, 2]), sidelength)


def to_cam2world(
    wxyz: Real[np.ndarray, "4"], position: Real[np.ndarray, "3"]
) -> Float[np.ndarray, "4 4"]:
    """The pose of a camera from its rotation, a quaternion with the real part first, and its
    center."""
    cam2world = np.eye(4)
    cam2world[:3, :3] = Rotation.from_quat(wxyz, scalar_first=True).as_matrix()
    cam2world[:3, 3] = position
    return cam2world


def to_wxyz(cam2world: Float[np.ndarray, "4 4"]) -> Float[np.ndarray, "4"]:
    """The rotation of a pose as a quaternion, the real part first."""
    return Rotation.from_matrix(cam2world[:3, :3]).as_quat(scalar_first=True)


def fitting_fov(lens: Lens, canvas: Canvas) -> float:
    """The vertical field of view, in radians, at which the whole picture just fits on the
    canvas."""
    inner = (BORDER, lens.sidelength - BORDER)
    reach_x, reach_y = (max(abs(edge - center) for edge in inner) for center in (lens.cx, lens.cy))
    scale = (
        min(canvas.width / reach_x, canvas.height / reach_y) / 2
    )  # canvas pixels per picture pixel
    return float(2 * np.arctan(canvas.height / 2 / (scale * lens.focal)))


def place_on_canvas(lens: Lens, fov: float, canvas: Canvas) -> Place:
    """Where the picture lies on the canvas of a browser with the vertical field of view `fov`
    (radians)."""
    scale = canvas.height / 2 / np.tan(fov / 2) / lens.focal
    return Place(
        float(canvas.width / 2 + (BORDER - lens.cx) * scale),
        float(canvas.height / 2 + (BORDER - lens.cy) * scale),
        float((lens.sidelength - 2 * BORDER) * scale),
    )


def compose(
    picture: UInt8[np.ndarray, "s s 3"],
    place: Place,
    canvas: Canvas,
    most: int,
    background: UInt8[np.ndarray, "3"],
) -> UInt8[np.ndarray, "h w 3"]:
    """The picture, smoothly scaled, at its place on a canvas of the colour `background`.

    The result has the canvas's aspect ratio. It is smaller than the canvas if the picture's side
    would exceed `most` pixels there: the browser enlarges it.
    """
    ratio = min(1.0, most / place.side)
    width, height = (max(1, round(size * ratio)) for size in canvas)
    # The ratio is not quite the same along both axes once sizes are whole.
    edges_x, edges_y = (
        np.round(np.array([start, start + place.side]) * whole / full).astype(int)
        for start, whole, full in zip(place[:2], (width, height), canvas, strict=True)
    )
    size = (max(1, int(np.diff(edges_x)[0])), max(1, int(np.diff(edges_y)[0])))
    shrinks = size[0] < picture.shape[1]
    scaled = cv2.resize(picture, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)
    result = np.tile(background, (height, width, 1))
    left = edges_x[0]
    top = edges_y[0]
    shown = result[max(0, top) : max(0, top + size[1]), max(0, left) : max(0, left + size[0])]
    shown[:] = scaled[max(0, -top) :, max(0, -left) :][: shown.shape[0], : shown.shape[1]]
    return result


def edge_color(picture: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "3"]:
    """The median colour along a picture's edges, so that what lies around it hardly stands out."""
    edges = [picture[0], picture[-1], picture[:, 0], picture[:, -1]]
    return np.median(np.concatenate(edges), axis=0).astype(np.uint8)


def depth_on_image(depth: Float[np.ndarray, "m m"], sidelength: int) -> Float[np.ndarray, "s s"]:
    """A depth map at the size of its image, interpolated.

    A map's pixel holds the depth along the ray through its integer coordinate (docs/design.md,
    section 3), an image's the light around its pixel's middle.
    """
    ratio = depth.shape[0] / sidelength
    image2map = np.array([[ratio, 0, ratio / 2], [0, ratio, ratio / 2]])
    return cv2.warpAffine(
        depth,
        image2map,
        (sidelength, sidelength),
        borderMode=cv2.BORDER_REPLICATE,
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
    )
