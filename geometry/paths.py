"""Camera paths: through keyframes, between two poses, around the grid."""

import numpy as np
from jaxtyping import Float
from scipy.interpolate import CubicSpline, PchipInterpolator
from scipy.spatial.transform import Rotation, Slerp

from geometry.cameras import SPIRAL_RADIANS, look_at, scene_axes
from util import InputError

MAX_GAP = np.radians(120)  # in azimuth; cameras with a larger gap do not surround the object
MAX_ELEVATION = np.radians(85)
DISTANCE_PERCENTILE = 80  # of the training cameras': from nearer by, images cut the object


def smooth_path(
    keyframes: Float[np.ndarray, "keyframes 4 4"],
    frames: int,
    closed: bool,
    scale: float,
    seconds: Float[np.ndarray, "legs"] | None = None,
) -> Float[np.ndarray, "frames 4 4"]:
    """Poses through all keyframes: positions on a cubic spline, rotations by spherical linear
    interpolation.

    seconds: of each leg; by default in proportion to `leg_lengths`, an even pace. A closed path
    ends a frame before its start.
    """
    if len(keyframes) == 1:
        return np.repeat(keyframes, frames, axis=0)
    knots = _knots(keyframes, closed)
    lengths = leg_lengths(keyframes, closed, scale)
    along = np.append(0, np.cumsum(lengths))
    clock = along if seconds is None else np.append(0, np.cumsum(seconds))
    frame_times = np.linspace(0, clock[-1], frames, endpoint=not closed)
    # Monotone, with a steady pace where the legs' paces meet
    at = frame_times if seconds is None else PchipInterpolator(clock, along)(frame_times)
    at = np.clip(at, 0, along[-1])  # its ends are rounded
    positions = CubicSpline(along, knots[:, :3, 3], bc_type="periodic" if closed else "not-a-knot")
    path = np.tile(np.eye(4), (frames, 1, 1))
    path[:, :3, 3] = positions(at)
    path[:, :3, :3] = Slerp(along, Rotation.from_matrix(knots[:, :3, :3]))(at).as_matrix()
    return path


def leg_lengths(
    keyframes: Float[np.ndarray, "keyframes 4 4"], closed: bool, scale: float
) -> Float[np.ndarray, "legs"]:
    """How far it is from each keyframe to the next, which of a closed path's last one is the first:
    their distance plus `scale` (world units) per radian of the rotation between them. Equal
    keyframes are a little apart."""
    knots = _knots(keyframes, closed)
    rotations = Rotation.from_matrix(knots[:, :3, :3])
    angles = (rotations[:-1].inv() * rotations[1:]).magnitude()
    steps = np.linalg.norm(np.diff(knots[:, :3, 3], axis=0), axis=1) + scale * angles
    return np.maximum(steps, 1e-6 * scale)


def _knots(
    keyframes: Float[np.ndarray, "keyframes 4 4"], closed: bool
) -> Float[np.ndarray, "knots 4 4"]:
    return np.concatenate([keyframes, keyframes[:1]]) if closed else keyframes


def interpolate(
    first: Float[np.ndarray, "4 4"], second: Float[np.ndarray, "4 4"], frames: int
) -> Float[np.ndarray, "frames 4 4"]:
    """Poses linear between two, both included, with rotations made orthonormal again (paper,
    section 4).

    Raises ValueError if the two look in opposite directions: no linear path joins them.
    """
    share = np.linspace(0, 1, frames)[:, None, None]
    path = first * (1 - share) + second * share
    left, sizes, right = np.linalg.svd(path[:, :3, :3])
    if sizes.min() < 0.05:
        raise ValueError("the two look in opposite directions; no linear path joins them")
    # The nearest rotation; the determinant stays 1 as no singular value reaches 0
    path[:, :3, :3] = left @ right
    return path


def around(
    cam2world: Float[np.ndarray, "views 4 4"],
    origin: Float[np.ndarray, "3"],
    frames: int,
    climb: bool,
) -> Float[np.ndarray, "frames 4 4"]:
    """Cameras that look at `origin`, the grid's, on a circle around it at the training cameras'
    median elevation or, with `climb`, on a spiral from their lowest to their highest; where they do
    not surround it, within their azimuths.

    A training camera that stands at the origin has no angle and does not count. Raises InputError
    if all do.
    """
    right, back, up = scene_axes(cam2world)
    offsets = cam2world[:, :3, 3] - origin
    offsets = offsets[offsets.any(axis=1)]
    if not len(offsets):
        raise InputError(
            "--scene: all its cameras stand at the grid's center; no path leads around it"
        )
    distances = np.linalg.norm(offsets, axis=1)
    radius = np.percentile(distances, DISTANCE_PERCENTILE)
    elevations = np.arcsin(np.clip(offsets @ up / distances, -1, 1))
    azimuths = np.arctan2(offsets @ back, offsets @ right)
    progress = np.arange(frames) / frames
    if climb:
        low, high = np.percentile(elevations, [5, 95])
        elevation = np.minimum(low + (high - low) * progress, MAX_ELEVATION)
        angles = SPIRAL_RADIANS * progress
    else:
        elevation = np.full(frames, min(np.median(elevations), MAX_ELEVATION))
        angles = 2 * np.pi * progress
    azimuth = _limit_azimuth(angles, azimuths)[:, None]
    directions = np.cos(elevation)[:, None] * (np.cos(azimuth) * right + np.sin(azimuth) * back)
    return look_at(origin + radius * (directions + np.sin(elevation)[:, None] * up), origin, up)


def _limit_azimuth(
    angles: Float[np.ndarray, "frames"], azimuths: Float[np.ndarray, "views"]
) -> Float[np.ndarray, "frames"]:
    """The path's angles if the cameras, at `azimuths`, surround the object; else a swing to and fro
    along the arc that nine tenths of them span."""
    ordered = np.sort(azimuths)
    gaps = np.diff(np.append(ordered, ordered[0] + 2 * np.pi))
    largest = int(gaps.argmax())
    if gaps[largest] < MAX_GAP:
        return angles
    start = ordered[(largest + 1) % len(ordered)]
    low, high = np.percentile((ordered - start) % (2 * np.pi), [5, 95])
    return start + low + (high - low) * (1 - np.cos(angles)) / 2
