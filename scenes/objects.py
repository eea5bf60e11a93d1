"""The synthetic objects, in the spirit of the paper's scans: textured meshes with z up.

    meshes = OBJECTS["cube"]()
"""
from collections.abc import Callable

import numpy as np
import trimesh
from jaxtyping import Float, UInt8
from PIL import Image

from scenes.textures import letter_panel

TEXTURE_SIZE = 1024


def cube() -> list[trimesh.Trimesh]:
    """A cube with another color and letter on each side."""
    up, north = np.array([0.0, 0.0, 1.0]), np.array([0.0, 1.0, 0.0])
    sides = [("A", (1, 0, 0), up, (196, 62, 52)), ("B", (0, 1, 0), up, (60, 132, 190)),
             ("C", (-1, 0, 0), up, (88, 158, 84)), ("D", (0, -1, 0), up, (226, 164, 48)),
             ("E", (0, 0, 1), north, (138, 92, 168)), ("F", (0, 0, -1), north, (120, 120, 124))]
    meshes = []
    for seed, (letter, normal, above, color) in enumerate(sides):
        normal = np.array(normal, dtype=np.float64)
        right = np.cross(above, normal)  # as seen from outside
        corners = np.array([normal - right - above, normal + right - above, normal + right + above,
                            normal - right + above]) / 2
        meshes.append(_sheet(corners, letter_panel(letter, color, TEXTURE_SIZE, seed)))
    return meshes


OBJECTS: dict[str, Callable[[], list[trimesh.Trimesh]]] = {"cube": cube}


def _sheet(corners: Float[np.ndarray, "4 3"], texture: UInt8[np.ndarray, "h w 3"]) -> trimesh.Trimesh:
    """A flat textured quadrilateral; corners counterclockwise from the texture's lower left."""
    uv = np.array([[0, 0], [1, 0], [1, 1], [0, 1]])
    return _textured(corners, np.array([[0, 1, 2], [0, 2, 3]]), uv, texture)


def _textured(vertices: np.ndarray, faces: np.ndarray, uv: np.ndarray, texture: np.ndarray) -> trimesh.Trimesh:
    visual = trimesh.visual.TextureVisuals(uv=uv, image=Image.fromarray(texture))
    return trimesh.Trimesh(vertices, faces, visual=visual, process=False)
