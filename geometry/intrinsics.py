"""The file `intrinsics.txt` of a scene folder (docs/design.md, section 7): the camera of all its
images, and the voxel grid."""

import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float

from files.untrusted import parse_numbers
from geometry.cameras import move
from geometry.coverage import Grid, Pinhole
from util import InputError, read_text, write_text

DEFAULT_NEAR_PLANE = math.sqrt(3) / 2  # world units, used where intrinsics.txt says 0


def center_square(height: int, width: int) -> tuple[int, int, int]:
    """Top row, left column and sidelength of the largest square in the middle of an image."""
    side = min(height, width)
    return (height - side) // 2, (width - side) // 2, side


def same_aspect_ratio(one: tuple[int, int], other: tuple[int, int]) -> bool:
    """Whether two sizes (width, height) have the same aspect ratio, to 1 %."""
    return abs(one[0] / one[1] * other[1] / other[0] - 1) <= 0.01


@dataclass(frozen=True)
class SceneIntrinsics:
    """The content of `intrinsics.txt`.

    focal, cx, cy: in pixels of an image of `height` x `width`; the first pixel spans 0 to 1.
    grid_origin: world coordinates of the grid's center. near_plane: world units, 0 for the default.
    scale: the grid's sidelength in world units. world2cam: whether the pose files hold
    world-to-camera matrices.
    """

    focal: float
    cx: float
    cy: float
    grid_origin: tuple[float, float, float]
    near_plane: float
    scale: float
    height: int
    width: int
    world2cam: bool = False

    def fits(self, height: int, width: int) -> bool:
        """Whether images of this size in pixels have the aspect ratio of `height` x `width`, to 1
        %. They may be smaller or larger."""
        return same_aspect_ratio((width, height), (self.width, self.height))

    def require_fits(self, image: Path, height: int, width: int) -> None:
        """Raises `InputError` unless an image of this size fits."""
        if not self.fits(height, width):
            raise InputError(
                f"{image}: is {width}x{height} pixels, whose aspect ratio differs from "
                f"the {self.width}x{self.height} of intrinsics.txt"
            )

    def to_cam2world(self, poses: Float[np.ndarray, "views 4 4"]) -> Float[np.ndarray, "views 4 4"]:
        """The pose files' matrices as camera-to-world. Its own inverse."""
        if self.world2cam:
            return np.linalg.inv(poses)
        return poses

    def relative_to_grid(
        self, cam2world: Float[np.ndarray, "*views 4 4"]
    ) -> Float[np.ndarray, "*views 4 4"]:
        """The poses in a world whose origin is the grid's, as models take them (see
        `dataio.scene_geometry`)."""
        return move(cam2world, -np.array(self.grid_origin))

    def matrix(self, sidelength: int) -> Float[np.ndarray, "3 3"]:
        """The intrinsic matrix of an image center-cropped to a square and scaled to `sidelength`
        pixels.

        The crop moves the principal point; the scaling multiplies all (docs/design.md, section 3).
        """
        top, left, side = center_square(self.height, self.width)
        ratio = sidelength / side
        return np.array(
            [
                [self.focal * ratio, 0, (self.cx - left) * ratio],
                [0, self.focal * ratio, (self.cy - top) * ratio],
                [0, 0, 1],
            ],
            dtype=np.float64,
        )

    def resized(self, height: int, width: int) -> "SceneIntrinsics":
        """The intrinsics of the same images at another size."""
        across = width / self.width
        down = height / self.height
        focal = self.focal * (across + down) / 2
        return replace(
            self, focal=focal, cx=self.cx * across, cy=self.cy * down, height=height, width=width
        )

    def pinhole(self, sidelength: int) -> Pinhole:
        """The camera of an image center-cropped to a square and scaled to `sidelength` pixels."""
        return Pinhole(self.matrix(sidelength), sidelength)

    def grid(self, default_near_plane: float = DEFAULT_NEAR_PLANE) -> Grid:
        """The voxel grid, with the default (world units) where the near plane is 0."""
        return Grid(
            np.array(self.grid_origin), self.scale, self.near_plane or float(default_near_plane)
        )


def load_intrinsics(path: Path) -> SceneIntrinsics:
    """Reads `intrinsics.txt`: `f cx cy [0]`, grid origin, near plane, scale, `height width`, and an
    optional last line that is 1 if the poses are world-to-camera. In the data of Scene
    Representation Networks (Sitzmann et al. 2019) the near plane's line is missing: it is 0, for
    the default."""
    return _parse_intrinsics(path, read_text(path))


def _parse_intrinsics(path: Path, text: str) -> SceneIntrinsics:
    lines = [(number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    # The fourth line is the scale, or else height and width: then the near plane's is missing.
    if len(lines) > 3 and len(lines[3][1].split()) == 2:
        lines.insert(2, (0, "0"))
    names = ["f cx cy", "the grid's origin x y z", "the near plane", "the scale", "height width"]
    if len(lines) < len(names):
        raise InputError(
            f"{path}: has {len(lines)} lines, expected {len(names)}; line {len(lines) + 1} should "
            f"hold {names[len(lines)]}"
        )
    counts = [(3, 4), (3,), (1,), (1,), (2,), (1,)]
    rows = [
        parse_numbers(path, number, line, count)
        for (number, line), count in zip(lines, counts, strict=False)
    ]
    (focal, cx, cy, *_), origin, (near_plane,), (scale,), (height, width) = rows[:5]
    for row, name, value, minimum in [
        (0, "focal length", focal, 1e-9),
        (2, "near plane", near_plane, 0),
        (3, "scale", scale, 1e-9),
        (4, "height", height, 1),
        (4, "width", width, 1),
    ]:
        if value < minimum:
            raise InputError(f"{path}:{lines[row][0]}: the {name} is {value:g}, which is too small")
    return SceneIntrinsics(
        focal,
        cx,
        cy,
        tuple(origin),
        near_plane,
        scale,
        int(height),
        int(width),
        world2cam=len(rows) > 5 and rows[5][0] != 0,
    )


def write_intrinsics(path: Path, intrinsics: SceneIntrinsics) -> None:
    """Writes the five lines that `load_intrinsics` reads, for camera-to-world poses. Raises
    InputError if it would not take them.

    The first line ends in 0 because later readers of the original's format expect a fourth number.
    """
    rows = [
        (intrinsics.focal, intrinsics.cx, intrinsics.cy, 0.0),
        intrinsics.grid_origin,
        (intrinsics.near_plane,),
        (intrinsics.scale,),
        (int(intrinsics.height), int(intrinsics.width)),
    ]
    lines = [
        " ".join(str(value) if isinstance(value, int) else repr(float(value)) for value in row)
        for row in rows
    ]
    text = "\n".join(lines) + "\n"
    _parse_intrinsics(Path("the scene's intrinsics.txt"), text)
    write_text(path, text)
