"""Renders views from a trained model: any poses (`view_renderer`), or a whole camera path, frame by
frame."""

from collections.abc import Callable, Iterator
from copy import copy
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from baselines import build_model
from checkpoints import load_weights, tested_weights
from cpu_kernels import accelerate_, prepare_for_frames_
from data_util import BORDER, crop_border, nearest_views
from dataio import Scene
from deep_voxels import Architecture, DeepVoxels, Rendering, describe
from machine.ranks import ALONE, Ranks
from machine.runtime import autocast, channels_last_, uses_cpu_kernels
from projection import SceneGeometry

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
        return crop_border(self.whole, channels_last=True)


class Neighbors(NamedTuple):
    """The training views, and the index of the one nearest in viewing direction to each view of a
    path."""

    views: Scene
    nearest: Int[np.ndarray, "path"]


def nearest_neighbors(training_views: Scene, cam2world: Float[np.ndarray, "path 4 4"]) -> Neighbors:
    """The top-1 neighbour of each pose, which baselines render from (paper, section 4)."""
    return Neighbors(training_views, nearest_views(cam2world, training_views.cam2world, 1)[:, 0])


def load_model(
    name: str,
    architecture: Architecture,
    geometry: SceneGeometry,
    checkpoint: dict | None,
    path: Path | None,
) -> nn.Module:
    """The model `--model NAME` on the CPU and in evaluation mode, with the weights of a loaded
    checkpoint, if there is one (`path`, for messages)."""
    model = build_model(name, architecture, geometry)
    if checkpoint:
        load_weights(model, tested_weights(checkpoint), path, describe(architecture))
    return channels_last_(model.eval())


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


def cycle_spun(model: DeepVoxels, times: int) -> DeepVoxels:
    """The same network, whose `render` averages times x times renderings of each view (cycle
    spinning, Coifman and Donoho 1995).

    What a pixel shows depends a little on where in a pixel of the feature map it lies. So the view
    is rendered with the principal point moved by whole image pixels, evenly over a map pixel along
    both axes, and each image is moved back: the same view from the same point. An image's border,
    which training never sees, stays out of the others' insides. Depth is that of the first
    rendering.
    """
    enlargement = model.architecture.enlargement
    offsets = range(0, enlargement, enlargement // times)
    moved = {}
    for right, down in list(product(offsets, offsets))[1:]:  # without (0, 0)
        moved[right, down] = with_moved_principal_point(model, right, down)

    def render(inpainted: Tensor, cam2world: Tensor) -> Rendering:
        unmoved = model.render(inpainted, cam2world)
        total = unmoved.images.float()
        count = torch.ones_like(total[:1, :1])
        inside = total.shape[-1] - BORDER
        for (right, down), camera in moved.items():
            images = camera.render(inpainted, cam2world).images
            shown = images[..., down:inside, right:inside]
            total[..., : inside - down, : inside - right] += shown
            count[..., : inside - down, : inside - right] += 1
        return Rendering(total / count, unmoved.depth)

    spun = copy(model)
    spun.render = render
    return spun


def with_moved_principal_point(model: DeepVoxels, right: int, down: int) -> DeepVoxels:
    """The same network, whose images show everything so many pixels further right and down."""
    enlargement = model.architecture.enlargement
    moved = copy(model)
    moved.geometry = replace(
        model.geometry,
        cx=model.geometry.cx + right / enlargement,
        cy=model.geometry.cy + down / enlargement,
    )
    return moved


def render_path(
    model: nn.Module,
    cam2world: Float[Tensor, "path 4 4"],
    neighbors: Neighbors | None,
    precision: str,
    ranks: Ranks = ALONE,
) -> Iterator[Frame]:
    """Yields a frame for every pose, in order, rendered on the device of the poses. Of several
    ranks, each renders every `count`th batch.

    Views are rendered in batches, the same ones for any number of ranks, since a batch's size may
    decide a pixel's last bit. A batch is yielded after the next one is launched, so that a GPU
    never waits.
    """
    device = cam2world.device
    launched = None
    with torch.inference_mode(), autocast(precision, device):
        render = view_renderer(model, neighbors and neighbors.views, device)
        for start in range(ranks.rank * VIEWS_AT_ONCE, len(cam2world), ranks.count * VIEWS_AT_ONCE):
            views = range(start, min(start + VIEWS_AT_ONCE, len(cam2world)))
            batch = slice(views.start, views.stop)
            rendering = render(cam2world[batch], neighbors and neighbors.nearest[batch])
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
    copy = values.to("cpu", non_blocking=values.is_cuda)
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
