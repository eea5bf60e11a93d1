"""The picture of a scene that `scenes.check` writes: cameras, grid and points from two sides, the grid over photos."""
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from data_util import SceneIntrinsics, load_image
from scenes.geometry.cameras import scene_axes
from scenes.geometry.coverage import grid_corners, project
from util import InputError

PANEL = 720
PHOTOS = 4
MOST_POINTS = 20000
GRID_COLOR, CAMERA_COLOR, POINT_COLOR, TEXT_COLOR = (214, 40, 40), (30, 90, 190), (150, 150, 150), (40, 40, 40)
EDGES = [(a, b) for a in range(8) for b in range(a + 1, 8) if (a ^ b).bit_count() == 1]


def draw_check(cam2world: Float[np.ndarray, "views 4 4"], intrinsics: SceneIntrinsics, images: list[Path],
               points: Float[np.ndarray, "points 3"]) -> UInt8[np.ndarray, "h w 3"]:
    """Two orthographic views above, photos below; without images only the views."""
    corners = grid_corners(np.array(intrinsics.grid_origin), intrinsics.scale)
    right, back, up = scene_axes(cam2world)
    shown = points[:: max(len(points) // MOST_POINTS, 1)]
    above = _side(cam2world, corners, shown, right, back, "from above")
    beside = _side(cam2world, corners, shown, right, -up, "from the side")
    rows = [np.hstack([above, beside])]
    if len(images) == len(cam2world):
        rows.append(_photo_row(cam2world, intrinsics, images, corners))
    return np.vstack(rows)


def _side(cam2world: np.ndarray, corners: np.ndarray, points: np.ndarray, across: np.ndarray, down: np.ndarray,
          title: str) -> np.ndarray:
    """An orthographic view that holds all cameras and the grid."""
    axes = np.stack([across, down], axis=1)
    centers = cam2world[:, :3, 3]
    extent = np.concatenate([centers, corners]) @ axes
    low, high = extent.min(axis=0), extent.max(axis=0)
    zoom = PANEL * 0.86 / max((high - low).max(), 1e-9)

    def place(world: np.ndarray) -> np.ndarray:
        return np.round((world @ axes - (low + high) / 2) * zoom + PANEL / 2).astype(np.int64)

    panel = np.full((PANEL, PANEL, 3), 255, np.uint8)
    dots = place(points)
    dots = dots[((dots >= 0) & (dots < PANEL)).all(axis=1)]
    panel[dots[:, 1], dots[:, 0]] = POINT_COLOR
    arrow = cam2world[:, :3, 2] * (30 / zoom)
    for start, end in zip(place(centers), place(centers + arrow), strict=True):
        cv2.line(panel, start.tolist(), end.tolist(), CAMERA_COLOR, 1, cv2.LINE_AA)
        cv2.circle(panel, start.tolist(), 3, CAMERA_COLOR, -1, cv2.LINE_AA)
    box = place(corners)
    for a, b in EDGES:
        cv2.line(panel, box[a].tolist(), box[b].tolist(), GRID_COLOR, 2, cv2.LINE_AA)
    cv2.putText(panel, f"{title}: cameras, grid, points", (14, 28), cv2.FONT_HERSHEY_SIMPLEX, 0.6, TEXT_COLOR, 1,
                cv2.LINE_AA)
    return panel


def _photo_row(cam2world: np.ndarray, intrinsics: SceneIntrinsics, images: list[Path],
               corners: np.ndarray) -> np.ndarray:
    """A few photos evenly through the scene with the grid box over them, scaled to the width of the views above."""
    chosen = np.unique(np.linspace(0, len(images) - 1, PHOTOS).round().astype(int))
    matrix = np.array([[intrinsics.focal, 0, intrinsics.cx], [0, intrinsics.focal, intrinsics.cy], [0, 0, 1]])
    width = 2 * PANEL // PHOTOS
    height = round(width * intrinsics.height / intrinsics.width)
    row = np.full((height, 2 * PANEL, 3), 255, np.uint8)
    for place, index in enumerate(chosen):
        try:
            photo = load_image(images[index])
        except InputError:  # among the findings already
            continue
        photo = np.ascontiguousarray(cv2.resize(photo, (width, height), interpolation=cv2.INTER_AREA))
        _draw_box(photo, cam2world[index:index + 1], matrix, width / intrinsics.width, corners)
        row[:, place * width:(place + 1) * width] = photo
    return row


def _draw_box(photo: np.ndarray, cam2world: np.ndarray, matrix: np.ndarray, zoom: float, corners: np.ndarray) -> None:
    """The box's edges in short pieces, so that those which pass behind the camera are drawn as far as they go."""
    share = np.linspace(0, 1, 65)[:, None]
    for a, b in EDGES:
        pixels, depth = project(corners[a] * (1 - share) + corners[b] * share, cam2world, matrix)
        pixels = np.clip(pixels[0] * zoom, -1e4, 1e4).astype(np.int64)
        in_front = depth[0] > 1e-6
        for k in range(64):
            if in_front[k] and in_front[k + 1]:
                cv2.line(photo, pixels[k].tolist(), pixels[k + 1].tolist(), GRID_COLOR, 2, cv2.LINE_AA)
