"""The picture that `scenes.check` writes: cameras, grid and points from two sides, and the grid's
box over photos."""

from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float, UInt8
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from data_util import SceneIntrinsics, load_image
from geometry.cameras import scene_axes
from geometry.coverage import Grid, world2pixels
from util import InputError, one_line

DPI = 100
# pixels
PANEL = 720
PHOTO_WIDTH = 350
TITLE_HEIGHT = 30
PHOTO_LETTERS = "ABCD"  # one photo each; they mark its camera in the views from the sides
MAX_POINTS = 20000
GRID_COLOR = "#d62828"
CAMERA_COLOR = "#1e5abe"
POINT_COLOR = "#969696"
EDGES = [(a, b) for a in range(8) for b in range(a + 1, 8) if (a ^ b).bit_count() == 1]


def draw_check(
    cam2world: Float[np.ndarray, "views 4 4"],
    intrinsics: SceneIntrinsics,
    names: list[str],
    images: list[Path],
    points: Float[np.ndarray, "points 3"],
) -> UInt8[np.ndarray, "h w 3"]:
    """Orthographic views from above and from the side; below them photos, unless there is not one
    per camera."""
    shown = []
    if len(images) == len(names):
        shown = np.unique(
            np.linspace(0, len(names) - 1, len(PHOTO_LETTERS)).round().astype(int)
        ).tolist()
    photo_height = (
        round(np.clip(PHOTO_WIDTH * intrinsics.height / intrinsics.width, 1, 2 * PANEL))
        if shown
        else 0
    )
    width = 2 * PANEL
    height = PANEL + (TITLE_HEIGHT + photo_height + 10 if shown else 0)
    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI)
    canvas = FigureCanvasAgg(figure)

    def add_axes(left: int, top: int, axes_width: int, axes_height: int) -> Axes:
        """Axes at pixels counted from the upper left corner."""
        return figure.add_axes(
            (
                left / width,
                1 - (top + axes_height) / height,
                axes_width / width,
                axes_height / height,
            )
        )

    right, back, up = scene_axes(cam2world)
    for column, (title, vertical) in enumerate([("from above", -back), ("from the side", up)]):
        axes = add_axes(column * PANEL + 60, TITLE_HEIGHT, PANEL - 80, PANEL - 80)
        plane = np.stack([right, vertical], axis=1)
        _draw_side(axes, plane, cam2world, intrinsics.grid(), points)
        for letter, view in zip(PHOTO_LETTERS, shown, strict=False):
            axes.annotate(
                letter,
                (cam2world[view, :3, 3] - intrinsics.grid_origin) @ plane,
                xytext=(5, 5),
                textcoords="offset points",
                fontweight="bold",
            )
        axes.set_title(title)
    for column, (letter, view) in enumerate(zip(PHOTO_LETTERS, shown, strict=False)):
        axes = add_axes(column * PANEL // 2 + 5, PANEL + TITLE_HEIGHT, PHOTO_WIDTH, photo_height)
        _draw_photo(axes, images[view], cam2world[view], intrinsics)
        axes.set_title(f"{letter}: {one_line(names[view])}", parse_math=False)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _draw_side(
    axes: Axes,
    plane: Float[np.ndarray, "3 2"],
    cam2world: Float[np.ndarray, "views 4 4"],
    grid: Grid,
    points: Float[np.ndarray, "points 3"],
) -> None:
    """An orthographic view on the plane that two columns span, in world units from the grid's
    center."""
    origin = grid.origin
    centers = (cam2world[:, :3, 3] - origin) @ plane
    box = (_box_lines(grid) - origin) @ plane
    low = np.nanmin(np.concatenate([centers, box]), axis=0)
    high = np.nanmax(np.concatenate([centers, box]), axis=0)
    half = 0.57 * (high - low).max()
    (x, y) = (low + high) / 2
    axes.set(
        xlim=(x - half, x + half),
        ylim=(y - half, y + half),
        xlabel="world units from the grid's center",
    )
    axes.grid(color="#eeeeee")
    axes.set_axisbelow(True)
    if len(points):
        thinned = (points[:: max(len(points) // MAX_POINTS, 1)] - origin) @ plane
        axes.plot(*thinned.T, ".", color=POINT_COLOR, markersize=1.5, label=f"{len(points)} points")
    ends = centers + cam2world[:, :3, 2] @ plane * (0.08 * half)
    arrows = np.stack([centers, ends, np.full_like(centers, np.nan)], axis=1).reshape(-1, 2)
    axes.plot(*arrows.T, color=CAMERA_COLOR, linewidth=1)
    axes.plot(*centers.T, "o", color=CAMERA_COLOR, markersize=5, label=f"{len(centers)} cameras")
    axes.plot(*box.T, color=GRID_COLOR, linewidth=2, label="grid")
    axes.legend(loc="upper right")


def _draw_photo(
    axes: Axes, path: Path, cam2world: Float[np.ndarray, "4 4"], intrinsics: SceneIntrinsics
) -> None:
    """One photo with the grid's box over it."""
    axes.axis("off")
    try:
        photo = load_image(path)
    except InputError:  # reported among the findings
        return
    if photo.shape[1] > PHOTO_WIDTH:
        shown_height = max(round(PHOTO_WIDTH * photo.shape[0] / photo.shape[1]), 1)
        photo = cv2.resize(photo, (PHOTO_WIDTH, shown_height), interpolation=cv2.INTER_AREA)
    width = intrinsics.width
    height = intrinsics.height
    axes.imshow(photo, extent=(0, width, height, 0), aspect="auto")
    matrix = np.array(
        [[intrinsics.focal, 0, intrinsics.cx], [0, intrinsics.focal, intrinsics.cy], [0, 0, 1]]
    )
    pixels, depth = world2pixels(_box_lines(intrinsics.grid()), cam2world[None], matrix)
    pixels[depth <= 1e-6] = np.nan  # behind the camera
    axes.plot(*pixels[0].T, color=GRID_COLOR, linewidth=2)
    axes.set(xlim=(0, width), ylim=(height, 0))


def _box_lines(grid: Grid) -> Float[np.ndarray, "points 3"]:
    """The edges of the grid's cube in short pieces, so that edges that pass the camera are cut
    where they do.

    NaN separates the edges.
    """
    corners = grid.corners()
    share = np.linspace(0, 1, 65)[:, None]
    return np.concatenate(
        [
            line
            for a, b in EDGES
            for line in (corners[a] * (1 - share) + corners[b] * share, np.full((1, 3), np.nan))
        ]
    )
