"""Chooses the voxel grid of a captured scene: origin, scale and near plane, from the cameras and
sparse points.

    grid, why = choose_grid(cam2world, camera, points)

In the original the user chose them by eye. Photographers walk around their object, so the point
that the cameras look at, and their distance from it, tell which of the points belong to the object.
"""

from dataclasses import dataclass, field
from typing import Literal

import cv2
import numpy as np
from jaxtyping import Float

from geometry.cameras import focus_point
from geometry.coverage import Grid, Pinhole, visible_depths

# Points within this share of the nearer cameras' distance from the center may belong to the object
REACH = 0.5
# The standard deviation, as a share of that distance, of the Gaussian that weights points by
# closeness
CLOSENESS = 0.7
# Share in percent of the points that the grid holds: of all nearby points, of the object's own
EXTENT_PERCENTILES = {
    "sparse points": 95,
    "sparse points in the masks": 99,
    "points in the silhouettes": 100,
}
PointKind = Literal["sparse points", "sparse points in the masks", "points in the silhouettes"]
# The origin lies in the middle between these percentiles; the median leans to the side with more
# texture
MIDDLE_PERCENTILES = (1, 99)
MARGIN = 1.1
MIN_POINTS = 50
YAW_STEP = 3  # degrees
# Without points, the grid is this share of the width that the nearer cameras see at the center
FRUSTUM_SHARE = 0.9


@dataclass(frozen=True)
class GivenGrid:
    """What of the grid is given, in world units; None is to be chosen.

    why: a line for a value that comes from the source, by the field's name; the others are the
    user's.
    """

    origin: Float[np.ndarray, "3"] | None = None
    scale: float | None = None
    near_plane: float | None = None
    why: dict[str, str] = field(default_factory=dict)


def choose_grid(
    cam2world: Float[np.ndarray, "views 4 4"],
    camera: Pinhole,
    points: Float[np.ndarray, "points 3"],
    given: GivenGrid = GivenGrid(),  # noqa: B008, it is frozen
    kind: PointKind = "sparse points",
) -> tuple[Grid, dict[str, str]]:
    """The grid for these cameras (camera-to-world, OpenCV axes), and a line for each of origin,
    scale and near plane that says why.

    `kind`: what the points are; but for sparse points they are the object's alone.
    """
    values = {"origin": given.origin, "scale": given.scale, "near_plane": given.near_plane}
    why = {
        name: given.why.get(name, "given") for name, value in values.items() if value is not None
    }
    focus = focus_point(cam2world) if given.origin is None else given.origin
    reach = REACH * np.percentile(np.linalg.norm(cam2world[:, :3, 3] - focus, axis=1), 10)
    center, own = _points_within(points, focus, reach, move=given.origin is None)
    origin = given.origin
    if origin is None and len(own):
        origin = np.percentile(own, MIDDLE_PERCENTILES, axis=0).mean(axis=0)
        why["origin"] = (
            f"middle of the {len(own)} {kind} within {reach:.3g} of where the cameras look"
        )
    elif origin is None:
        origin = center
        why["origin"] = "the point that the cameras look at; there are too few points around it"
    scale = given.scale
    if scale is None and len(own):
        percentile = EXTENT_PERCENTILES[kind]
        scale, why["scale"] = _scale_by_points(own, origin, percentile)
    elif scale is None:
        scale, why["scale"] = _scale_by_cameras(origin, cam2world, camera)
    near_plane = given.near_plane
    if near_plane is None:
        near_plane, covered = choose_near_plane(cam2world, camera, origin, scale)
        why["near_plane"] = (
            f"the depth planes from here cover {covered:.1%} of what the views see of the grid"
        )
    grid = Grid(np.asarray(origin, dtype=np.float64), float(scale), float(near_plane))
    return grid, why


def tightest_yaw(
    cam2world: Float[np.ndarray, "views 4 4"],
    camera: Pinhole,
    points: Float[np.ndarray, "points 3"],
    kind: PointKind = "sparse points",
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
        without_near_plane = GivenGrid(near_plane=1.0)  # the scale does not depend on it
        grid, _ = choose_grid(turned, camera, points @ rotation.T, without_near_plane, kind)
        scales.append(grid.scale)
    return rotations[int(np.argmin(scales))]


def choose_near_plane(
    cam2world: Float[np.ndarray, "views 4 4"],
    camera: Pinhole,
    origin: Float[np.ndarray, "3"],
    scale: float,
) -> tuple[float, float]:
    """The near plane whose depth planes cover the largest share of what views see of the grid, and
    that share. Among equally good near planes, the middle one."""
    cube = Grid(origin, scale, near_plane=0.0)
    depth_range = cube.far_plane - cube.near_plane
    visible, depth = visible_depths(cube.samples(), cam2world, camera)
    if not visible.any():
        return float(max(np.median(depth) - scale, 0.01 * scale)), 0.0
    depths = np.sort(depth[visible])
    nearest = max(depths[0] - scale, 0.01 * scale)
    farthest = max(depths[-1] - scale, 0.02 * scale)
    candidates = np.linspace(nearest, farthest, 400)
    covered = (
        np.searchsorted(depths, candidates + depth_range, side="right")
        - np.searchsorted(depths, candidates, side="left")
    ) / len(depths)
    best = candidates[covered >= covered.max() - 1e-9]
    return float((best[0] + best[-1]) / 2), float(covered.max())


def _points_within(
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
    if len(own) < MIN_POINTS:
        return focus, points[:0]
    return center, own


def _scale_by_points(
    own: Float[np.ndarray, "own 3"], origin: Float[np.ndarray, "3"], percentile: int
) -> tuple[float, str]:
    """The scale (world units) of a grid at `origin` that holds this percentage of the object's
    points, with a margin, and why."""
    reach = np.percentile(np.abs(own - origin).max(axis=1), percentile)
    return 2 * reach * MARGIN, (
        f"{percentile}% of these points lie within {reach:.3g} along every axis; "
        f"twice that plus a margin of {MARGIN - 1:.0%}"
    )


def _scale_by_cameras(
    origin: Float[np.ndarray, "3"], cam2world: Float[np.ndarray, "views 4 4"], camera: Pinhole
) -> tuple[float, str]:
    """The scale (world units) of a grid at `origin` that fills the nearer cameras' images, and
    why."""
    distance = np.percentile(np.linalg.norm(cam2world[:, :3, 3] - origin, axis=1), 10)
    # At most the distance, so that the grid stays in front of the cameras.
    width = min(FRUSTUM_SHARE * distance * camera.sidelength / camera.matrix[0, 0], distance)
    return width, f"what the nearer cameras, {distance:.3g} away, see at the origin"
