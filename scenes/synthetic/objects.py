"""The synthetic objects, in the spirit of the paper's scans.

    meshes = OBJECTS["cube"]()

They are textured meshes with z up.
"""

from collections.abc import Callable

import numpy as np
import trimesh
from jaxtyping import Float, UInt8
from PIL import Image
from scipy.interpolate import PchipInterpolator
from trimesh.visual import TextureVisuals
from trimesh.visual.material import PBRMaterial

from scenes.synthetic.textures import glazed_bands, grained, letter_panel

TEXTURE_SIZE = 1024


def cube() -> list[trimesh.Trimesh]:
    """A cube with its own color and letter on each side."""
    up = np.array([0.0, 0.0, 1.0])
    north = np.array([0.0, 1.0, 0.0])
    sides = [
        ("A", (1, 0, 0), up, (196, 62, 52)),
        ("B", (0, 1, 0), up, (60, 132, 190)),
        ("C", (-1, 0, 0), up, (88, 158, 84)),
        ("D", (0, -1, 0), up, (226, 164, 48)),
        ("E", (0, 0, 1), north, (138, 92, 168)),
        ("F", (0, 0, -1), north, (120, 120, 124)),
    ]
    meshes = []
    for seed, (letter, normal, above, color) in enumerate(sides):
        normal = np.array(normal, dtype=np.float64)
        right = np.cross(above, normal)  # as seen from outside
        corners = (
            np.array(
                [
                    normal - right - above,
                    normal + right - above,
                    normal + right + above,
                    normal - right + above,
                ]
            )
            / 2
        )
        meshes.append(_sheet(corners, letter_panel(letter, color, TEXTURE_SIZE, seed)))
    return meshes


def vase() -> list[trimesh.Trimesh]:
    """A glazed vase, hollow, with bands of ornament and lettering around it."""
    outside = np.array(
        [
            [0.0, 0.0],
            [0.19, 0.0],
            [0.21, 0.02],
            [0.27, 0.15],
            [0.33, 0.32],
            [0.35, 0.48],
            [0.32, 0.64],
            [0.23, 0.77],
            [0.16, 0.85],
            [0.15, 0.91],
            [0.19, 0.97],
            [0.22, 1.0],
        ]
    )
    inside = np.array(
        [
            [0.22, 1.0],
            [0.205, 1.0],
            [0.14, 0.91],
            [0.14, 0.85],
            [0.21, 0.76],
            [0.29, 0.64],
            [0.31, 0.48],
            [0.0, 0.3],
        ]
    )
    clay = grained(256, 11, (150, 84, 54), (120, 60, 40), stretch=1)
    return [_revolved(_rounded(outside), glazed_bands(TEXTURE_SIZE, 10)), _revolved(inside, clay)]


