"""What the grid has learned, as points: voxels of the persistent volume where the learned
visibility is high, coloured by the first three principal components of their features."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from deep_voxels import DeepVoxels
from evaluation.pictures import spread
from evaluation.render import VIEWS_AT_ONCE
from projection import SceneGeometry, frustum_coordinates, frustum_mask, voxel_centers
from viewer.model import Model, SceneInView

VIEWS = 48  # training views, spread over all, whose visibility counts
SHOWN_PERCENTILES = (2, 98)  # of a principal component, that become black and full colour


class FeatureCloud(NamedTuple):
    """Voxels: their centers in the world, colours, and the highest visibility that any training
    view gives them."""

    points: Float[np.ndarray, "n 3"]
    colors: UInt8[np.ndarray, "n 3"]
    visibility: Float[np.ndarray, "n"]

    def above(self, least: float) -> "FeatureCloud":
        """The voxels whose visibility is at least that share of the highest, which is low while a
        run is young."""
        shown = self.visibility >= least * self.visibility.max(initial=0)
        return FeatureCloud(*(values[shown] for values in self))


def feature_cloud(
    model: Model, scene: SceneInView, run: Callable[[Callable], object]
) -> FeatureCloud:
    """The voxels that training views see.

    `run` calls a function in the rendering thread: a few views at a time, so that browsers need not
    wait long.
    """
    network = model.network
    visibility = []
    poses = torch.from_numpy(scene.views.cam2world[spread(len(scene.views), VIEWS)]).to(
        model.device, torch.float32
    )
    for batch in poses.split(VIEWS_AT_ONCE):
        visibility.append(run(lambda batch=batch: voxel_visibility(network, batch)))
    visibility = torch.stack(visibility).amax(dim=0)
    shown = visibility > 0
    features = network.deepvoxels[0][:, shown].T.double().cpu().numpy()
    points = voxel_centers(network.geometry, like=poses)[shown].double().cpu().numpy()
    weights = visibility[shown].double().cpu().numpy()
    return FeatureCloud(points, component_colors(features, weights), weights)


def voxel_visibility(
    network: DeepVoxels, cam2world: Float[Tensor, "v 4 4"]
) -> Float[Tensor, "d d d"]:
    """The highest soft visibility, in [0, 1], that the occlusion net gives each voxel of the grid
    in these views.

    The weight of a frustum's voxel (paper, 3.2 'Occlusion Module') counts for the grid's voxel
    nearest to it.
    """
    with torch.inference_mode():
        canonical = network.canonical_view_volumes(network.inpaint(network.deepvoxels), cam2world)
        weights = visibility_weights(network, canonical)
        return scatter(weights, frustum_coordinates(cam2world, network.geometry), network.geometry)


def visibility_weights(
    network: DeepVoxels,
    canonical: Float[Tensor, "v f depth m m"],
) -> Float[Tensor, "v depth m m"]:
    """The output of the occlusion net's last layer, which the net itself only uses."""
    seen = []
    hook = network.occlusion_net.softmax_net.register_forward_hook(
        lambda _, __, output: seen.append(output)
    )
    try:
        network.occlusion_net(canonical)
    finally:
        hook.remove()
    return seen[0][:, 0]


def scatter(
    weights: Float[Tensor, "v depth m m"],
    coordinates: Float[Tensor, "v depth m m 3"],
    geometry: SceneGeometry,
) -> Float[Tensor, "d d d"]:
    """The highest weight of the samples nearest to each voxel, indexed [z, y, x]; 0 where there is
    none."""
    dim = geometry.grid_dim
    inside = frustum_mask(coordinates, dim)
    x, y, z = coordinates[inside].round().clamp(max=dim - 1).long().unbind(dim=-1)
    highest = torch.zeros(dim**3, device=weights.device)
    highest.scatter_reduce_(0, (z * dim + y) * dim + x, weights[inside].float(), reduce="amax")
    return highest.view(dim, dim, dim)


def component_colors(
    features: Float[np.ndarray, "n f"], weights: Float[np.ndarray, "n"]
) -> UInt8[np.ndarray, "n 3"]:
    """The first three principal components of weighted features as RGB.

    A component's sign is that of its largest loading, so that colours stay alike from one
    checkpoint to the next.
    """
    if len(features) == 0:
        return np.zeros((0, 3), np.uint8)
    centered = features - np.average(features, axis=0, weights=weights)
    _, axes = np.linalg.eigh((centered * weights[:, None]).T @ centered)
    axes = axes[:, ::-1][:, :3]
    axes = axes * np.sign(np.take_along_axis(axes, np.abs(axes).argmax(axis=0)[None], axis=0))
    components = np.zeros((len(features), 3))
    components[:, : axes.shape[1]] = centered @ axes  # fewer if there are fewer features
    seen = weights >= np.median(weights)
    low, high = np.percentile(components[seen], SHOWN_PERCENTILES, axis=0)
    return np.round(255 * np.clip((components - low) / np.maximum(high - low, 1e-12), 0, 1)).astype(
        np.uint8
    )
