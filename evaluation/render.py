"""Renders views from a trained model: any poses (`view_renderer`), or a whole camera path, frame by
frame."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from baselines import build_model, recorded_model
from checkpoints import load_weights, tested_weights
from cpu_kernels import accelerate_, prepare_for_frames_
from data_util import BORDER, DEFAULT_NEAR_PLANE, SceneIntrinsics, nearest_views, scene_parts
from dataio import Scene, scene_geometry
from deep_voxels import Architecture, DeepVoxels, Rendering, describe
from machine.ranks import ALONE, Ranks
from machine.runtime import autocast, channels_last_, uses_cpu_kernels
from projection import SceneGeometry
from util import InputError

VIEWS_AT_ONCE = 4


class Frame(NamedTuple):
    """One rendered view: its index in the path, its image in [0, 1], and depth along z in world
    units where the model has any."""

    view: int
    whole: Float[np.ndarray, "s s 3"]
    depth: Float[np.ndarray, "m m"] | None

    @property
    def image(self) -> Float[np.ndarray, "h w 3"]:
        """The image without its border, which training never sees."""
        return self.whole[BORDER:-BORDER, BORDER:-BORDER]


class Neighbors(NamedTuple):
    """The training views, and the index of the one nearest in viewing direction to each view of a
    path."""

    views: Scene
    nearest: Int[np.ndarray, "path"]


def nearest_neighbors(training_views: Scene, cam2world: Float[np.ndarray, "path 4 4"]) -> Neighbors:
    """The top-1 neighbour of each pose, which baselines render from (paper, section 4)."""
    return Neighbors(training_views, nearest_views(cam2world, training_views.cam2world, 1)[:, 0])


def recorded_option(checkpoint: dict, name: str, default):
    """An option of a checkpoint's training; the default where none of the default's type is
    recorded, as in the original's checkpoints."""
    options = checkpoint.get("options")
    value = options.get(name) if isinstance(options, dict) else None
    return value if isinstance(value, type(default)) else default


def recorded_scene(checkpoint: dict, path: Path, data_root: Path | None) -> Path:
    """The folder of views at `data_root`, or of the scene that the checkpoint (`path`, for
    messages) was trained on."""
    if data_root is None:
        recorded = recorded_option(checkpoint, "data_root", "")
        if not recorded:
            raise InputError(
                f"{path}: does not say which scene it was trained on; give --data_root"
            )
        data_root = Path(recorded)
        if not data_root.is_dir():
            raise InputError(
                f"{data_root}: the scene of {path} is not there any more; give --data_root"
            )
    return scene_parts(data_root)[0]


def recorded_network(checkpoint: dict, path: Path) -> tuple[str, Architecture]:
    """The name and the architecture of a loaded checkpoint's model (`path`, for messages)."""
    flags = dict(recorded_model(checkpoint, path))
    return flags.pop("model"), Architecture(**flags)


def load_recorded(
    checkpoint: dict,
    path: Path,
    intrinsics: SceneIntrinsics,
    device: torch.device,
) -> tuple[nn.Module, SceneGeometry]:
    """The model of a loaded checkpoint in evaluation mode, and the geometry with which it sees a
    scene."""
    name, architecture = recorded_network(checkpoint, path)
    geometry = scene_geometry(
        intrinsics,
        architecture.grid_dim,
        architecture.proj_sidelength,
        recorded_option(checkpoint, "near_plane", DEFAULT_NEAR_PLANE),
    )
    return load_model(name, architecture, geometry, device, checkpoint, path), geometry


def load_model(
    name: str,
    architecture: Architecture,
    geometry: SceneGeometry,
    device: torch.device,
    checkpoint: dict | None,
    path: Path | None,
) -> nn.Module:
    """The model `--model NAME` in evaluation mode, with the weights of a loaded checkpoint (`path`,
    for messages)."""
    model = build_model(name, architecture, geometry)
    if checkpoint:
        load_weights(model, tested_weights(checkpoint), path, describe(architecture))
    return channels_last_(model.to(device).eval())


