"""The files of a scene folder, and what can be said about camera poses alone.

Poses are camera-to-world 4x4 matrices with OpenCV axes (x right, y down, z forward), images are RGB.
Whatever a user can get wrong raises `InputError` with one line that names the file.
"""
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float, Int, UInt8
from PIL import Image

from util import InputError, read_text

IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg"}
BACKGROUNDS = {"white": 255, "black": 0}
MAX_PIXELS = 1 << 27
BORDER = 5  # the outermost pixels, where padding shows, are in no loss, no metric and no written frame


def list_images(folder: Path) -> list[Path]:
    """The images of a folder in the order in which they pair with poses: sorted by name."""
    return sorted(path for path in _require_folder(folder).iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)


def list_poses(folder: Path) -> list[Path]:
    """The pose files of a folder, sorted by name; at least one."""
    paths = sorted(path for path in _require_folder(folder).iterdir() if path.suffix.lower() == ".txt")
    if not paths:
        raise InputError(f"{folder}: holds no pose files (*.txt)")
    return paths


def load_pose(path: Path) -> Float[np.ndarray, "4 4"]:
    """Reads one pose: 16 numbers on one line or 4 lines of 4, a rigid transform."""
    values = []
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        values += parse_numbers(path, number, line, counts=None)
    if len(values) != 16:
        raise InputError(f"{path}: holds {len(values)} numbers, a pose is 16 (a 4x4 matrix)")
    pose = np.array(values).reshape(4, 4)
    rotation = pose[:3, :3]
    if not np.allclose(pose[3], [0, 0, 0, 1], atol=1e-4):
        raise InputError(f"{path}: is not a rigid transform: its last row is {pose[3].tolist()}, not 0 0 0 1")
    if not np.allclose(rotation @ rotation.T, np.eye(3), atol=1e-3) or np.linalg.det(rotation) < 0:
        raise InputError(f"{path}: is not a rigid transform: its upper left 3x3 is not a rotation")
    return pose


def load_image(path: Path, background: str = "white") -> UInt8[np.ndarray, "h w 3"]:
    """Reads an 8 or 16 bit image as 8 bit RGB; transparency is composed over `background`."""
    try:
        pixels = _decode(path)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(f"{path}: is not a readable image ({error})".replace("\n", " ")) from None
    full = np.iinfo(pixels.dtype).max
    if pixels.dtype == np.uint8 and pixels.shape[2] == 3:
        return pixels
    colors = pixels[..., :3] / full
    if pixels.shape[2] == 4:
        alpha = pixels[..., 3:] / full
        colors = colors * alpha + BACKGROUNDS[background] / 255 * (1 - alpha)
    return np.round(255 * colors).astype(np.uint8)


def square_resize(image: UInt8[np.ndarray, "h w 3"], sidelength: int) -> UInt8[np.ndarray, "s s 3"]:
    """Center-crops to a square and scales to `sidelength`, by area averaging where that shrinks (paper, section 4)."""
    height, width = image.shape[:2]
    square = min(height, width)
    top, left = (height - square) // 2, (width - square) // 2
    image = image[top:top + square, left:left + square]
    if square == sidelength:
        return np.ascontiguousarray(image)
    interpolation = cv2.INTER_AREA if sidelength < square else cv2.INTER_LINEAR
    return cv2.resize(image, (sidelength, sidelength), interpolation=interpolation)


def crop_border(images):
    """Images (..., height, width), tensor or array, without their outermost `BORDER` pixels."""
    return images[..., BORDER:-BORDER, BORDER:-BORDER]


def color_depth(depth: Float[np.ndarray, "*b h w"], nearest: float, farthest: float) -> UInt8[np.ndarray, "*b h w 3"]:
    """Depth as colours, RGB: yellow at `nearest`, dark blue at `farthest` and beyond."""
    closeness = np.clip((farthest - depth) / max(farthest - nearest, 1e-12), 0, 1)
    levels = np.round(255 * closeness).astype(np.uint8)
    palette = cv2.applyColorMap(np.arange(256, dtype=np.uint8)[:, None], cv2.COLORMAP_VIRIDIS)[:, 0, ::-1]
    return palette[levels]


def view_directions(cam2world: Float[np.ndarray, "views 4 4"]) -> Float[np.ndarray, "views 3"]:
    """The unit vectors along which the cameras look: their z axes in world coordinates."""
    return cam2world[:, :3, 2]


def nearest_views(cam2world: Float[np.ndarray, "views 4 4"], reference: Float[np.ndarray, "references 4 4"],
                  count: int) -> Int[np.ndarray, "views count"]:
    """For each view the `count` references nearest in viewing direction, the nearest first (paper, section 3.1).

    Equal angles keep the order of the references, so that the answer does not depend on the platform.
    """
    cosines = view_directions(cam2world) @ view_directions(reference).T
    return np.argsort(-np.round(cosines, 9), axis=1, kind="stable")[:, :count]


