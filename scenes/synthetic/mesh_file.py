"""Reads a mesh with its materials and textures.

    surface, hashes = load_surface(Path("bust.glb"))

A file need not be what it claims: a wrong one ends in an error that names it.
"""

import codecs
import hashlib
import logging
import os
from collections.abc import Iterable
from contextlib import suppress
from contextvars import ContextVar
from pathlib import Path, PureWindowsPath
from typing import BinaryIO

import numpy as np
import trimesh
from trimesh.resolvers import Resolver

from files.images import MAX_PIXELS
from files.untrusted import MAX_NUMBER, Limits, inside, reading
from scenes.synthetic.surface import Surface, fit_unit_cube, texture_of
from util import InputError, require_file

KIND = "a usable mesh"
FORMATS = ("glb", "gltf", "obj", "off", "ply", "stl")
TEXTURES = ("PNG", "JPEG", "BMP", "TGA", "TIFF", "WEBP")
# These are y up by definition, or as nearly all programs write them; the others say nothing, and
# are taken as z up
Y_UP_FORMATS = ("glb", "gltf", "obj")
MAX_BYTES = 1 << 32
MAX_TEXTURE_PIXELS = 4 * MAX_PIXELS  # of all textures together
MAX_UV = 1e6  # a texture that repeats more often is meant to confuse


def load_surface(path: Path, up: str | None = None) -> tuple[Surface, dict[str, str | None]]:
    """The meshes of a file as one surface that fits the unit cube, z up, and the hashes of
    `load_meshes`."""
    meshes, hashes = load_meshes(path, up)
    with reading(path, KIND, MAX_BYTES):
        surface = Surface.from_meshes(fit_unit_cube(meshes))
        for name in ("corners", "normals", "uv", "colors"):
            if not np.isfinite(getattr(surface, name)).all():
                raise ValueError(f"its {name} are not finite")
    return surface, hashes


def load_meshes(
    path: Path, up: str | None = None
) -> tuple[list[trimesh.Trimesh], dict[str, str | None]]:
    """The meshes of a file in world coordinates with z up, and the SHA-256 of every file that it is
    made of, by name. None: a file that the mesh names but that is not in its folder; nothing is
    read from elsewhere.

    `up` is the file's up axis, x, y or z; by default `default_up`. Raises InputError if the mesh or
    a texture cannot be read, or if there are no faces.
    """
    suffix = path.suffix.lower().removeprefix(".")
    if suffix not in FORMATS:
        raise InputError(f"{path}: is not a mesh of a known format ({', '.join(FORMATS)})")
    with reading(path, KIND, MAX_BYTES) as limits:
        folder = _Folder(path, limits)
        meshes = _meshes(path, suffix, folder)
    if not meshes:
        raise InputError(f"{path}: holds no mesh with faces")
    with reading(path, KIND, MAX_BYTES):
        _load_textures(meshes)
        for mesh in meshes:
            _require_sound(mesh)
            if suffix == "stl":
                _merge_vertices(mesh)
    turn = np.roll(np.eye(3), {"x": 2, "y": 1, "z": 0}[up or default_up(path)], axis=0)
    for mesh in meshes:
        mesh.vertices = mesh.vertices @ turn.T
    return meshes, folder.hashes


def default_up(path: Path) -> str:
    """The up axis, y or z, that files of this one's format are taken to have."""
    if path.suffix.lower().removeprefix(".") in Y_UP_FORMATS:
        return "y"
    return "z"


def _meshes(path: Path, suffix: str, folder: "_Folder") -> list[trimesh.Trimesh]:
    """The meshes with faces. Raises whatever trimesh raises or passes over."""
    passed_over = []
    token = _passed_over.set(passed_over)
    try:
        with open(path, "rb") as file:
            _skip_byte_order_mark(file)
            scene = trimesh.load_scene(file, file_type=suffix, resolver=folder, process=False)
    finally:
        _passed_over.reset(token)
    for error in [*folder.errors, *passed_over]:
        raise error
    _require_pictures(scene.geometry.values())
    strips = [_from_strips(geometry) for geometry in scene.geometry.values()]
    meshes = [mesh for mesh in scene.dump() if isinstance(mesh, trimesh.Trimesh)]
    return [mesh for mesh in (*meshes, *filter(None, strips)) if len(mesh.faces)]


def _skip_byte_order_mark(file: BinaryIO) -> None:
    if file.read(len(codecs.BOM_UTF8)) != codecs.BOM_UTF8:
        file.seek(0)


def _from_strips(geometry) -> trimesh.Trimesh | None:
    """The mesh of a PLY whose faces are triangle strips, which trimesh takes for points; None for
    anything else. Strips end in -1; in each, every other triangle has the opposite orientation."""
    element = geometry.metadata.get("_ply_raw", {}).get("tristrips")
    if element is None or not isinstance(geometry, trimesh.PointCloud):
        return None
    data = element.get("data", {})
    fields = getattr(data, "dtype", np.dtype([])).names or list(data)  # of an array, or a dict
    names = [name for name in ("vertex_indices", "vertex_index") if name in fields]
    if not names:
        return None
    rows = data[names[0]]
    if rows.dtype.names:  # of a binary file: the length, then the indices
        rows = rows[rows.dtype.names[1]]
    faces = []
    for row in rows:
        indices = np.ravel(row).astype(np.int64)
        for strip in np.split(indices, np.flatnonzero(indices < 0)):
            strip = strip[strip >= 0]
            triangles = np.stack([strip[:-2], strip[1:-1], strip[2:]], axis=1)
            triangles[1::2] = triangles[1::2, ::-1]
            faces.append(triangles[(np.diff(np.sort(triangles), axis=1) > 0).all(axis=1)])
    colors = geometry.colors if len(geometry.colors) == len(geometry.vertices) else None
    return trimesh.Trimesh(
        geometry.vertices, np.concatenate(faces), vertex_colors=colors, process=False
    )


