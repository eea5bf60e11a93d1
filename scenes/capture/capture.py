"""A capture: images with cameras and perhaps sparse points, which all importers write as a scene
through here."""

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pycolmap
from jaxtyping import Float, UInt8

from data_util import SceneIntrinsics, load_image, load_rgba, square_resize, write_scene_folder
from files.points import save_points
from geometry.cameras import upright_rotation
from geometry.coverage import Grid, Pinhole, judge
from geometry.grid import choose_grid, tightest_yaw
from scenes.capture.cameras import Undistorter, shared_pinhole
from scenes.capture.listing import warn_of_leaks
from scenes.capture.masks import cut_out, object_points
from scenes.capture.options import CaptureOptions, split_views
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


def write_capture(capture: Capture, folder: Path, options: CaptureOptions, source: str) -> str:
    """Writes train, test, points.ply and scene.json into the folder; returns lines for people: what
    was chosen, and warnings. Warns on stderr of training views that are test views too."""
    _require_several_places(capture)
    pinhole = shared_pinhole(capture.cameras)
    plain = _plain_intrinsics(pinhole)
    camera = plain.pinhole(min(pinhole.width, pinhole.height))
    capture, rotation, why_up = _upright(capture, camera, options)
    points = _grid_points(capture)
    grid, why = choose_grid(
        capture.cam2world, camera, points, options.grid, object_alone=bool(capture.masks)
    )
    intrinsics = _with_grid(plain, grid, options.sidelength)
    splits = split_views(len(capture.images), options.test_every)
    undistort = Undistorter(pinhole)
    for split, chosen in splits.items():
        write_scene_folder(
            folder / split,
            intrinsics,
            capture.cam2world[chosen],
            (_image(capture, index, undistort, options.sidelength) for index in chosen),
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
            "why": {"rotation": why_up, **why},
            "views": {
                split: [capture.names[index] for index in chosen]
                for split, chosen in splits.items()
            },
        },
    )
    named = list(zip(capture.names, capture.images, strict=True))
    warn_of_leaks(
        *([named[index] for index in splits.get(split, [])] for split in ("train", "test"))
    )
    counts = " and ".join(f"{len(chosen)} {split}" for split, chosen in splits.items())
    in_masks = f", {len(points)} of them in the masks" if capture.masks else ""
    verdict = judge(capture.cam2world, camera, grid, capture.names)
    return "\n  ".join(
        [
            f"{counts} views, {len(capture.points)} sparse points{in_masks}",
            f"up: {why_up}",
            f"origin {' '.join(f'{value:.4g}' for value in grid.origin)}: {why['origin']}",
            f"scale {grid.scale:.4g}: {why['scale']}",
            f"near plane {grid.near_plane:.4g}: {why['near_plane']}",
            *(f"warning: {line}" for line in verdict.errors + verdict.warnings),
        ]
    )


def _require_several_places(capture: Capture) -> None:
    if len(capture.images) < 2:
        raise InputError(f"{capture.images[0]}: is the only view; a scene needs several")
    if np.ptp(capture.cam2world[:, :3, 3], axis=0).max() == 0:
        raise InputError(
            f"{capture.images[0].parent}: all views were taken from the same place; a scene needs "
            "several places"
        )


def _plain_intrinsics(pinhole: pycolmap.Camera) -> SceneIntrinsics:
    """The intrinsics of a pinhole camera, with no grid yet."""
    return SceneIntrinsics(
        pinhole.focal_length_x,
        pinhole.principal_point_x,
        pinhole.principal_point_y,
        (0.0, 0.0, 0.0),
        near_plane=0.0,
        scale=1.0,
        height=pinhole.height,
        width=pinhole.width,
    )


def _upright(
    capture: Capture, camera: Pinhole, options: CaptureOptions
) -> tuple[Capture, Float[np.ndarray, "3 3"], str]:
    """The capture in a world whose z is up and in which the grid is smallest, the rotation that
    leads there, and why."""
    if options.up == "none":
        return capture, np.eye(3), "--up none"
    rotation, why = upright_rotation(capture.cam2world)
    if not np.array_equal(rotation, np.eye(3)):
        upright = _turned(capture, rotation)
        points = _grid_points(upright)
        yaw = tightest_yaw(upright.cam2world, camera, points, object_alone=bool(capture.masks))
        rotation = yaw @ rotation
    return _turned(capture, rotation), rotation, why


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
