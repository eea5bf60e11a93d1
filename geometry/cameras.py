"""Camera poses as pure functions: placing cameras, the paper's training and test cameras, which way
is up, axis conventions.

Poses are camera-to-world with OpenCV axes (x right, y down, z forward); the world's z axis points
up.
"""

import numpy as np
from jaxtyping import Float

GOLDEN_ANGLE = np.pi * (3 - np.sqrt(5))
# (5 degrees / 35 degrees)^2: people's roll relative to their pitch
ROLL_TO_PITCH = 0.02
# Degrees from z within which cameras' up direction counts as z, so that the training and the test
# views of a scene, whose up directions differ by less, have the same axes
NEARLY_UP = 5.0
# Degrees by which the photos may be held askew, in the median, for their up direction to mean
# anything
MAX_TILT = 20.0
UPRIGHT = 1.0  # degrees; a world nearer to upright than that keeps its coordinates to the bit
SPIRAL_RADIANS = 20.0  # azimuth from the equator to the pole in the original's test sets


def look_at(
    centers: Float[np.ndarray, "views 3"],
    target: Float[np.ndarray, "3"],
    up: Float[np.ndarray, "3"],
) -> Float[np.ndarray, "views 4 4"]:
    """Poses of cameras at `centers` that look at `target`, with `up` upwards in the image.

    Raises ValueError if a camera looks along `up`.
    """
    forward = _unit(target - centers)
    right = np.cross(forward, up)
    if (np.linalg.norm(right, axis=1) < 1e-9).any():
        raise ValueError(f"a camera looks along the up direction {up.tolist()}")
    right = _unit(right)
    cam2world = np.tile(np.eye(4), (len(centers), 1, 1))
    cam2world[:, :3, :3] = np.stack([right, np.cross(forward, right), forward], axis=2)
    cam2world[:, :3, 3] = centers
    return cam2world


def hemisphere(count: int, radius: float, seed: int) -> Float[np.ndarray, "count 3"]:
    """Camera centers uniform on the northern hemisphere (paper, section 4): a Fibonacci lattice.

    `seed` turns the lattice about the vertical axis.
    """
    index = np.arange(count)
    height = (index + 0.5) / count
    azimuth = GOLDEN_ANGLE * index + np.random.default_rng(seed).uniform(0, 2 * np.pi)
    return radius * _on_sphere(height, azimuth)


def spiral(count: int, radius: float) -> Float[np.ndarray, "count 3"]:
    """Camera centers on an Archimedean spiral (paper, section 4), from the equator up to just
    before the pole.

    The polar angle is linear in the azimuth, as in the original's test sets.
    """
    progress = np.arange(count) / count
    return radius * _on_sphere(np.sin(progress * np.pi / 2), SPIRAL_RADIANS * progress)


def focus_point(cam2world: Float[np.ndarray, "views 4 4"]) -> Float[np.ndarray, "3"]:
    """The point nearest to all viewing axes. Iteratively reweighted least squares, so that outliers
    count little."""
    centers = cam2world[:, :3, 3]
    forward = cam2world[:, :3, 2]
    # Projects onto the plane across the viewing axis
    across = np.eye(3) - forward[:, :, None] * forward[:, None, :]
    weights = np.ones(len(centers))
    point = centers.mean(axis=0)
    for _ in range(20):
        system = (across * weights[:, None, None]).sum(axis=0)
        # Parallel axes leave the system singular; damping then keeps the previous estimate.
        damping = 1e-6 * np.trace(system) * np.eye(3)
        point = np.linalg.solve(
            system + damping, np.einsum("n,nij,nj->i", weights, across, centers) + damping @ point
        )
        miss = np.linalg.norm(np.einsum("nij,nj->ni", across, point - centers), axis=1)
        weights = 1 / (miss + 0.05 * np.median(np.linalg.norm(centers - point, axis=1)) + 1e-12)
    return point


def up_direction(cam2world: Float[np.ndarray, "views 4 4"]) -> tuple[Float[np.ndarray, "3"], float]:
    """The world's up direction (unit), and the median angle in degrees between the images' rows and
    the horizontal.

    People hold a camera level, however far they point it up or down: the rows of the images, their
    right axes, are horizontal. So up is the direction most nearly perpendicular to all right axes.
    Where these leave it open, because all cameras look the same way, the images' mean up direction
    decides; it also gives the sign. Iteratively reweighted least squares, so that photos held askew
    count little.
    """
    damping = ROLL_TO_PITCH / len(cam2world) * np.eye(3)
    right = cam2world[:, :3, 0]
    image_up = -cam2world[:, :3, 1]
    weights = np.ones(len(right))
    up = np.array([0.0, 0.0, 1.0])
    for _ in range(20):
        scatter = np.einsum("n,ni,nj->ij", weights, right, right) / weights.sum()
        solution = np.linalg.solve(scatter + damping, weights @ image_up / weights.sum())
        if np.linalg.norm(solution) < 1e-3:
            break  # the images' up directions cancel: any direction is as good
        up = solution / np.linalg.norm(solution)
        weights = 1 / (np.abs(right @ up) + 0.05)
    return up, float(np.degrees(np.median(np.arcsin(np.clip(np.abs(right @ up), 0, 1)))))


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


def scene_axes(
    cam2world: Float[np.ndarray, "views 4 4"],
) -> tuple[Float[np.ndarray, "3"], Float[np.ndarray, "3"], Float[np.ndarray, "3"]]:
    """Unit world vectors right, back and up. Up is z if the cameras' up direction is near it, else
    that direction."""
    up, _ = up_direction(cam2world)
    if up[2] > np.cos(np.radians(NEARLY_UP)):
        up = np.array([0.0, 0.0, 1.0])
    least_aligned_axis = np.eye(3)[np.abs(up).argmin()]
    right = np.cross(least_aligned_axis, up)
    right /= np.linalg.norm(right)
    return right, np.cross(right, up), up


def move(
    cam2world: Float[np.ndarray, "*views 4 4"], offset: Float[np.ndarray, "3"]
) -> Float[np.ndarray, "*views 4 4"]:
    """The poses of the same cameras in a world where everything lies at its place plus `offset`. In
    float64: far from the origin float32 holds no small distances."""
    moved = cam2world.astype(np.float64)
    moved[..., :3, 3] += offset
    return moved


def opengl2opencv(cam2world: Float[np.ndarray, "*views 4 4"]) -> Float[np.ndarray, "*views 4 4"]:
    """Converts poses between OpenGL camera axes (y up, z backward) and OpenCV's; its own
    inverse."""
    return cam2world * np.array([1, -1, -1, 1])


def near_plane(distance: float, scale: float) -> float:
    """The near plane from which the depth planes, `2 * scale` deep in all, cover the grid.

    `distance` is the nearest camera's distance from the grid's center. The grid's corners are half
    a diagonal, sqrt(3)/2 * scale, from there. At least a hundredth of the scale: planes behind the
    camera see nothing.
    """
    return float(max(distance - np.sqrt(3) / 2 * scale, 0.01 * scale))


def _on_sphere(height: np.ndarray, azimuth: np.ndarray) -> np.ndarray:
    ring = np.sqrt(1 - height**2)
    return np.stack([ring * np.cos(azimuth), ring * np.sin(azimuth), height], axis=1)


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