def pedestal() -> list[trimesh.Trimesh]:
    """A fluted column between two slabs, with a lettered plate at its foot and a marbled ball on
    top."""
    stone = grained(TEXTURE_SIZE, 20, (222, 214, 198), (150, 138, 124), stretch=1)
    dark = grained(TEXTURE_SIZE // 2, 22, (70, 96, 88), (206, 214, 204), stretch=1)
    steps = [
        _box((0.0, 0.0, 0.04), (0.52, 0.52, 0.08), stone),
        _box((0.0, 0.0, 0.11), (0.44, 0.44, 0.06), stone),
    ]
    block = [_box((0.0, 0.0, 0.22), (0.36, 0.36, 0.16), stone)]
    plates = [
        _plate(
            letter_panel(letter, color, TEXTURE_SIZE // 2, 24 + number), 0.14, 0.181, 0.22, number
        )
        for number, (letter, color) in enumerate(
            [
                ("N", (160, 60, 50)),
                ("E", (50, 90, 150)),
                ("S", (70, 130, 80)),
                ("W", (190, 140, 50)),
            ]
        )
    ]
    profile = np.array([[0.155, 0.30], [0.14, 0.33], [0.115, 0.62], [0.15, 0.66]])
    column = _revolved(profile, stone, flutes=16, depth=0.12)
    capital = [
        _box((0.0, 0.0, 0.68), (0.34, 0.34, 0.04), stone),
        _box((0.0, 0.0, 0.715), (0.40, 0.40, 0.03), stone),
    ]
    angles = np.linspace(-np.pi / 2, np.pi / 2, 65)
    ball = _revolved(
        np.stack([0.135 * np.cos(angles), 0.865 + 0.135 * np.sin(angles)], axis=1), dark
    )
    return [*steps, *block, *plates, column, *capital, ball]


def chair() -> list[trimesh.Trimesh]:
    """A wooden armchair: legs, slats and arms that occlude each other, and a lettered cushion."""
    wood = grained(TEXTURE_SIZE, 30, (176, 120, 70), (104, 62, 34), stretch=8)
    cushion = letter_panel("R", (58, 92, 120), TEXTURE_SIZE, 32)
    board = letter_panel("K", (150, 70, 60), TEXTURE_SIZE // 2, 33)
    parts = [
        _box((x, y, 0.21), (0.05, 0.05, 0.42), wood) for x in (-0.23, 0.23) for y in (-0.23, 0.23)
    ]
    parts += [_box((x, 0.23, 0.72), (0.05, 0.05, 0.56), wood) for x in (-0.23, 0.23)]
    parts += [_box((x, -0.23, 0.54), (0.04, 0.04, 0.20), wood) for x in (-0.235, 0.235)]
    parts += [_box((x, -0.01, 0.655), (0.06, 0.52, 0.03), wood) for x in (-0.235, 0.235)]
    parts += [
        _box((0.0, 0.0, 0.40), (0.52, 0.52, 0.04), wood),
        _box((0.0, 0.23, 0.62), (0.42, 0.03, 0.05), wood),
    ]
    parts += [_box((x, 0.23, 0.73), (0.035, 0.025, 0.17), wood) for x in (-0.15, -0.05, 0.05, 0.15)]
    parts += [
        _box((0.0, 0.23, 0.90), (0.42, 0.03, 0.18), wood),
        _box((0.0, -0.01, 0.445), (0.40, 0.40, 0.05), wood),
    ]
    top = np.array(
        [[-0.19, -0.20, 0.471], [0.19, -0.20, 0.471], [0.19, 0.18, 0.471], [-0.19, 0.18, 0.471]]
    )
    backrest = np.array(
        [[-0.08, 0.214, 0.82], [0.08, 0.214, 0.82], [0.08, 0.214, 0.98], [-0.08, 0.214, 0.98]]
    )
    return [*parts, _sheet(top, cushion), _sheet(backrest, board)]


OBJECTS: dict[str, Callable[[], list[trimesh.Trimesh]]] = {
    "cube": cube,
    "vase": vase,
    "pedestal": pedestal,
    "chair": chair,
}


def _plate(
    texture: np.ndarray, size: float, distance: float, height: float, quarter: int
) -> trimesh.Trimesh:
    """An upright square that faces away from the z axis, `quarter` quarter turns from the x
    axis."""
    half = size / 2
    corners = np.array(
        [
            [distance, -half, height - half],
            [distance, half, height - half],
            [distance, half, height + half],
            [distance, -half, height + half],
        ]
    )
    turn = np.linalg.matrix_power(np.array([[0, -1, 0], [1, 0, 0], [0, 0, 1]]), quarter)
    return _sheet(corners @ turn.T, texture)


def _box(
    center: tuple[float, float, float], size: tuple[float, float, float], texture: np.ndarray
) -> trimesh.Trimesh:
    """A box with a texture that repeats every unit of length, its rows along the box's longest
    side."""
    center = np.array(center)
    half = np.array(size) / 2
    longest = int(np.argmax(half))
    vertices = []
    faces = []
    uv = []
    for axis in range(3):
        across = [other for other in range(3) if other != axis]
        across.sort(key=lambda other: other != longest)
        for side in (-1, 1):
            signs = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]])
            corners = np.empty((4, 3))
            corners[:, axis] = side
            corners[:, across] = signs
            counterclockwise = (
                np.cross(corners[1] - corners[0], corners[2] - corners[0])[axis] * side > 0
            )
            order = np.array([[0, 1, 2], [0, 2, 3]] if counterclockwise else [[0, 2, 1], [0, 3, 2]])
            faces.append(order + 4 * len(vertices))
            vertices.append(center + corners * half)
            uv.append(
                (center + corners * half)[:, across] + center.sum()
            )  # so that boxes get different parts
    return _textured(np.concatenate(vertices), np.concatenate(faces), np.concatenate(uv), texture)


def _revolved(
    profile: Float[np.ndarray, "points 2"], texture: np.ndarray, flutes: int = 0, depth: float = 0.0
) -> trimesh.Trimesh:
    """A surface of revolution: a profile of (radius, z) about the z axis, the texture wrapped
    around it once.

    Outward is to the right of the profile's direction. `flutes` grooves are cut `depth` deep, a
    share of the radius.
    """
    columns = 192
    rows = len(profile)
    angle = np.linspace(0, 2 * np.pi, columns + 1)
    radius = profile[:, :1] * (1 - depth * np.abs(np.sin(angle * flutes / 2)))
    height = np.repeat(profile[:, 1:], columns + 1, axis=1)
    vertices = np.stack([radius * np.cos(angle), radius * np.sin(angle), height], axis=2).reshape(
        -1, 3
    )
    length = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(profile, axis=0), axis=1))])
    uv = np.stack(np.meshgrid(angle / (2 * np.pi), length / length[-1]), axis=2).reshape(-1, 2)
    index = np.arange(rows * (columns + 1)).reshape(rows, columns + 1)
    lower_left, lower_right, upper_left, upper_right = (
        part.reshape(-1)
        for part in (index[:-1, :-1], index[:-1, 1:], index[1:, :-1], index[1:, 1:])
    )
    faces = np.concatenate(
        [
            np.stack([lower_left, lower_right, upper_right], axis=1),
            np.stack([lower_left, upper_right, upper_left], axis=1),
        ]
    )
    return _textured(vertices, faces, uv, texture)


def _rounded(profile: Float[np.ndarray, "points 2"]) -> Float[np.ndarray, "many 2"]:
    """The profile with smooth curves between its points, except for its flat first segment."""
    length = np.arange(1, len(profile))
    fine = np.linspace(1, len(profile) - 1, 8 * len(profile))
    return np.concatenate([profile[:1], PchipInterpolator(length, profile[1:])(fine)])


def _sheet(
    corners: Float[np.ndarray, "4 3"], texture: UInt8[np.ndarray, "h w 3"]
) -> trimesh.Trimesh:
    """A flat textured quadrilateral; corners counterclockwise from the texture's lower left."""
    uv = np.array([[0, 0], [1, 0], [1, 1], [0, 1]])
    return _textured(corners, np.array([[0, 1, 2], [0, 2, 3]]), uv, texture)


def _textured(
    vertices: np.ndarray, faces: np.ndarray, uv: np.ndarray, texture: np.ndarray
) -> trimesh.Trimesh:
    material = PBRMaterial(baseColorTexture=Image.fromarray(texture))
    visual = TextureVisuals(uv=uv, material=material)
    return trimesh.Trimesh(vertices, faces, visual=visual, process=False)