def make_fast_(
    model: nn.Module, device: torch.device, compiled: bool = False, kernels: str = "auto"
) -> None:
    """Compiles or accelerates a model for rendering, for good: its weights may no longer be those
    that were loaded."""
    if uses_cpu_kernels(kernels, device, compiled):
        accelerate_(model)
        prepare_for_frames_(model)
    if compiled:
        model.compile()
        if isinstance(model, DeepVoxels):
            model.render = torch.compile(model.render)


def view_renderer(
    model: nn.Module, training_views: Scene | None, device: torch.device
) -> Callable[..., Rendering]:
    """Returns `render(cam2world, nearest)`, which renders poses (v, 4, 4) on the device.

    DeepVoxels renders its volume, which is inpainted here, once. A baseline renders from the
    training views with the indices `nearest` (v); DeepVoxels ignores them. Call both under
    `torch.inference_mode` and `autocast`.
    """
    if isinstance(model, DeepVoxels):
        inpainted = model.inpaint(model.deepvoxels)
        return lambda cam2world, nearest=None: model.render(inpainted, cam2world)
    if training_views is None:
        return lambda cam2world, nearest=None: model(None, None, cam2world)[0]
    sources = training_views.on(device)
    return lambda cam2world, nearest: model(
        sources.pixels(nearest), sources.poses(nearest), cam2world
    )[0]


def render_path(
    model: nn.Module,
    cam2world: Float[np.ndarray, "path 4 4"],
    neighbors: Neighbors | None,
    precision: str,
    device: torch.device,
    ranks: Ranks = ALONE,
) -> Iterator[Frame]:
    """Yields a frame for every pose, in order; of several ranks, each renders every `count`th
    batch.

    Views are rendered in batches, the same ones for any number of ranks, since a batch's size may
    decide a pixel's last bit. A batch is yielded after the next one is launched, so that a GPU
    never waits.
    """
    poses = torch.from_numpy(cam2world).to(device, torch.float32)
    launched = None
    with torch.inference_mode(), autocast(precision, device):
        render = view_renderer(model, neighbors and neighbors.views, device)
        for start in range(ranks.rank * VIEWS_AT_ONCE, len(poses), ranks.count * VIEWS_AT_ONCE):
            views = range(start, min(start + VIEWS_AT_ONCE, len(poses)))
            batch = slice(views.start, views.stop)
            rendering = render(poses[batch], neighbors and neighbors.nearest[batch])
            rendered = views, *copies_on_host(rendering)
            if launched:
                yield from frames_on_host(*launched)
            launched = rendered
        if launched:
            yield from frames_on_host(*launched)


def copies_on_host(
    rendering: Rendering,
) -> tuple[Callable[[], np.ndarray], Callable[[], np.ndarray] | None]:
    """Starts to copy what frames hold: images in [0, 1], (v, s, s, 3), and any depth, (v, m, m)."""
    images = to_host((rendering.images.float() + 0.5).clamp(0, 1).permute(0, 2, 3, 1))
    return images, None if rendering.depth is None else to_host(rendering.depth[:, 0].float())


def to_host(values: Tensor) -> Callable[[], np.ndarray]:
    """Starts a copy to the host. The function returned waits for that copy alone, not for work
    launched later."""
    copy = values.to("cpu", non_blocking=True)
    event = torch.cuda.current_stream(values.device).record_event() if values.is_cuda else None

    def wait() -> np.ndarray:
        if event:
            event.synchronize()
        return copy.numpy()

    return wait


def frames_on_host(
    views: range,
    images: Callable[[], np.ndarray],
    depths: Callable[[], np.ndarray] | None,
) -> Iterator[Frame]:
    """The frames of a batch, once they are on the host."""
    return map(Frame, views, images(), [None] * len(views) if depths is None else depths())
