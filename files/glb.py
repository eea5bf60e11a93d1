"""Coloured triangle meshes as GLB files (binary glTF 2.0)."""

import numpy as np
import trimesh
from jaxtyping import Float, Int, UInt8

Z_UP_TO_Y_UP = np.array([[1.0, 0, 0, 0], [0, 0, 1, 0], [0, -1, 0, 0], [0, 0, 0, 1]])
# Colours are those of photos, with their light in them: a viewer must add none.
MATERIAL = {
    "pbrMetallicRoughness": {"metallicFactor": 0.0, "roughnessFactor": 1.0},
    "extensions": {"KHR_materials_unlit": {}},
    "doubleSided": True,
}


def to_glb(
    vertices: Float[np.ndarray, "n 3"],
    faces: Int[np.ndarray, "f 3"],
    colors: UInt8[np.ndarray, "n 3"],
    center: Float[np.ndarray, "3"],
) -> bytes:
    """A GLB file of a mesh in a world whose z axis points up; glTF's y axis does.

    Vertices are stored relative to `center`, in float32. colors: sRGB.
    """
    linear = np.round(255 * srgb_to_linear(colors / 255)).astype(np.uint8)
    mesh = trimesh.Trimesh(vertices - center, faces, vertex_colors=linear, process=False)
    place = Z_UP_TO_Y_UP @ trimesh.transformations.translation_matrix(center)
    scene = trimesh.Scene()
    scene.add_geometry(mesh, node_name="surface", geom_name="surface", transform=place)
    return scene.export(file_type="glb", tree_postprocessor=_set_material)


def srgb_to_linear(colors: Float[np.ndarray, "*n"]) -> Float[np.ndarray, "*n"]:
    """sRGB in [0, 1] as light (IEC 61966-2-1), which glTF takes colours of vertices for."""
    return np.where(colors <= 0.04045, colors / 12.92, ((colors + 0.055) / 1.055) ** 2.4)


def _set_material(tree: dict) -> None:
    tree["materials"] = [MATERIAL]
    tree["extensionsUsed"] = list(MATERIAL["extensions"])
    for mesh in tree["meshes"]:
        for primitive in mesh["primitives"]:
            primitive["material"] = 0
