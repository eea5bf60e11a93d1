"""Chooses the voxel grid of a captured scene: origin, scale and near plane, from the cameras and
sparse points.

    grid = choose_grid(cam2world, matrix, sidelength, points)

In the original the user chose them by eye. Photographers walk around their object, so the point
that the cameras look at, and their distance from it, tell which of the points belong to the object.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float

from geometry.cameras import focus_point
from geometry.coverage import grid_samples, project, seen

# Points within this share of the nearer cameras' distance from the center may belong to the object
REACH = 0.5
CLOSENESS = (
    0.7  # of that distance: the standard deviation of the Gaussian that weights points by closeness
)
# of points of whatever is near, and of the object alone
EXTENT_PERCENTILE = 95
OBJECT_EXTENT_PERCENTILE = 99
MIDDLE_PERCENTILES = (
    1,
    99,
)  # the middle between them, because the median leans to the side with more texture
MARGIN = 1.1
MIN_POINTS = 50
YAW_STEP = 3  # degrees
# Without points, the grid is this share of the width that the nearer cameras see at the center
FRUSTUM_SHARE = 0.9


@dataclass(frozen=True)
class Grid:
    """origin: the center; scale: the sidelength; near_plane: z-depth; all in world units. why: a
    line for each."""

    origin: Float[np.ndarray, "3"]
    scale: float
    near_plane: float
    why: dict[str, str]


def choose_grid(
    cam2world: Float[np.ndarray, "views 4 4"],
    matrix: Float[np.ndarray, "3 3"],
    sidelength: int,
    points: Float[np.ndarray, "points 3"],
    origin: Float[np.ndarray, "3"] | None = None,
    scale: float | None = None,
    near_plane: float | None = None,
    object_alone: bool = False,
) -> Grid:
    """The grid for cameras (camera-to-world, OpenCV axes) with the intrinsic matrix of square
    images.

    Keeps origin, scale and near plane if given (world units) and chooses the others.
    `object_alone`: all points are the object's, as far as masks tell.
    """
    why = {
        name: "given"
        for name, value in [("origin", origin), ("scale", scale), ("near_plane", near_plane)]
        if value is not None
    }
    focus = focus_point(cam2world) if origin is None else origin
    reach = REACH * np.percentile(np.linalg.norm(cam2world[:, :3, 3] - focus, axis=1), 10)
    center, own = _object_points(points, focus, reach, move=origin is None)
    if origin is None:
        origin = np.percentile(own, MIDDLE_PERCENTILES, axis=0).mean(axis=0) if len(own) else center
        why["origin"] = (
            f"middle of the {len(own)} sparse points within {reach:.3g} of where the cameras look"
            if len(own)
            else "the point that the cameras look at; there are too few points around it"
        )
    if scale is None:
        scale, why["scale"] = _choose_scale(
            own,
            origin,
            cam2world,
            matrix,
            sidelength,
            OBJECT_EXTENT_PERCENTILE if object_alone else EXTENT_PERCENTILE,
        )
    if near_plane is None:
        near_plane, covered = choose_near_plane(cam2world, matrix, sidelength, origin, scale)
        why["near_plane"] = (
            f"the depth planes from here cover {covered:.1%} of what the views see of the grid"
        )
    return Grid(np.asarray(origin, dtype=np.float64), float(scale), float(near_plane), why)


def tightest_yaw(
    cam2world: Float[np.ndarray, "views 4 4"],
    matrix: Float[np.ndarray, "3 3"],
    sidelength: int,
    points: Float[np.ndarray, "points 3"],
    object_alone: bool = False,
) -> Float[np.ndarray, "3 3"]:
    """The rotation about the z axis, of up to 90 degrees, after which the chosen grid is smallest.

    The identity without points: then the grid depends on the cameras alone, however they are
    turned.
    """
    if not len(points):
        return np.eye(3)
    rotations = [
        cv2.Rodrigues(np.array([0.0, 0.0, np.radians(angle)]))[0]
        for angle in range(0, 90, YAW_STEP)
    ]
    scales = []
    for rotation in rotations:
        turned = cam2world.copy()
        turned[:, :3] = rotation @ cam2world[:, :3]
        scales.append(
            choose_grid(
                turned,
                matrix,
                sidelength,
                points @ rotation.T,
                near_plane=1.0,
                object_alone=object_alone,
            ).scale
        )
    return rotations[int(np.argmin(scales))]


def choose_near_plane(
    cam2world: Float[np.ndarray, "views 4 4"],
    matrix: Float[np.ndarray, "3 3"],
    sidelength: int,
    origin: Float[np.ndarray, "3"],
    scale: float,
) -> tuple[float, float]:
    """The near plane whose depth planes cover the largest share of what views see of the grid, and
    that share.

    The planes are 2 * scale deep in all. Among equally good near planes, the middle one.
    """
    points = grid_samples(origin, scale)
    visible = seen(points, cam2world, matrix, sidelength)
    _, depth = project(points, cam2world, matrix)
    if not visible.any():
        return float(max(np.median(depth) - scale, 0.01 * scale)), 0.0
    depths = np.sort(depth[visible])
    candidates = np.linspace(
        max(depths[0] - scale, 0.01 * scale), max(depths[-1] - scale, 0.02 * scale), 400
    )
    covered = (
        np.searchsorted(depths, candidates + 2 * scale, side="right")
        - np.searchsorted(depths, candidates, side="left")
    ) / len(depths)
    best = candidates[covered >= covered.max() - 1e-9]
    return float((best[0] + best[-1]) / 2), float(covered.max())


def _object_points(
    points: Float[np.ndarray, "points 3"], focus: Float[np.ndarray, "3"], reach: float, move: bool
) -> tuple[Float[np.ndarray, "3"], Float[np.ndarray, "own 3"]]:
    """The object's center and the points within reach of it; the focus and no points if there are
    too few.

    With `move`, the center starts at the focus and moves to the mean of the points, weighted by
    their closeness to the center and to the focus, until it stays. Without the second weight it
    would drift along a wall behind the object, farther the more points the wall has.
    """
    center = focus
    for _ in range(50 if move else 0):
        offsets = np.stack([points - center, points - focus]) / (CLOSENESS * reach)
        weights = np.exp(-(offsets**2).sum(axis=(0, 2)) / 2)
        if weights.sum() < 1e-9:
            break
        center = weights @ points / weights.sum()
    own = points[np.linalg.norm(points - center, axis=1) < reach]
    return (focus, points[:0]) if len(own) < MIN_POINTS else (center, own)


def _choose_scale(
    own: np.ndarray,
    origin: np.ndarray,
    cam2world: np.ndarray,
    matrix: np.ndarray,
    sidelength: int,
    percentile: int,
) -> tuple[float, str]:
    if len(own):
        reach = np.percentile(np.abs(own - origin).max(axis=1), percentile)
        return 2 * reach * MARGIN, (
            f"{percentile}% of these points lie within {reach:.3g} along every axis; "
            f"twice that plus a margin of {MARGIN - 1:.0%}"
        )
    distance = np.percentile(np.linalg.norm(cam2world[:, :3, 3] - origin, axis=1), 10)
    # At most the distance, so that the grid stays in front of the cameras.
    width = min(FRUSTUM_SHARE * distance * sidelength / matrix[0, 0], distance)
    return width, f"what the nearer cameras, {distance:.3g} away, see at the origin"
