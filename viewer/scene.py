"""What is looked at: a scene, and the model of it that a checkpoint holds."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float

from data_util import SceneIntrinsics
from dataio import Scene
from evaluation.trained import Checkpoint, TrainedModel, read_checkpoint
from geometry.cameras import scene_axes
from geometry.coverage import Grid, frustum_meets_grid
from util import InputError
from viewer.camera import Lens, lens_of


@dataclass(frozen=True)
class SceneInView:
    """A scene folder as the viewer shows it: in a world whose origin is the grid's, since browsers
    compute in float32.

    offset: the grid's origin in the world of the folder's files. views: its poses and, where the
    folder has any, photos of the model's size. up: unit vector. first: the index of the view that
    is shown first.
    """

    root: Path
    offset: Float[np.ndarray, "3"]
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


def load_scene_in_view(checkpoint: Checkpoint, data_root: Path | None) -> SceneInView:
    """The scene at `data_root`, or the one that the model was trained on."""
    root = checkpoint.scene_root(data_root)
    if (root / "rgb").is_dir():
        views = checkpoint.load_training_views(root)
    else:
        views = checkpoint.load_poses(root)
    offset = np.array(views.intrinsics.grid_origin)
    views = replace(
        views,
        cam2world=views.intrinsics.relative_to_grid(views.cam2world),
        intrinsics=replace(views.intrinsics, grid_origin=(0.0, 0.0, 0.0)),
    )
    up = scene_axes(views.cam2world)[2]
    return SceneInView(
        root,
        offset,
        views,
        lens_of(views.intrinsics, checkpoint.architecture.img_sidelength),
        up,
        first_view(views.cam2world, np.zeros(3), up),
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


def orbit_center(cam2world: Float[np.ndarray, "4 4"], scene: SceneInView) -> Float[np.ndarray, "3"]:
    """The point on a camera's viewing axis nearest to the grid's center: orbits turn around it."""
    position = cam2world[:3, 3]
    forward = cam2world[:3, 2]
    distance = max(float((scene.origin - position) @ forward), 0.1 * scene.intrinsics.scale)
    return position + distance * forward


def sees_grid(
    cam2world: Float[np.ndarray, "views 4 4"], scene: SceneInView, model: TrainedModel
) -> Bool[np.ndarray, "views"]:
    """Whether anything of the grid is in sight from each pose, before the last depth plane."""
    return frustum_meets_grid(
        cam2world,
        scene.intrinsics.pinhole(scene.lens.sidelength),
        Grid(scene.origin, scene.intrinsics.scale, model.geometry.near_plane),
    )


def farthest_orbit(model: TrainedModel, scene: SceneInView) -> float:
    """How far from the grid's center cameras may go (world units): to where half of the grid lies
    before the last depth plane, or to the farthest training camera. From farther away a model sees
    nothing of it."""
    farthest_camera = np.linalg.norm(scene.views.cam2world[:, :3, 3] - scene.origin, axis=1).max()
    _, farthest_depth = model.geometry.depth_range
    return float(max(farthest_depth - scene.intrinsics.scale / 2, farthest_camera))


def load_viewed_model(
    checkpoint: Checkpoint, scene: SceneInView, device: torch.device
) -> TrainedModel:
    """The model of a checkpoint, fast to render. A baseline renders from the scene's photos."""
    if checkpoint.renders_from_views and scene.views.images is None:
        raise InputError(
            f"{scene.root}: has no rgb/; --model {checkpoint.model} renders from training views"
        )
    return checkpoint.load_model(scene.intrinsics, device, scene.views)


def load_next(path: Path, scene: SceneInView, shown: TrainedModel) -> TrainedModel:
    """The model of a newer checkpoint of the run that is shown. Raises `InputError` if it is of
    another kind."""
    checkpoint = read_checkpoint(path)
    if (checkpoint.model, checkpoint.architecture) != (shown.name, shown.architecture):
        raise InputError(
            f"{path}: is of another architecture than {shown.path.name}; it is not shown"
        )
    return load_viewed_model(checkpoint, scene, shown.device)
