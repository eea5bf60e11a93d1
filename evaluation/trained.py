"""The one door to a trained model: from a checkpoint to a network with its geometry, ready to
render.

    checkpoint = read_checkpoint(path)
    views = checkpoint.load_views(checkpoint.scene_root())
    model = checkpoint.load_model(views.intrinsics, device)
    frames = model.render_path(views.cam2world)
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from baselines import NEEDS_SOURCE_VIEW, recorded_model
from checkpoints import load_checkpoint
from data_util import BACKGROUNDS, DEFAULT_NEAR_PLANE, SceneIntrinsics, scene_parts
from dataio import Scene, load_scene, scene_geometry
from deep_voxels import Architecture, DeepVoxels, Rendering
from evaluation.render import (
    Frame,
    copies_on_host,
    load_model,
    make_fast_,
    nearest_neighbors,
    render_path,
    view_renderer,
)
from machine.runtime import autocast
from projection import SceneGeometry
from util import InputError

PRECISION = "fp32"


@dataclass(frozen=True)
class Checkpoint:
    """A loaded checkpoint, and what it records of its model and its training.

    path: for messages. content: what `load_checkpoint` returned. model: the `--model` flag.
    """

    path: Path
    content: dict
    model: str
    architecture: Architecture

    @classmethod
    def of(cls, content: dict, path: Path) -> "Checkpoint":
        """Raises `InputError` if the content is not that of a model that we know."""
        flags = recorded_model(content, path)
        model = flags["model"]
        architecture = Architecture(**{k: v for k, v in flags.items() if k != "model"})
        return cls(path, content, model, architecture)

    @property
    def step(self) -> int | None:
        step = self.content.get("step")
        return step if isinstance(step, int) else None

    @property
    def renders_from_views(self) -> bool:
        """Whether the model needs training views to render: a baseline `NEEDS_SOURCE_VIEW`."""
        return self.model in NEEDS_SOURCE_VIEW

    @property
    def background(self) -> str:
        background = self.option("background", "white")
        return background if background in BACKGROUNDS else "white"

    def option(self, name: str, default):
        """An option of the training; the default where none of the default's type is recorded, as
        in the original's checkpoints."""
        options = self.content.get("options")
        value = options.get(name) if isinstance(options, dict) else None
        return value if isinstance(value, type(default)) else default

    def scene_root(self, data_root: Path | None = None) -> Path:
        """The folder of views at `data_root`, or of the scene that the model was trained on."""
        if data_root is None:
            return recorded_scene(self.path, self.option("data_root", ""))
        return scene_parts(data_root)[0]

    def load_training_views(self, root: Path) -> Scene:
        """The views at `root` that training takes, at its size and over its background."""
        pattern = self.option("sampling_pattern", "all")
        return load_scene(root, self.architecture.img_sidelength, pattern, self.background)

    def load_views(self, root: Path) -> Scene:
        """All views at `root`, as training would see them."""
        return load_scene(root, self.architecture.img_sidelength, background=self.background)

    def load_poses(self, root: Path) -> Scene:
        """All views at `root`, without images."""
        return load_scene(root, self.architecture.img_sidelength, with_images=False)

    def load_model(
        self,
        intrinsics: SceneIntrinsics,
        device: torch.device,
        sources: Scene | None = None,
        fast: bool = True,
    ) -> "TrainedModel":
        """The model, seeing a scene with these intrinsics.

        sources: the training views that a baseline renders from. fast: as `make_fast_`, after which
        a network can only render.
        """
        geometry = scene_geometry(
            intrinsics,
            self.architecture.grid_dim,
            self.architecture.proj_sidelength,
            self.option("near_plane", DEFAULT_NEAR_PLANE),
        )
        network = load_model(self.model, self.architecture, geometry, self.content, self.path)
        network.to(device)
        if fast:
            make_fast_(network, device)
        if not self.renders_from_views:
            sources = None
        elif sources is not None:
            sources = sources.with_grid_of(intrinsics)
        return TrainedModel(
            self.path,
            self.step,
            self.model,
            self.architecture,
            network,
            geometry,
            intrinsics,
            device,
            sources,
        )


@dataclass(frozen=True)
class TrainedModel:
    """A network in evaluation mode, with the geometry with which it sees a scene.

    path, step, name, architecture: of its checkpoint. intrinsics: the scene's. sources: the
    training views that a baseline renders from, None for any other model.
    """

    path: Path
    step: int | None
    name: str
    architecture: Architecture
    network: nn.Module
    geometry: SceneGeometry
    intrinsics: SceneIntrinsics
    device: torch.device
    sources: Scene | None

    @property
    def learns_depth(self) -> bool:
        """Whether the model renders depth: DeepVoxels with its occlusion net."""
        return isinstance(self.network, DeepVoxels) and not self.architecture.no_occlusion_net

    def poses(self, cam2world: Float[np.ndarray, "v 4 4"]) -> Float[Tensor, "v 4 4"]:
        """Poses as the network takes them: relative to the grid's origin, on the device."""
        return torch.from_numpy(self.intrinsics.relative_to_grid(cam2world)).float().to(self.device)

    def render_path(
        self, cam2world: Float[np.ndarray, "path 4 4"], precision: str = PRECISION
    ) -> Iterator[Frame]:
        """Yields a frame for every pose, in order."""
        neighbors = self.sources and nearest_neighbors(self.sources, cam2world)
        return render_path(self.network, self.poses(cam2world), neighbors, precision)

    def render_view(self, cam2world: Float[np.ndarray, "4 4"]) -> Frame:
        """The view from a pose. The volume is inpainted in the first call, and kept."""
        poses = self.poses(cam2world[None])
        neighbors = self.sources and nearest_neighbors(self.sources, cam2world[None])
        with torch.inference_mode(), autocast(PRECISION, self.device):
            rendering = self._render(poses, neighbors and neighbors.nearest)
            images, depths = copies_on_host(rendering)
            return Frame(0, images()[0], depths and depths()[0])

    @cached_property
    def _render(self) -> Callable[..., Rendering]:
        return view_renderer(self.network, self.sources, self.device)


def read_checkpoint(path: Path) -> Checkpoint:
    """Raises `InputError` if the file is not the checkpoint of a model that we know."""
    return Checkpoint.of(load_checkpoint(path), path)


def recorded_scene(path: Path, data_root: str) -> Path:
    """The folder of views of the scene that a checkpoint says it was trained on. `path`, of the
    checkpoint, is for messages."""
    if not data_root:
        raise InputError(f"{path}: does not say which scene it was trained on; give --data_root")
    if not Path(data_root).is_dir():
        raise InputError(
            f"{data_root}: the scene of {path} is not there any more; give --data_root"
        )
    return scene_parts(Path(data_root))[0]
