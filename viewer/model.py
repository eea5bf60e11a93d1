"""What is looked at: a scene, and a model of it as one checkpoint has it."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import nn

from baselines import FROM_SOURCE
from checkpoints import load_checkpoint
from data_util import BACKGROUNDS, SceneIntrinsics, nearest_views
from dataio import Scene, load_scene
from deep_voxels import Architecture, Rendering
from evaluation.export import learns_depth
from evaluation.render import (
    Frame,
    Neighbors,
    copies_on_host,
    load_recorded,
    make_fast_,
    nearest_neighbors,
    recorded_network,
    recorded_option,
    recorded_scene,
    view_renderer,
)
from geometry.cameras import scene_axes
from machine.runtime import autocast
from projection import SceneGeometry
from util import InputError
from viewer.camera import Lens, lens_of

PRECISION = "fp32"


@dataclass(frozen=True)
class Model:
    """A model that renders one view at a time. Its methods are for the rendering thread."""

    path: Path
    step: int | None
    name: str
    architecture: Architecture
    geometry: SceneGeometry
    network: nn.Module
    device: torch.device
    sources: Scene | None

    @property
    def depth_range(self) -> tuple[float, float]:
        """The depths of the first plane and behind the last, in world units: what colours span."""
        near = self.geometry.near_plane
        return near, near + 2 * self.geometry.grid_dim * self.geometry.voxel_size

    @property
    def has_depth(self) -> bool:
        return learns_depth(self.network)

    def frame(self, cam2world: Float[np.ndarray, "4 4"]) -> Frame:
        """The view from a pose."""
        poses = torch.from_numpy(cam2world[None]).to(self.device, torch.float32)
        with torch.inference_mode(), autocast(PRECISION, self.device):
            nearest = (
                self.sources and nearest_views(cam2world[None], self.sources.cam2world, 1)[:, 0]
            )
            images, depths = copies_on_host(self._render(poses, nearest))
            return Frame(0, images()[0], depths and depths()[0])

    @cached_property
    def _render(self) -> Callable[..., Rendering]:
        return view_renderer(self.network, self.sources, self.device)  # inpaints the volume

    def neighbors(self, cam2world: Float[np.ndarray, "path 4 4"]) -> Neighbors | None:
        """The training views that a path is rendered from, if the model needs any."""
        return self.sources and nearest_neighbors(self.sources, cam2world)


@dataclass(frozen=True)
class SceneInView:
    """A scene folder as the viewer shows it.

    views: its poses and, where the folder has any, photos of the model's size. up: unit vector.
    first: the index of the view that is shown first.
    """

    root: Path
    views: Scene
    lens: Lens
    up: Float[np.ndarray, "3"]
    first: int

    @property
    def intrinsics(self) -> SceneIntrinsics:
        return self.views.intrinsics

    @property
    def origin(self) -> Float[np.ndarray, "3"]:
        """The grid's center."""
        return np.array(self.intrinsics.grid_origin)


def load_scene_in_view(path: Path, checkpoint: dict, data_root: Path | None) -> SceneInView:
    """The scene at `data_root`, or the one that the checkpoint (`path`, for messages) was trained
    on."""
    root = recorded_scene(checkpoint, path, data_root)
    sidelength = recorded_network(checkpoint, path)[1].img_sidelength
    with_images = (root / "rgb").is_dir()
    background = recorded_option(checkpoint, "background", "white")
    pattern = recorded_option(checkpoint, "sampling_pattern", "all") if with_images else "all"
    views = load_scene(
        root, sidelength, pattern, background if background in BACKGROUNDS else "white", with_images
    )
    up = scene_axes(views.cam2world)[2]
    return SceneInView(
        root,
        views,
        lens_of(views.intrinsics, sidelength),
        up,
        first_view(views.cam2world, np.array(views.intrinsics.grid_origin), up),
    )


def first_view(
    cam2world: Float[np.ndarray, "views 4 4"],
    origin: Float[np.ndarray, "3"],
    up: Float[np.ndarray, "3"],
) -> int:
    """The view that is upright and looks at the grid's center best, since the browser's camera can
    do nothing else.

    Of equally good ones it is the one whose elevation is nearest to the median.
    """
    forward = cam2world[:, :3, 2]
    to_origin = origin - cam2world[:, :3, 3]
    to_origin /= np.maximum(np.linalg.norm(to_origin, axis=1, keepdims=True), 1e-12)
    off_axis = np.arccos(np.clip((to_origin * forward).sum(axis=1), -1, 1))
    roll = np.arcsin(np.clip(np.abs(cam2world[:, :3, 0] @ up), 0, 1))
    elevation = np.arcsin(np.clip(forward @ up, -1, 1))
    return int(
        np.lexsort([np.abs(elevation - np.median(elevation)), np.round(off_axis + roll, 2)])[0]
    )


def farthest_orbit(model: Model, scene: SceneInView) -> float:
    """How far from the grid's center cameras may go (world units): to where half of the grid lies
    before the last depth plane, or to the farthest training camera. From farther away a model sees
    nothing of it."""
    farthest_camera = np.linalg.norm(scene.views.cam2world[:, :3, 3] - scene.origin, axis=1).max()
    return float(max(model.depth_range[1] - scene.intrinsics.scale / 2, farthest_camera))


def build(path: Path, checkpoint: dict, scene: SceneInView, device: torch.device) -> Model:
    """The model of a loaded checkpoint (`path`, for messages), fast to render."""
    name, architecture = recorded_network(checkpoint, path)
    if name in FROM_SOURCE and scene.views.images is None:
        raise InputError(f"{scene.root}: has no rgb/; --model {name} renders from training views")
    network, geometry = load_recorded(checkpoint, path, scene.intrinsics, device)
    make_fast_(network, device)
    step = checkpoint.get("step")
    return Model(
        path,
        step if isinstance(step, int) else None,
        name,
        architecture,
        geometry,
        network,
        device,
        scene.views if name in FROM_SOURCE else None,
    )


def load_next(path: Path, scene: SceneInView, shown: Model) -> Model:
    """The model of a newer checkpoint of the run that is shown. Raises `InputError` if it is of
    another kind."""
    checkpoint = load_checkpoint(path)
    name, architecture = recorded_network(checkpoint, path)
    if (name, architecture) != (shown.name, shown.architecture):
        raise InputError(
            f"{path}: is of another architecture than {shown.path.name}; it is not shown"
        )
    return build(path, checkpoint, scene, shown.device)
