"""Images and depth maps of a textured surface, ray-cast on the CPU (`first_hits`).

Lambertian shading under lights fixed in the world, white background. In pixel coordinates the first
pixel spans 0 to 1, so that a principal point of half the image's size is its middle.
"""

import cv2
import numpy as np
from jaxtyping import Float, Float32, UInt8

from scenes.synthetic.first_hits import Camera, Caster
from scenes.synthetic.surface import Surface

AMBIENT = 0.6
LIGHTS = np.array(
    [[0.45, 0.25, 0.86], [-0.60, -0.75, 0.28]], np.float32
)  # directions towards the lights
STRENGTHS = np.array([0.42, 0.22], np.float32)


class RayCaster:
    """Casts rays against one surface."""

    def __init__(self, surface: Surface):
        self.surface = surface
        self._caster = Caster(surface.corners)

    def render(
        self,
        cam2world: Float[np.ndarray, "4 4"],
        matrix: Float[np.ndarray, "3 3"],
        sidelength: int,
        supersampling: int,
    ) -> UInt8[np.ndarray, "s s 3"]:
        """A square image, rendered at `supersampling` times its size and area-averaged (paper,
        section 4)."""
        size = sidelength * supersampling
        camera = Camera(cam2world, matrix, sidelength, size)
        triangle, _, weights = self._caster.first_hits(camera)
        hit = triangle >= 0
        directions = camera.directions()
        image = np.ones((size * size, 3), np.float32)
        image[hit] = self._shade(triangle[hit], weights[hit], directions[hit])
        image = cv2.resize(
            image.reshape(size, size, 3), (sidelength, sidelength), interpolation=cv2.INTER_AREA
        )
        return np.round(image * 255).astype(np.uint8)

    def depth(
        self, cam2world: Float[np.ndarray, "4 4"], matrix: Float[np.ndarray, "3 3"], sidelength: int
    ) -> Float32[np.ndarray, "s s"]:
        """The z-depth at the pixels' centers in world units, infinite where there is no surface."""
        hits = self._caster.first_hits(Camera(cam2world, matrix, sidelength, sidelength))
        return hits.depth.reshape(sidelength, sidelength)

    def _shade(
        self, triangle: np.ndarray, weights: np.ndarray, directions: np.ndarray
    ) -> Float32[np.ndarray, "rays 3"]:
        """Colors in [0, 1]. Normals are flipped to face the camera, so that thin sheets are lit on
        the visible side."""
        surface = self.surface
        normals = _blend(surface.normals[triangle], weights)
        normals /= np.linalg.norm(normals, axis=1, keepdims=True) + 1e-12
        normals *= np.where((normals * directions).sum(1, keepdims=True) > 0, -1, 1).astype(
            np.float32
        )
        light = AMBIENT + np.maximum(normals @ LIGHTS.T, 0) @ STRENGTHS
        colors = _blend(surface.colors[triangle], weights)
        uv = _blend(surface.uv[triangle], weights)
        part = surface.texture[triangle]
        for index in np.unique(part):
            own = part == index
            colors[own] *= sample_texture(surface.textures[index], uv[own])
        return np.minimum(colors * light[:, None], 1)


def sample_texture(
    texture: UInt8[np.ndarray, "h w 3"], uv: Float32[np.ndarray, "points 2"]
) -> Float32[np.ndarray, "points 3"]:
    """Bilinear samples in [0, 1] of a repeating texture; v points upwards."""
    height, width = texture.shape[:2]
    x = uv[:, 0] * width - 0.5
    y = (1 - uv[:, 1]) * height - 0.5
    left = np.floor(x).astype(np.int64)
    top = np.floor(y).astype(np.int64)
    right_share = (x - left)[:, None]
    bottom_share = (y - top)[:, None]
    rows = (top % height, (top + 1) % height)
    columns = (left % width, (left + 1) % width)
    upper, lower = (
        texture[row, columns[0]] * (1 - right_share) + texture[row, columns[1]] * right_share
        for row in rows
    )
    return ((upper * (1 - bottom_share) + lower * bottom_share) / 255).astype(np.float32)


def _blend(
    corner_values: Float32[np.ndarray, "rays 3 c"], weights: Float32[np.ndarray, "rays 3"]
) -> Float32[np.ndarray, "rays c"]:
    """Interpolates values at triangle corners with barycentric weights."""
    return np.einsum("nkc,nk->nc", corner_values, weights)
