"""A capture: images with cameras and perhaps sparse points, which all importers write as a scene
through here."""

import sys
from argparse import Namespace
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8

try:
    import pycolmap
except ModuleNotFoundError:  # this is the import of a command, which ends here, with one line
    print(
        "error: photos, COLMAP models and transforms.json are read with pycolmap, which is not "
        "installed (it has no "
        "package for Linux on ARM); make the scene folder on another machine, it trains on any",
        file=sys.stderr,
    )
    sys.exit(2)

from data_util import SceneIntrinsics, load_image, load_rgba, square_resize, write_scene_folder
from geometry.coverage import judge
from geometry.grid import Grid, choose_grid, tightest_yaw
from geometry.points import save_points
from machine.cli import Parser, number
from scenes.capture.files import warn_of_leaks
from scenes.capture.masks import cut_out, object_points
from scenes.capture.undistort import Undistorter, shared_pinhole
from scenes.capture.upright import upright_rotation
from util import InputError, write_json


@dataclass(frozen=True)
class Capture:
    """One entry per view, in the order of their numbers in the scene.

    names: for messages and scene.json. cam2world: rigid, OpenCV axes. cameras: COLMAP's, with their
    distortion. points, colors: the sparse points in world coordinates, empty if the source has
    none. masks: one per image and of its size, white where the object is; none if the object is not
    cut out, or by the images' own alpha alone.
    """

    images: list[Path]
    names: list[str]
    cam2world: Float[np.ndarray, "views 4 4"]
    cameras: list[pycolmap.Camera]
    points: Float[np.ndarray, "points 3"]
    colors: UInt8[np.ndarray, "points 3"]
    masks: list[Path] = field(default_factory=list)


def add_flags(parser: Parser) -> None:
    """The flags that the importers share."""
    parser.add_argument(
        "--test_every",
        type=number(int, 0),
        default=8,
        metavar="N",
        help="every Nth view becomes a test view instead of a training view; 0: none (default: 8)",
    )
    parser.add_argument(
        "--sidelength",
        type=number(int, 1),
        metavar="N",
        help="center-crop to squares of N pixels, area-averaged (default: the images' own size)",
    )
    parser.add_argument(
        "--up",
        choices=["cameras", "none"],
        default="cameras",
        help="turn the world so that z is up, judged by how the cameras were held; none: leave it "
        "as "
        "it is (default: cameras)",
    )
    parser.add_argument(
        "--origin",
        type=number(float),
        nargs=3,
        metavar=("X", "Y", "Z"),
        help="center of the voxel grid in world units, after that turn (default: chosen and "
        "printed)",
    )
    parser.add_argument(
        "--scale",
        type=number(float, above=0),
        help="sidelength of the grid in world units (default: chosen)",
    )
    parser.add_argument(
        "--near_plane",
        type=number(float, above=0),
        help="distance of the first depth plane in world units (default: chosen)",
    )


def write_capture(capture: Capture, folder: Path, args: Namespace, source: str) -> str:
    """Writes train, test, points.ply and scene.json into the folder; returns lines for people: what
    was chosen, and warnings. Warns on stderr of training views that are test views too."""
    _validate(capture)
    camera = shared_pinhole(capture.cameras)
    plain = SceneIntrinsics(
        camera.focal_length_x,
        camera.principal_point_x,
        camera.principal_point_y,
        (0.0, 0.0, 0.0),
        0.0,
        1.0,
        camera.height,
        camera.width,
    )
    square = min(camera.width, camera.height)
    matrix = plain.matrix(square)
    rotation, why_up = (
        upright_rotation(capture.cam2world) if args.up == "cameras" else (np.eye(3), "--up none")
    )
    if not np.array_equal(rotation, np.eye(3)):
        upright = _turned(capture, rotation)
        yaw = tightest_yaw(
            upright.cam2world, matrix, square, _grid_points(upright), bool(capture.masks)
        )
        rotation = yaw @ rotation
    capture = _turned(capture, rotation)
    points = _grid_points(capture)
    grid = choose_grid(
        capture.cam2world,
        matrix,
        square,
        points,
        np.array(args.origin, dtype=np.float64) if args.origin else None,
        args.scale,
        args.near_plane,
        object_alone=bool(capture.masks),
    )
    intrinsics = _with_grid(plain, grid, args.sidelength)
    splits = split_views(len(capture.images), args.test_every)
    undistort = Undistorter(camera)
    for split, chosen in splits.items():
        write_scene_folder(
            folder / split,
            intrinsics,
            capture.cam2world[chosen],
            (_image(capture, index, undistort, args.sidelength) for index in chosen),
        )
    if len(capture.points):
        save_points(folder / "points.ply", capture.points, capture.colors)
    write_json(
        folder / "scene.json",
        {
            "source": source,
            "rotation": rotation.tolist(),
            "origin": grid.origin.tolist(),
            "scale": grid.scale,
            "near_plane": grid.near_plane,
            "why": {"rotation": why_up, **grid.why},
            "views": {
                split: [capture.names[index] for index in chosen]
                for split, chosen in splits.items()
            },
        },
    )
    warn_of_leaks(
        *(
            [(capture.names[index], capture.images[index]) for index in splits.get(split, [])]
            for split in ("train", "test")
        )
    )
    counts = " and ".join(f"{len(chosen)} {split}" for split, chosen in splits.items())
    verdict = judge(
        capture.cam2world, matrix, square, grid.origin, grid.scale, grid.near_plane, capture.names
    )
    return "\n  ".join(
        [
            f"{counts} views, {len(capture.points)} sparse points"
            + (f", {len(points)} of them in the masks" if capture.masks else ""),
            f"up: {why_up}",
            f"origin {' '.join(f'{value:.4g}' for value in grid.origin)}: {grid.why['origin']}",
            f"scale {grid.scale:.4g}: {grid.why['scale']}",
            f"near plane {grid.near_plane:.4g}: {grid.why['near_plane']}",
            *(f"warning: {line}" for line in verdict.errors + verdict.warnings),
        ]
    )


