"""The surface that a model has learned, in world coordinates, fused from its rendered depth."""

import math
from collections.abc import Callable, Iterable
from itertools import count

import numpy as np
import torch
from jaxtyping import Float

from data_util import BORDER
from evaluation.fusion import ROUNDS, Cloud, DepthMaps, fuse
from evaluation.mesh import PASSES, Mesh, fuse_mesh
from evaluation.metrics import mean_around_corners
from evaluation.picture_grid import evenly_spread
from evaluation.render import Frame
from evaluation.trained import TrainedModel

MAX_VIEWS = 100  # more views add no accuracy


def fuse_depth(
    model: TrainedModel,
    cam2world: Float[np.ndarray, "views 4 4"],
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Cloud:
    """The surface that a model has learned, as at most `MAX_VIEWS` of the poses see it; empty if
    they agree on none.

    The model must learn depth (`learns_depth`). `progress` is called with the steps that are done,
    and with all.
    """
    cam2world = cam2world[evenly_spread(len(cam2world), MAX_VIEWS)]
    return fuse_frames(model, cam2world, model.render_path(cam2world), progress)


def fuse_frames(
    model: TrainedModel,
    cam2world: Float[np.ndarray, "views 4 4"],
    frames: Iterable[Frame],
    progress: Callable[[int, int], None],
) -> Cloud:
    """Like `fuse_depth`, from frames already rendered, one for each pose."""
    step = _counter(progress, (1 + ROUNDS) * len(cam2world))
    cloud = fuse(depth_maps(model, cam2world, frames, step), step)
    return cloud._replace(points=cloud.points + model.intrinsics.grid_origin)


def fuse_mesh_of(
    model: TrainedModel,
    cam2world: Float[np.ndarray, "views 4 4"],
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Mesh:
    """Like `fuse_depth`, but a mesh: without faces if the views agree on no surface."""
    cam2world = cam2world[evenly_spread(len(cam2world), MAX_VIEWS)]
    step = _counter(progress, (1 + ROUNDS + PASSES) * len(cam2world))
    mesh = fuse_mesh(depth_maps(model, cam2world, model.render_path(cam2world), step), step)
    return mesh._replace(vertices=mesh.vertices + model.intrinsics.grid_origin)


def _counter(progress: Callable[[int, int], None], total: int) -> Callable[[], None]:
    """Returns a function that says, each time it is called, that one step more of all is done."""
    steps = count(1)
    return lambda: progress(next(steps), total)


def depth_maps(
    model: TrainedModel,
    cam2world: Float[np.ndarray, "views 4 4"],
    frames: Iterable[Frame],
    step: Callable[[], None],
) -> DepthMaps:
    """The depth and colours of frames, one for each pose. `step` is called after each."""
    geometry = model.geometry
    sidelength = geometry.map_sidelength
    depth = []
    colors = []
    for frame in frames:
        depth.append(frame.depth)
        colors.append(map_colors(frame.image, sidelength))
        step()
    border = math.ceil(BORDER * sidelength / model.architecture.img_sidelength)
    return DepthMaps(
        torch.from_numpy(np.stack(depth)),
        torch.from_numpy(np.stack(colors)),
        model.poses(cam2world).cpu(),
        geometry,
        margin=border,  # training never sees it
    )


def map_colors(
    image: Float[np.ndarray, "h h 3"], map_sidelength: int
) -> Float[np.ndarray, "m m 3"]:
    """A frame's image, which lacks its border, averaged around every pixel of the feature map."""
    padded = np.pad(image, [(BORDER, BORDER), (BORDER, BORDER), (0, 0)], mode="edge")
    return mean_around_corners(padded, map_sidelength, outside="edge")
