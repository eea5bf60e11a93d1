"""A capture: images with cameras and perhaps sparse points, which all importers write as a scene
through here."""

import copy
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import cv2
import numpy as np
import pycolmap
from jaxtyping import Float, UInt8

from data_util import (
    SceneIntrinsics,
    load_rgba,
    same_aspect_ratio,
    square_resize,
    write_scene_folder,
)
from files.folders import new_folder
from files.images import may_be_transparent, picture_size
from files.points import save_points
from geometry.cameras import upright_rotation
from geometry.coverage import Grid, Pinhole, judge
from geometry.grid import PointKind, choose_grid, tightest_yaw
from scenes.capture.cameras import Undistorter, shared_pinhole
from scenes.capture.listing import warn, warn_of_enlarging, warn_of_leaks
from scenes.capture.masks import Silhouette, cut_out, find_masks, object_points, read_mask
from scenes.capture.options import CaptureOptions, split_views
from util import InputError, write_json

# Without sparse points, the grid is chosen by silhouettes.
MAX_SILHOUETTES = 24  # most silhouettes that are used
SILHOUETTE_SHARE = 0.95  # a point in the object lies in this share of the views that see it
LATTICE = 40  # points along each side of the lattice that is tested


@dataclass(frozen=True)
class Capture:
    """One entry per view, in the order of their numbers in the scene.

    names: for messages and scene.json. cam2world: rigid, OpenCV axes. cameras: COLMAP's, with their
    distortion. points, colors: the sparse points in world coordinates, empty if the source has
    none. masks: white where the object is; None for a view that is not cut out, or by its image's
    own alpha alone; empty if no view has one. splits: the views of train, validation and test;
    empty if the source does not say.
    """

    images: list[Path]
    names: list[str]
    cam2world: Float[np.ndarray, "views 4 4"]
    cameras: list[pycolmap.Camera]
    points: Float[np.ndarray, "points 3"]
    colors: UInt8[np.ndarray, "points 3"]
    masks: list[Path | None] = field(default_factory=list)
    splits: dict[str, list[int]] = field(default_factory=dict)


def import_capture(
    capture: Capture, masks: Path | None, target: Path, options: CaptureOptions, source: str
) -> str:
    """Makes the scene folder `target`, whole or not at all; returns `write_capture`'s lines.

    masks: folder with a mask for each image, instead of what the capture has.
    """
    if masks:
        capture = replace(capture, masks=find_masks(masks, capture.images))
    with new_folder(target) as folder:
        return write_capture(capture, folder, options, source)


def write_capture(capture: Capture, folder: Path, options: CaptureOptions, source: str) -> str:
    """Writes train, test, points.ply and scene.json into the folder; returns lines for people: what
    was chosen, and warnings. Warns on stderr of training views that are test views too."""
    _require_several_places(capture)
    splits = _splits(capture, options)
    capture = _fit_to_images(capture)
    pinhole = shared_pinhole(capture.cameras)
    plain = _plain_intrinsics(pinhole)
    camera = plain.pinhole(min(pinhole.width, pinhole.height))
    points, kind = _grid_points(capture, camera)
    rotation, why_up = _upright(capture, camera, options, points, kind)
    capture = _turned(capture, rotation)
    points = points @ rotation.T
    grid, why = choose_grid(capture.cam2world, camera, points, options.grid, kind)
    warn_of_enlarging(options.sidelength, min(plain.height, plain.width))
    intrinsics = _with_grid(plain, grid, options.sidelength)
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
    in_masks = f", {len(points)} of them in the masks" if kind.endswith("in the masks") else ""
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


def _splits(capture: Capture, options: CaptureOptions) -> dict[str, list[int]]:
    """The views of each split: those that the source names, else every Nth is a test view."""
    if not capture.splits:
        return split_views(len(capture.images), options.test_every, options.val_every)
    if options.test_every is not None:
        raise InputError(
            f"--test_every {options.test_every}: the source says itself which views are for testing"
        )
    if options.val_every:
        raise InputError(
            f"--val_every {options.val_every}: the source says itself which views are for "
            "validation"
        )
    if len(capture.splits["train"]) < 2:
        raise InputError(
            f"{capture.images[0].parent}: the source names {len(capture.splits['train'])} views to "
            "train on, training needs two"
        )
    return capture.splits