def split_views(count: int, test_every: int) -> dict[str, list[int]]:
    """The indices of the training and the test views: views 0, N, 2N, ... are test views; with 0,
    none.

    Raises InputError if fewer than two are left to train on.
    """
    test = list(range(0, count, test_every)) if test_every else []
    train = sorted(set(range(count)) - set(test))
    if len(train) < 2:
        raise InputError(
            f"--test_every {test_every}: leaves {len(train)} of {count} views to train on, "
            "training needs "
            "two"
        )
    return {"train": train, "test": test} if test else {"train": train}


def _validate(capture: Capture) -> None:
    if len(capture.images) < 2:
        raise InputError(f"{capture.images[0]}: is the only view; a scene needs several")
    if np.ptp(capture.cam2world[:, :3, 3], axis=0).max() == 0:
        raise InputError(
            f"{capture.images[0].parent}: all views were taken from the same place; a scene needs "
            "several "
            "places"
        )


def _turned(capture: Capture, rotation: Float[np.ndarray, "3 3"]) -> Capture:
    """The capture in a world turned by `rotation`."""
    cam2world = capture.cam2world.copy()
    cam2world[:, :3] = rotation @ capture.cam2world[:, :3]
    return replace(capture, cam2world=cam2world, points=capture.points @ rotation.T)


def _grid_points(capture: Capture) -> Float[np.ndarray, "_ 3"]:
    """The sparse points to choose the grid by: with masks, those of the object."""
    if not capture.masks:
        return capture.points
    return capture.points[
        object_points(capture.points, capture.masks, capture.cam2world, capture.cameras)
    ]


def _with_grid(plain: SceneIntrinsics, grid: Grid, sidelength: int | None) -> SceneIntrinsics:
    """The intrinsics with the grid, for images as they are or center-cropped and scaled to
    `sidelength`."""
    plain = replace(
        plain, grid_origin=tuple(grid.origin.tolist()), near_plane=grid.near_plane, scale=grid.scale
    )
    if sidelength is None:
        return plain
    (focal, _, cx), (_, _, cy), _ = plain.matrix(sidelength).tolist()
    return replace(plain, focal=focal, cx=cx, cy=cy, height=sidelength, width=sidelength)


def _image(
    capture: Capture, index: int, undistort: Undistorter, sidelength: int | None
) -> UInt8[np.ndarray, "h w channels"]:
    """A view's image as it is written: RGB, or RGBA where the image is transparent or has a
    mask."""
    path = capture.images[index]
    camera = capture.cameras[index]
    image = load_rgba(path)
    if image.shape[:2] != (camera.height, camera.width):
        raise InputError(
            f"{path}: is {image.shape[1]}x{image.shape[0]} pixels, its camera is for "
            f"{camera.width}x{camera.height}"
        )
    colors = image[..., :3]
    alpha = image[..., 3]
    if capture.masks:
        alpha = np.minimum(alpha, load_image(capture.masks[index])[..., 0])

    def resample(pixels: np.ndarray) -> np.ndarray:
        pixels = undistort(pixels, camera)
        return square_resize(pixels, sidelength) if sidelength else pixels

    return resample(colors) if alpha.min() == 255 else cut_out(colors, alpha, resample)
