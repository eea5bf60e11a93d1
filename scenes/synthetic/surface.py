"""`Surface`: meshes as flat arrays for the ray caster.

    surface = Surface.from_meshes(fit_unit_cube(meshes))

It can be made from any trimesh meshes.
"""

from dataclasses import dataclass

import cv2
import numpy as np
import trimesh
from jaxtyping import Float, Float32, Int, UInt8
from PIL import Image

SMOOTH_COSINE = np.cos(np.radians(45))


@dataclass(frozen=True)
class Surface:
    """Triangles with everything that shading needs, one row per triangle and corner.

    corners: world coordinates. normals: unit, outward. uv: texture coordinates, v upwards,
    repeating beyond [0, 1]. colors: RGB in [0, 1], multiplied with the texture. texture: index into
    `textures`, which are RGB images.
    """

    corners: Float32[np.ndarray, "faces 3 3"]
    normals: Float32[np.ndarray, "faces 3 3"]
    uv: Float32[np.ndarray, "faces 3 2"]
    colors: Float32[np.ndarray, "faces 3 3"]
    texture: Int[np.ndarray, "faces"]
    textures: list[UInt8[np.ndarray, "_ _ 3"]]

    @classmethod
    def from_meshes(cls, meshes: list[trimesh.Trimesh]) -> "Surface":
        """Uses smooth normals where the surface bends by less than 45 degrees, the triangle's own
        elsewhere."""
        parts = [_appearance(mesh) for mesh in meshes]
        return cls(
            np.concatenate([mesh.triangles for mesh in meshes]).astype(np.float32),
            np.concatenate([_corner_normals(mesh) for mesh in meshes]).astype(np.float32),
            np.concatenate([uv for uv, _, _ in parts]).astype(np.float32),
            np.concatenate([colors for _, colors, _ in parts]).astype(np.float32),
            np.repeat(np.arange(len(meshes)), [len(mesh.faces) for mesh in meshes]),
            [texture for _, _, texture in parts],
        )

    def radius(self) -> float:
        """The radius of the smallest sphere about the origin that holds the surface."""
        return float(np.linalg.norm(self.corners, axis=2).max())

    def prefiltered(self, spacing: float) -> "Surface":
        """The surface with textures shrunk to about one texel per `spacing` (world units) by area
        averaging.

        `spacing` is the distance between the camera's samples on the surface; finer detail would
        alias.
        """
        textures = []
        for index, texture in enumerate(self.textures):
            height, width = texture.shape[:2]
            own = self.texture == index
            texel = np.sqrt(
                _area(self.corners[own]) / max(_area(self.uv[own]) * height * width, 1e-12)
            )
            ratio = min(texel / spacing, 1.0)
            size = max(round(width * ratio), 1), max(round(height * ratio), 1)
            textures.append(cv2.resize(texture, size, interpolation=cv2.INTER_AREA))
        return Surface(self.corners, self.normals, self.uv, self.colors, self.texture, textures)


def fit_unit_cube(meshes: list[trimesh.Trimesh]) -> list[trimesh.Trimesh]:
    """Copies of the meshes, centered at the origin together and scaled so that the longest side is
    1.

    Raises ValueError if they have no extent.
    """
    low = np.min([mesh.bounds[0] for mesh in meshes], axis=0)
    high = np.max([mesh.bounds[1] for mesh in meshes], axis=0)
    if not (high - low).max() > 0:
        raise ValueError("it has no extent")
    fitted = [mesh.copy() for mesh in meshes]
    for mesh in fitted:
        mesh.vertices = (mesh.vertices - (low + high) / 2) / (high - low).max()
    return fitted


def texture_of(mesh: trimesh.Trimesh) -> Image.Image | None:
    """The picture that colors the mesh, if there is one."""
    material = getattr(mesh.visual, "material", None)
    return getattr(material, "baseColorTexture", None) or getattr(material, "image", None)


def _corner_normals(mesh: trimesh.Trimesh) -> Float[np.ndarray, "faces 3 3"]:
    flat = np.repeat(mesh.face_normals[:, None], 3, axis=1)
    smooth = mesh.vertex_normals[mesh.faces]
    bends_little = (flat * smooth).sum(axis=2, keepdims=True) > SMOOTH_COSINE
    return np.where(bends_little, smooth, flat)


def _appearance(
    mesh: trimesh.Trimesh,
) -> tuple[
    Float[np.ndarray, "faces 3 2"], Float[np.ndarray, "faces 3 3"], UInt8[np.ndarray, "h w 3"]
]:
    """Texture coordinates and colors per corner, and the texture; neutral ones where the mesh has
    none."""
    uv = np.zeros((len(mesh.faces), 3, 2))
    white = np.ones((len(mesh.faces), 3, 3))
    plain = np.full((1, 1, 3), 255, np.uint8)
    if mesh.visual.kind == "texture":
        material = mesh.visual.material
        image = texture_of(mesh)
        if image is None or mesh.visual.uv is None:
            return uv, white * np.asarray(material.main_color)[:3] / 255, plain
        factor = getattr(material, "baseColorFactor", None)
        tint = np.ones(3) if factor is None else np.asarray(factor)[:3] / 255
        return mesh.visual.uv[mesh.faces], white * tint, _rgb(image)
    if mesh.visual.kind == "face":
        return uv, np.repeat(mesh.visual.face_colors[:, None, :3], 3, axis=1) / 255, plain
    return uv, mesh.visual.vertex_colors[mesh.faces][..., :3] / 255, plain


def _rgb(image: Image.Image) -> np.ndarray:
    return np.array(image.convert("RGB"))


def _area(triangles: np.ndarray) -> float:
    """The total area of triangles with corners in 2D or 3D."""
    first, second = (triangles[:, k].astype(np.float64) - triangles[:, 0] for k in (1, 2))
    gram = (first**2).sum(1) * (second**2).sum(1) - (first * second).sum(1) ** 2
    return float(np.sqrt(np.maximum(gram, 0)).sum() / 2)
