"""A smooth camera path through keyframes."""

import numpy as np
from jaxtyping import Float
from scipy.interpolate import CubicSpline
from scipy.spatial.transform import Rotation, Slerp


def smooth_path(
    keyframes: Float[np.ndarray, "keyframes 4 4"],
    frames: int,
    closed: bool,
    scale: float,
) -> Float[np.ndarray, "frames 4 4"]:
    """Poses through all keyframes: positions on a cubic spline, rotations by spherical linear
    interpolation.

    The time between two keyframes is proportional to their distance plus `scale` (world units) per
    radian of the rotation between them. A closed path ends a frame before its start.
    """
    if len(keyframes) == 1:
        return np.repeat(keyframes, frames, axis=0)
    knots = np.concatenate([keyframes, keyframes[:1]]) if closed else keyframes
    positions = knots[:, :3, 3]
    rotations = Rotation.from_matrix(knots[:, :3, :3])
    angles = (rotations[:-1].inv() * rotations[1:]).magnitude()
    steps = np.linalg.norm(np.diff(positions, axis=0), axis=1) + scale * angles
    times = np.concatenate(
        [[0], np.cumsum(np.maximum(steps, 1e-6 * scale))]
    )  # equal keyframes follow each other
    at = np.linspace(0, times[-1], frames, endpoint=not closed)
    path = np.tile(np.eye(4), (frames, 1, 1))
    path[:, :3, 3] = CubicSpline(times, positions, bc_type="periodic" if closed else "not-a-knot")(
        at
    )
    path[:, :3, :3] = Slerp(times, rotations)(at).as_matrix()
    return path
