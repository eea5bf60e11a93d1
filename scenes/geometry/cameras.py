"""Camera poses as pure functions: looking at the object, the paper's training and test cameras, axis conventions.

Poses are camera-to-world with OpenCV axes (x right, y down, z forward); the world's z axis points up.
"""
import numpy as np
from jaxtyping import Float

GOLDEN_ANGLE = np.pi * (3 - np.sqrt(5))
SPIRAL_RADIANS = 20.0  # the azimuth from the equator to the pole in the original's test sets


def look_at(centers: Float[np.ndarray, "views 3"], target: Float[np.ndarray, "3"],
            up: Float[np.ndarray, "3"]) -> Float[np.ndarray, "views 4 4"]:
    """Poses of cameras at `centers` that look at `target`, with `up` upwards in the image."""
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
    """Camera centers uniform on the northern hemisphere: a Fibonacci lattice, turned about the axis by the seed.

    The lattice is low-discrepancy: equal areas of the hemisphere hold equal numbers of cameras.
    """
    index = np.arange(count)
    height = (index + 0.5) / count
    azimuth = GOLDEN_ANGLE * index + np.random.default_rng(seed).uniform(0, 2 * np.pi)
    return radius * _on_sphere(height, azimuth)


def spiral(count: int, radius: float) -> Float[np.ndarray, "count 3"]:
    """Camera centers on the paper's Archimedean spiral, from the equator towards the pole, which is not reached.

    The polar angle is linear in the azimuth, as in the original's test sets.
    """
    progress = np.arange(count) / count
    return radius * _on_sphere(np.sin(progress * np.pi / 2), SPIRAL_RADIANS * progress)


def focus_point(cam2world: Float[np.ndarray, "views 4 4"]) -> Float[np.ndarray, "3"]:
    """The point nearest to all viewing axes, by iteratively reweighted least squares: stray cameras count little."""
    centers, forward = cam2world[:, :3, 3], cam2world[:, :3, 2]
    across = np.eye(3) - forward[:, :, None] * forward[:, None, :]  # removes the part along the axis
    weights = np.ones(len(centers))
    point = centers.mean(axis=0)
    for _ in range(20):
        system = (across * weights[:, None, None]).sum(axis=0)
        # the small term decides where all axes are parallel: stay near the last estimate
        damping = 1e-6 * np.trace(system) * np.eye(3)
        point = np.linalg.solve(system + damping, np.einsum("n,nij,nj->i", weights, across, centers) + damping @ point)
        miss = np.linalg.norm(np.einsum("nij,nj->ni", across, point - centers), axis=1)
        weights = 1 / (miss + 0.05 * np.median(np.linalg.norm(centers - point, axis=1)) + 1e-12)
    return point


def scene_axes(cam2world: Float[np.ndarray, "views 4 4"]) -> tuple[Float[np.ndarray, "3"], Float[np.ndarray, "3"],
                                                                   Float[np.ndarray, "3"]]:
    """Unit world vectors right, back and up, up being where the photographer held it on average."""
    up = -cam2world[:, :3, 1].mean(axis=0)
    if np.linalg.norm(up) < 1e-3:
        up = np.array([0.0, 0.0, 1.0])
    up /= np.linalg.norm(up)
    nearest_axis = np.eye(3)[np.abs(up).argmin()]
    right = np.cross(nearest_axis, up)
    right /= np.linalg.norm(right)
    return right, np.cross(right, up), up


def opengl2opencv(cam2world: Float[np.ndarray, "*views 4 4"]) -> Float[np.ndarray, "*views 4 4"]:
    """Poses of cameras with OpenGL axes (y up, z backward) as poses of the same cameras with OpenCV axes; and back."""
    return cam2world * np.array([1, -1, -1, 1])


def near_plane(centers: Float[np.ndarray, "views 3"], grid_origin: Float[np.ndarray, "3"], scale: float) -> float:
    """The near plane from which the 2D depth planes, `2 * scale` deep in all, cover the grid from every camera.

    The grid lies within half its diagonal, sqrt(3)/2 * scale, of its origin; the nearest camera decides. Never less
    than a hundredth of the scale: planes behind the camera see nothing.
    """
    nearest = np.linalg.norm(centers - grid_origin, axis=1).min()
    return float(max(nearest - np.sqrt(3) / 2 * scale, 0.01 * scale))


def is_rigid(pose: Float[np.ndarray, "4 4"]) -> bool:
    """Whether a matrix is a finite rotation and translation, to the tolerance with which pose files are read."""
    rotation = pose[:3, :3]
    return bool(np.isfinite(pose).all() and np.allclose(rotation @ rotation.T, np.eye(3), atol=1e-3)
                and np.linalg.det(rotation) > 0 and np.allclose(pose[3], [0, 0, 0, 1], atol=1e-4))


def _on_sphere(height: np.ndarray, azimuth: np.ndarray) -> np.ndarray:
    ring = np.sqrt(1 - height ** 2)
    return np.stack([ring * np.cos(azimuth), ring * np.sin(azimuth), height], axis=1)


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
