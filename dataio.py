"""A scene folder as a dataset: its views in memory, and the triplets of views that training
uses."""

import hashlib
import os
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from data_util import (
    BACKGROUNDS,
    DEFAULT_NEAR_PLANE,
    SceneIntrinsics,
    load_image,
    nearest_views,
    read_views,
    square_resize,
)
from machine.cli import number
from machine.options import option
from projection import SceneGeometry
from util import InputError

NUM_NEIGHBORS = 5  # "top-5 nearest neighbors" (paper, section 3.1)
SPLITS = ("train", "validation", "test")


class Views(NamedTuple):
    """A scene's views, all on the device: selecting some copies nothing from the host, so it never
    waits. cam2world: relative to the grid's origin."""

    images: UInt8[Tensor, "views 3 s s"]
    cam2world: Float[Tensor, "views 4 4"]

    def pixels(self, selected) -> Float[Tensor, "n 3 s s"]:
        """The images of the views with these indices, in [-1/2, 1/2]."""
        return torch.stack([self.images[int(view)] for view in selected]).float() / 255 - 0.5

    def poses(self, selected) -> Float[Tensor, "n 4 4"]:
        """The poses of the views with these indices."""
        return torch.stack([self.cam2world[int(view)] for view in selected])


@dataclass(frozen=True)
class SceneOptions:
    """How a scene is read. A test reads it as its training did, unless told otherwise."""

    near_plane: float = option(
        DEFAULT_NEAR_PLANE,
        "near plane in world units, used if intrinsics.txt says 0",
        in_test="changeable",
        type=number(float, 1e-6),
    )
    background: str = option(
        "white",
        "colour behind transparent pixels",
        in_test="changeable",
        choices=sorted(BACKGROUNDS),
    )
    sampling_pattern: str = option(
        "all",
        "training views: 'all', or 'skip_N' to skip N views after each one",
        in_test="changeable",
        group="training",
    )


@dataclass(frozen=True)
class Scene:
    """The views of a scene folder, center-cropped to squares of one sidelength.

    names: the pose files' stems. cam2world: OpenCV axes, world units. images: 8-bit RGB, None if
    only poses were read.
    """

    root: Path
    names: list[str]
    cam2world: Float[np.ndarray, "views 4 4"]
    images: UInt8[Tensor, "views 3 s s"] | None
    intrinsics: SceneIntrinsics

    def __len__(self) -> int:
        return len(self.names)

    def poses(self, device: torch.device) -> Float[Tensor, "views 4 4"]:
        """The poses, relative to the grid's origin, as float32 on the device."""
        return torch.from_numpy(self.intrinsics.relative_to_grid(self.cam2world)).float().to(device)

    def with_grid_of(self, intrinsics: SceneIntrinsics) -> "Scene":
        """The same views with the grid's origin of other intrinsics, for a model that sees both."""
        return replace(
            self, intrinsics=replace(self.intrinsics, grid_origin=intrinsics.grid_origin)
        )

    def on(self, device: torch.device) -> Views:
        """Images, still 8-bit, and poses on the device."""
        return Views(self.images.to(device), self.poses(device))

    @cached_property
    def fingerprint(self) -> str:
        """A hash of poses and images, equal for two folders with the same scene."""
        digest = hashlib.sha256(self.cam2world.tobytes())
        digest.update(self.images.numpy())
        return digest.hexdigest()

    def subset(self, views: list[int]) -> "Scene":
        """The scene with only the given views."""
        return replace(
            self,
            names=[self.names[i] for i in views],
            cam2world=self.cam2world[views],
            images=None if self.images is None else self.images[views],
        )


def find_split(folder: Path, split: str) -> Path | None:
    """The folder of another split (one of `SPLITS`) of the scene that `folder` belongs to, or None.

    That is SCENE/test beside SCENE/train or, in the original's layout, ROOT/test/NAME for
    ROOT/train/NAME. A split that is a link belongs to the scene that it lies in, not to the one
    that it leads to.
    """
    folder = Path(os.path.abspath(folder))
    candidates = [folder.parent / split]
    if folder.parent.name in SPLITS and folder.name not in SPLITS:
        candidates.insert(0, folder.parent.parent / split / folder.name)
    return next((candidate for candidate in candidates if candidate.is_dir()), None)


