"""Sparse points of a scene as PLY files."""
from pathlib import Path

import numpy as np
import trimesh
from jaxtyping import Float, UInt8

from util import InputError, new_file

UNCOLORED = 128  # gray level


def load_points(path: Path) -> tuple[Float[np.ndarray, "points 3"], UInt8[np.ndarray, "points 3"]]:
    """The finite points of a file and their RGB colors; gray if the file has no colors."""
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    try:
        cloud = trimesh.load(path)
        points = np.asarray(cloud.vertices, dtype=np.float64).reshape(-1, 3)
        colors = np.asarray(cloud.visual.vertex_colors)
    except Exception as error:  # damaged bytes make trimesh's readers raise anything
        raise InputError(f"{path}: is not a readable point cloud ({type(error).__name__})") from None
    if colors.shape[:1] != points.shape[:1]:
        colors = np.full((len(points), 3), UNCOLORED)
    finite = np.isfinite(points).all(axis=1)
    return points[finite], colors[finite, :3].astype(np.uint8)


def save_points(path: Path, points: Float[np.ndarray, "points 3"], colors: UInt8[np.ndarray, "points 3"]) -> None:
    """Writes colored points as binary PLY."""
    with new_file(path) as file:
        trimesh.PointCloud(points, colors=colors).export(file, file_type="ply")