def _fit_to_images(capture: Capture) -> Capture:
    """The capture with the cameras of images that are smaller or larger than these, but of their
    aspect ratio, scaled to the images."""
    cameras = []
    scaled = []
    for path, camera in zip(capture.images, capture.cameras, strict=True):
        width, height = picture_size(path)
        size = camera.width, camera.height
        if (width, height) != size and same_aspect_ratio((width, height), size):
            scaled.append(
                f"{path.name} is {width}x{height} pixels, its camera for {size[0]}x{size[1]}"
            )
            camera = copy.copy(camera)
            camera.rescale(width, height)
        elif (width, height) != size:
            raise InputError(
                f"{path}: is {width}x{height} pixels, its camera is for {size[0]}x{size[1]}"
            )
        cameras.append(camera)
    if scaled:
        warn(f"{len(scaled)} of {len(cameras)} cameras scaled to the images' size: {scaled[0]}")
    return replace(capture, cameras=cameras)


def _upright(
    capture: Capture,
    camera: Pinhole,
    options: CaptureOptions,
    points: Float[np.ndarray, "_ 3"],
    kind: PointKind,
) -> tuple[Float[np.ndarray, "3 3"], str]:
    """The rotation that leads into a world whose z is up and in which the grid is smallest, and
    why."""
    if options.up == "none":
        return np.eye(3), "--up none"
    rotation, why = upright_rotation(capture.cam2world)
    if np.array_equal(rotation, np.eye(3)):
        return rotation, why
    upright = _turned(capture, rotation)
    return tightest_yaw(upright.cam2world, camera, points @ rotation.T, kind) @ rotation, why


def _turned(capture: Capture, rotation: Float[np.ndarray, "3 3"]) -> Capture:
    """The capture in a world turned by `rotation`."""
    cam2world = capture.cam2world.copy()
    cam2world[:, :3] = rotation @ capture.cam2world[:, :3]
    return replace(capture, cam2world=cam2world, points=capture.points @ rotation.T)


def _grid_points(capture: Capture, camera: Pinhole) -> tuple[Float[np.ndarray, "_ 3"], PointKind]:
    """The points to choose the grid by: the sparse ones, of which with masks the object's; where
    there are none, points that all views see in their silhouettes, if the object is cut out."""
    if not len(capture.points):
        return _silhouette_points(capture, camera), "points in the silhouettes"
    if not any(capture.masks):
        return capture.points, "sparse points"
    chosen = [index for index, mask in enumerate(capture.masks) if mask is not None]
    inside = object_points(capture.points, _silhouettes(capture, chosen))
    return capture.points[inside], "sparse points in the masks"


def _silhouettes(capture: Capture, views: list[int]) -> Iterator[Silhouette]:
    for view in views:
        alpha = _mask(capture, view)
        if may_be_transparent(capture.images[view]):
            alpha = np.minimum(load_rgba(capture.images[view])[..., 3], alpha)
        yield Silhouette(alpha, capture.cam2world[view], capture.cameras[view])


def _mask(capture: Capture, view: int) -> UInt8[np.ndarray, "h w"]:
    """The view's mask in its image's size, white where it has none."""
    camera = capture.cameras[view]
    path = capture.masks[view] if capture.masks else None
    if path is None:
        return np.full((camera.height, camera.width), 255, np.uint8)
    mask = read_mask(path)
    size = camera.width, camera.height
    if mask.shape == size[::-1]:
        return mask
    if not same_aspect_ratio(mask.shape[::-1], size):
        raise InputError(
            f"{path}: is {mask.shape[1]}x{mask.shape[0]} pixels, its image {size[0]}x{size[1]}"
        )
    return cv2.resize(mask, size, interpolation=cv2.INTER_AREA)


def _silhouette_points(capture: Capture, camera: Pinhole) -> Float[np.ndarray, "_ 3"]:
    """Points of a lattice that nearly all views see in the object; none if it is not cut out."""
    count = len(capture.images)
    views = np.unique(np.linspace(0, count - 1, min(count, MAX_SILHOUETTES)).astype(int)).tolist()
    if not any(_may_be_cut_out(capture, view) for view in views):
        return np.zeros((0, 3))
    around, _ = choose_grid(capture.cam2world, camera, np.zeros((0, 3)))
    lattice = replace(around, scale=2 * around.scale).samples(LATTICE)
    return lattice[object_points(lattice, _silhouettes(capture, views), SILHOUETTE_SHARE)]


def _may_be_cut_out(capture: Capture, view: int) -> bool:
    has_mask = bool(capture.masks) and capture.masks[view] is not None
    return has_mask or may_be_transparent(capture.images[view])


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
    camera = capture.cameras[index]
    image = load_rgba(capture.images[index])
    colors = image[..., :3]
    alpha = np.minimum(image[..., 3], _mask(capture, index))

    def resample(pixels: np.ndarray) -> np.ndarray:
        pixels = undistort(pixels, camera)
        return square_resize(pixels, sidelength) if sidelength else pixels

    return resample(colors) if alpha.min() == 255 else cut_out(colors, alpha, resample)
