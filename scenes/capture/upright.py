"""Turns a captured world so that z is up: structure from motion leaves it lying any way.

rotation, why = upright_rotation(cam2world)
"""

import numpy as np
from jaxtyping import Float

from geometry.cameras import up_direction

# Degrees by which the photos may be held askew, in the median, for their up direction to mean
# anything
MAX_TILT = 20.0
UPRIGHT = 1.0  # degrees; a world nearer to upright than that keeps its coordinates to the bit


def upright_rotation(
    cam2world: Float[np.ndarray, "views 4 4"],
) -> tuple[Float[np.ndarray, "3 3"], str]:
    """The smallest rotation that takes the cameras' up direction (see `up_direction`) to z, and a
    line that says why.

    It is the identity if z is up already, or if the cameras were held so differently that they do
    not tell.
    """
    up, tilt = up_direction(cam2world)
    if tilt > MAX_TILT:
        return (
            np.eye(3),
            f"unknown: the cameras are {tilt:.0f} degrees from level in the median; the world "
            "stays as is",
        )
    angle = np.degrees(np.arccos(np.clip(up[2], -1, 1)))
    level = f"the cameras are {tilt:.2g} degrees from level in the median"
    if angle < UPRIGHT:
        return np.eye(3), f"z already, {level}"
    return rotation_to_z(
        up
    ), f"z, after turning the world by {angle:.1f} degrees and about z; {level}"


def rotation_to_z(direction: Float[np.ndarray, "3"]) -> Float[np.ndarray, "3 3"]:
    """The smallest rotation that takes a unit vector to the z axis; about the x axis for -z."""
    x, y, z = direction
    if z < -1 + 1e-9:
        return np.diag([1.0, -1.0, -1.0])
    # Rodrigues' formula for the axis direction × z, whose length is the angle's sine.
    cross = np.array([[0, 0, -x], [0, 0, -y], [x, y, 0]])
    return np.eye(3) + cross + cross @ cross / (1 + z)
