"""Sparse points of a scene, and triangle meshes, as PLY files."""

import codecs
import io
from pathlib import Path

import numpy as np
import trimesh
from jaxtyping import Float, Int, UInt8

from files.untrusted import MAX_NUMBER, reading
from util import InputError, new_file

UNCOLORED = 128  # gray level
PLY_TYPES = {"float": "<f4", "double": "<f8", "uchar": "u1"}
MAX_BYTES = 1 << 32
MAX_ROUNDING = 1e-5  # share of a cloud's size by which float32 may move its points


def find_points(folder: Path) -> Path | None:
    """The sparse points of a scene, `points.ply`: in the folder or, if it is one of a scene's
    folders, such as train/, in the one above it. None if there are none."""
    folders = [folder]
    if (folder / "pose").is_dir():
        folders.append(folder.absolute().parent)
    paths = (root / "points.ply" for root in folders)
    return next((path for path in paths if path.is_file()), None)


def load_points(path: Path) -> tuple[Float[np.ndarray, "points 3"], UInt8[np.ndarray, "points 3"]]:
    """The usable points of a PLY file and their RGB colors; gray if the file has no colors."""
    with reading(path, "a readable point cloud", MAX_BYTES) as limits:
        content = path.read_bytes().removeprefix(codecs.BOM_UTF8)
        limits.memory_for(len(content))
        # From memory, so that no texture that the file names is looked for.
        cloud = trimesh.load(io.BytesIO(content), file_type="ply")
        points = np.asarray(cloud.vertices, dtype=np.float64)
        colors = np.asarray(cloud.visual.vertex_colors)
    if points.ndim != 2 or points.shape[1] != 3:
        raise InputError(
            f"{path}: is not a readable point cloud: a point has {points.shape[1:]} coordinates"
        )
    if colors.shape[:1] != points.shape[:1]:
        colors = np.full((len(points), 3), UNCOLORED)
    return usable_points(points, colors[:, :3].astype(np.uint8))


def usable_points(
    points: Float[np.ndarray, "points 3"],
    colors: UInt8[np.ndarray, "points 3"],
) -> tuple[Float[np.ndarray, "usable 3"], UInt8[np.ndarray, "usable 3"]]:
    """The points, with their colors, whose coordinates are finite in float32."""
    usable = (np.abs(points) <= MAX_NUMBER).all(axis=1)
    return points[usable], colors[usable]


def save_points(
    path: Path, points: Float[np.ndarray, "points 3"], colors: UInt8[np.ndarray, "points 3"]
) -> None:
    """Writes colored points as binary PLY."""
    with new_file(path) as file:
        file.write(to_ply(points, colors))


def to_ply(
    points: Float[np.ndarray, "points 3"],
    colors: UInt8[np.ndarray, "points 3"],
    normals: Float[np.ndarray, "points 3"] | None = None,
    faces: Int[np.ndarray, "faces 3"] | None = None,
) -> bytes:
    """A binary PLY file of vertices, and of triangles if there are `faces`. Their coordinates are
    float32, or float64 where float32 would move them: far from the origin."""
    coordinates = "float"
    rounding = np.abs(points - points.astype(np.float32)).max(initial=0)
    if len(points) and rounding > MAX_ROUNDING * np.ptp(points, axis=0).max():
        coordinates = "double"
    columns = [(name, coordinates, points[:, axis]) for axis, name in enumerate("xyz")]
    if normals is not None:
        columns += [(f"n{name}", "float", normals[:, axis]) for axis, name in enumerate("xyz")]
    columns += [
        (name, "uchar", colors[:, channel]) for channel, name in enumerate(("red", "green", "blue"))
    ]
    columns.append(("alpha", "uchar", np.full(len(points), 255)))
    rows = np.empty(len(points), [(name, PLY_TYPES[kind]) for name, kind, _ in columns])
    for name, _, values in columns:
        rows[name] = values
    header = [
        "ply",
        "format binary_little_endian 1.0",
        f"element vertex {len(points)}",
        *(f"property {kind} {name}" for name, kind, _ in columns),
    ]
    triangles = np.empty(0 if faces is None else len(faces), [("corners", "u1"), ("of", "<i4", 3)])
    if faces is not None:
        header += [f"element face {len(faces)}", "property list uchar int vertex_indices"]
        triangles["corners"] = 3
        triangles["of"] = faces
    header.append("end_header")
    return ("\n".join(header) + "\n").encode() + rows.tobytes() + triangles.tobytes()