# Errors of the load that is going on in this thread
_passed_over: ContextVar[list[Exception] | None] = ContextVar("passed_over", default=None)


class _PictureErrors(logging.Handler):
    """Remembers the errors of pictures, which trimesh logs and passes over."""

    def emit(self, record: logging.LogRecord) -> None:
        errors = _passed_over.get()
        error = record.exc_info[1] if record.exc_info else None
        # A file that is not there is left out, with a warning.
        refused = isinstance(error, Exception) and not isinstance(error, FileNotFoundError)
        if errors is not None and refused and "load image" in str(record.msg):
            errors.append(error)


_log = logging.getLogger("trimesh")
_log.setLevel(logging.DEBUG)
_log.propagate = False
_log.addHandler(_PictureErrors())


class _Folder(Resolver):
    """Gives trimesh the files that a mesh names, from the mesh's folder alone, and remembers their
    hashes.

    errors: of files that are there but cannot be read; trimesh passes over them.
    """

    def __init__(self, mesh: Path, limits: Limits):
        self.mesh = mesh
        self.file_name = mesh.name
        self.limits = limits
        self.size = 0
        self.errors = []
        self.hashes = {mesh.name: self._hash(mesh)}

    def get(self, name: str) -> bytes:
        path = self._find(name.strip())
        if path is None:
            self.hashes[name] = None
            raise FileNotFoundError(f"it names {name[:100]}, which is not in its folder")
        try:
            require_file(path, MAX_BYTES)
        except InputError as error:
            self.errors.append(error)
            raise
        self.hashes[name] = self._hash(path)
        content = path.read_bytes()
        if path.suffix.lower() == ".mtl":
            return content.removeprefix(codecs.BOM_UTF8)
        return content

    def _find(self, name: str) -> Path | None:
        """The file in the mesh's folder; for a path of another machine, the file of its last
        part."""
        for candidate in (name, PureWindowsPath(name).name):  # which takes both \ and / apart
            with suppress(InputError):
                path = inside(self.mesh.parent, candidate, named_by=self.mesh)
                if os.path.exists(path) and not path.is_dir():
                    return path
        return None

    def _hash(self, path: Path) -> str:
        self.size += path.stat().st_size
        self.limits.memory_for(self.size)
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def keys(self) -> list[str]:
        return []

    def write(self, name: str, data: bytes) -> None:
        raise NotImplementedError

    def namespaced(self, namespace: str) -> "_Folder":
        raise NotImplementedError


def _require_pictures(meshes: Iterable[trimesh.parent.Geometry]) -> None:
    """Raises ValueError unless all textures, not decoded yet, are of `TEXTURES`."""
    for mesh in meshes:
        texture = texture_of(mesh) if isinstance(mesh, trimesh.Trimesh) else None
        if texture is not None and texture.format not in (*TEXTURES, None):
            raise ValueError(f"a texture is of the format {texture.format}")


def _load_textures(meshes: list[trimesh.Trimesh]) -> None:
    """Decodes the textures, after a look at their sizes. Raises what Pillow raises if one is
    damaged."""
    textures = {
        id(texture): texture for texture in map(texture_of, meshes) if texture is not None
    }.values()
    if sum(texture.width * texture.height for texture in textures) > MAX_TEXTURE_PIXELS:
        raise ValueError(f"its textures have more than {MAX_TEXTURE_PIXELS} pixels")
    for texture in textures:
        texture.load()


def _merge_vertices(mesh: trimesh.Trimesh) -> None:
    """Makes equal vertices one, so that the triangles around it share a normal: STL repeats it for
    each of them."""
    _, first, inverse = np.unique(mesh.vertices, axis=0, return_index=True, return_inverse=True)
    mesh.update_vertices(first, inverse.reshape(-1))


def _require_sound(mesh: trimesh.Trimesh) -> None:
    """Raises ValueError for what cannot be drawn."""
    if mesh.vertices.shape[1:] != (3,) or mesh.faces.shape[1:] != (3,):
        raise ValueError("a vertex or a face does not have three numbers")
    if not (np.abs(mesh.vertices) <= MAX_NUMBER).all():
        raise ValueError("a vertex is not finite in float32")
    if mesh.faces.min() < 0 or mesh.faces.max() >= len(mesh.vertices):
        raise ValueError(f"a face names vertex {mesh.faces.max()} of {len(mesh.vertices)}")
    if texture_of(mesh) is not None and mesh.visual.uv is not None:
        uv = mesh.visual.uv
        if uv.shape != (len(mesh.vertices), 2) or not (np.abs(uv) <= MAX_UV).all():
            raise ValueError(
                f"texture coordinates are not finite, beyond {MAX_UV:g}, or not two for each vertex"
            )