def load_scene(
    root: Path,
    sidelength: int,
    sampling_pattern: str = "all",
    background: str = "white",
    with_images: bool = True,
) -> Scene:
    """Reads `root/pose`, `root/intrinsics.txt` and, unless `with_images` is false, `root/rgb`.

    Raises `InputError`, naming the file, if a file is missing or wrong or does not match the
    others.
    """
    views = read_views(root, sampling_pattern, with_images)
    images = None
    if views.images is not None:
        images = _load_images(views.images, sidelength, background, views.intrinsics)
    return Scene(root, views.names, views.cam2world, images, views.intrinsics)


def scene_geometry(
    intrinsics: SceneIntrinsics,
    grid_dim: int,
    map_sidelength: int,
    default_near_plane: float,
) -> SceneGeometry:
    """The geometry of a scene as a model with a grid of `grid_dim` voxels a side and feature maps
    of `map_sidelength` pixels sees it: in a world whose origin is the grid's.

    Poses are taken relative to the grid's origin in float64 (`SceneIntrinsics.relative_to_grid`,
    `Scene.poses`) before they become float32. `default_near_plane` (world units) is used where
    `intrinsics.txt` says 0.
    """
    matrix = intrinsics.matrix(map_sidelength)
    return SceneGeometry(
        grid_dim,
        intrinsics.scale / grid_dim,
        (0.0, 0.0, 0.0),
        intrinsics.grid(default_near_plane).near_plane,
        map_sidelength,
        focal=float(matrix[0, 0]),
        cx=float(matrix[0, 2]),
        cy=float(matrix[1, 2]),
    )


def draw_triplets(
    cam2world: Float[np.ndarray, "views 4 4"],
    num_targets: int,
    seed: int,
    epoch: int,
    num_sources: int = 1,
) -> Int[np.ndarray, "views _"]:
    """The triplets of one epoch (paper, section 3.1). A row holds view indices: source, target 0,
    target 1, ...

    Each view is target 0 once, in random order. The other targets are random views. The source is
    one of the `NUM_NEIGHBORS` views nearest to target 0 in viewing direction, but not that view
    itself. If `num_sources` is n > 1, each of the first n targets has such a source, and a row
    begins with these n sources.

    The result depends only on the arguments, so a resumed run continues with the triplets that it
    would have drawn.
    """
    views = len(cam2world)
    generator = np.random.default_rng([seed, epoch])
    first = generator.permutation(views)
    targets = np.column_stack([first, generator.integers(views, size=(views, num_targets - 1))])
    ranked = nearest_views(cam2world, cam2world, count=NUM_NEIGHBORS + 1)
    neighbors = np.stack([row[row != view][:NUM_NEIGHBORS] for view, row in enumerate(ranked)])
    sources = neighbors[
        targets[:, :num_sources], generator.integers(neighbors.shape[1], size=(views, num_sources))
    ]
    return np.column_stack([sources, targets])


def _load_images(
    paths: list[Path],
    sidelength: int,
    background: str,
    intrinsics: SceneIntrinsics,
) -> UInt8[Tensor, "views 3 s s"]:
    images = np.empty((len(paths), 3, sidelength, sidelength), dtype=np.uint8)
    size = None
    for i, path in enumerate(paths):
        image = load_image(path, background)
        size = image.shape[:2] if size is None else size
        if image.shape[:2] != size:
            raise InputError(
                f"{path}: is {image.shape[1]}x{image.shape[0]} pixels, "
                f"{paths[0].name} is {size[1]}x{size[0]}; all must have one size"
            )
        images[i] = square_resize(image, sidelength).transpose(2, 0, 1)
    intrinsics.require_fits(paths[0], *size)
    return torch.from_numpy(images)