def _decode(path: Path) -> np.ndarray:
    """Pixels as (height, width, 3 or 4), uint8 or uint16. Pillow reads no 16 bit RGB, OpenCV does."""
    with Image.open(path) as image:
        if image.width * image.height > MAX_PIXELS:
            raise ValueError(f"{image.width}x{image.height} pixels are too many")
        if image.format == "PNG" and _png_bit_depth(path) == 16:
            image.verify()
            pixels = cv2.imdecode(np.fromfile(path, dtype=np.uint8), cv2.IMREAD_UNCHANGED)
            if pixels is None:
                raise OSError("damaged PNG")
            if pixels.ndim == 2:
                return np.repeat(pixels[..., None], 3, axis=2)
            return cv2.cvtColor(pixels, cv2.COLOR_BGRA2RGBA if pixels.shape[2] == 4 else cv2.COLOR_BGR2RGB)
        transparent = "A" in image.getbands() or "transparency" in image.info
        return np.asarray(image.convert("RGBA" if transparent else "RGB"))


def _png_bit_depth(path: Path) -> int:
    with open(path, "rb") as file:
        return file.read(25)[24]  # IHDR is the first chunk: signature 8, length 4, type 4, width 4, height 4, depth


def _require_folder(folder: Path) -> Path:
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder" if not folder.exists() else f"{folder}: is not a folder")
    return folder


def parse_numbers(path: Path, number: int, line: str, counts: tuple[int, ...] | None) -> list[float]:
    """The finite numbers of one line, as many as one of `counts` says."""
    values = []
    for word in line.split():
        try:
            value = float(word)
        except ValueError:
            raise InputError(f"{path}:{number}: {word[:40]!r} is not a number") from None
        if not np.isfinite(value):
            raise InputError(f"{path}:{number}: {word[:40]!r} is not a finite number")
        values.append(value)
    if counts is not None and len(values) not in counts:
        raise InputError(f"{path}:{number}: holds {len(values)} numbers, expected {' or '.join(map(str, counts))}")
    return values


@dataclass(frozen=True)
class SceneIntrinsics:
    """What `intrinsics.txt` says, in the pixels of the image size that it names.

    focal, cx, cy: pixels. grid_origin: world coordinates of the grid's center. near_plane: world units, 0 where the
    default is to be used. scale: the grid's sidelength in world units. world2cam: the pose files hold the inverse.
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

    def matrix(self, sidelength: int) -> Float[np.ndarray, "3 3"]:
        """The intrinsic matrix of the image after the center crop to a square and scaling to `sidelength` pixels.

        The crop keeps the shorter side; the principal point moves with it (DESIGN: non-square images).
        """
        square = min(self.height, self.width)
        ratio = sidelength / square
        left, top = (self.width - square) // 2, (self.height - square) // 2
        return np.array([[self.focal * ratio, 0, (self.cx - left) * ratio],
                         [0, self.focal * ratio, (self.cy - top) * ratio],
                         [0, 0, 1]], dtype=np.float64)


def load_intrinsics(path: Path) -> SceneIntrinsics:
    """Reads `intrinsics.txt`: `f cx cy [0]`, origin, near plane, scale, `height width`, and an optional sixth line
    that is 1 where the poses are world-to-camera."""
    lines = [line for line in read_text(path).splitlines() if line.strip()]
    names = ["f cx cy", "the grid's origin x y z", "the near plane", "the scale", "height width"]
    if len(lines) < len(names):
        raise InputError(f"{path}: has {len(lines)} lines, expected {len(names)}; line {len(lines) + 1} should hold "
                         f"{names[len(lines)]}")
    counts = [(3, 4), (3,), (1,), (1,), (2,), (1,)]
    rows = [parse_numbers(path, number, line, count)
            for number, (line, count) in enumerate(zip(lines, counts, strict=False), start=1)]
    (focal, cx, cy, *_), origin, (near_plane,), (scale,), (height, width) = rows[:5]
    for line, name, value, least in [(1, "focal length", focal, 1e-9), (3, "near plane", near_plane, 0),
                                     (4, "scale", scale, 1e-9), (5, "height", height, 1), (5, "width", width, 1)]:
        if value < least:
            raise InputError(f"{path}:{line}: the {name} is {value:g}, which cannot be")
    return SceneIntrinsics(focal, cx, cy, tuple(origin), near_plane, scale, int(height), int(width),
                           world2cam=len(rows) > 5 and rows[5][0] != 0)
