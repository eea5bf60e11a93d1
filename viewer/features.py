"""What the grid has learned, as points: voxels of the persistent volume where the learned
visibility is high, coloured by the first three principal components of their features."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from deep_voxels import DeepVoxels
from evaluation.picture_grid import evenly_spread, to_uint8
from evaluation.render import VIEWS_AT_ONCE
from evaluation.trained import TrainedModel
from projection import SceneGeometry, frustum_coordinates, frustum_mask, voxel_centers
from viewer.scene import SceneInView

VISIBILITY_VIEWS = 48  # training views sampled for visibility
SHOWN_PERCENTILES = (2, 98)  # of a principal component, that become black and full colour


class FeatureCloud(NamedTuple):
    """Voxels: their centers, colours, and the highest visibility that any training view gives
    them."""

    points: Float[np.ndarray, "n 3"]
    colors: UInt8[np.ndarray, "n 3"]
    visibility: Float[np.ndarray, "n"]

    def above(self, least: float) -> "FeatureCloud":
        """The voxels whose visibility is at least that share of the highest, which is low while a
        run is young."""
        shown = self.visibility >= least * self.visibility.max(initial=0)
        return FeatureCloud(*(values[shown] for values in self))


def feature_cloud(
    model: TrainedModel, scene: SceneInView, run: Callable[[Callable], object]
) -> FeatureCloud:
    """The voxels that training views see.

    `run` calls a function in the rendering thread: a few views at a time, so that browsers need not
    wait long.
    """
    network = model.network
    visibility = []
    poses = model.poses(scene.views.cam2world[evenly_spread(len(scene.views), VISIBILITY_VIEWS)])
    for batch in poses.split(VIEWS_AT_ONCE):
        visibility.append(run(lambda batch=batch: voxel_visibility(network, batch)))
    visibility = torch.stack(visibility).amax(dim=0)
    shown = visibility > 0
    features = network.deepvoxels[0][:, shown].T.double().cpu().numpy()
    points = voxel_centers(network.geometry, like=poses)[shown].double().cpu().numpy()
    weights = visibility[shown].double().cpu().numpy()
    colors = np.zeros((0, 3))
    if len(features):
        colors = PrincipalColors(features, weights)(features)
    return FeatureCloud(points, to_uint8(colors), weights)


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


class PrincipalColors:
    """Feature vectors as RGB in [0, 1]: the first three principal components of the weighted
    vectors that it was made from.

    A component's sign is that of its largest loading, so that colours stay alike from one
    checkpoint to the next. `percentiles` of a component become black and full colour; those of the
    vectors with at least the median weight.
    """

    def __init__(
        self,
        vectors: Float[np.ndarray, "n f"],
        weights: Float[np.ndarray, "n"] | None = None,
        percentiles: tuple[int, int] = SHOWN_PERCENTILES,
    ):
        if weights is None:
            weights = np.ones(len(vectors))
        self.mean = np.average(vectors, axis=0, weights=weights)
        centered = vectors - self.mean
        _, axes = np.linalg.eigh((centered * weights[:, None]).T @ centered)
        axes = axes[:, ::-1][:, :3]
        largest = np.take_along_axis(axes, np.abs(axes).argmax(axis=0)[None], axis=0)
        self.axes = axes * np.sign(largest)
        seen = centered[weights >= np.median(weights)]
        self.low, self.high = np.percentile(seen @ self.axes, percentiles, axis=0)

    def __call__(self, features: Float[np.ndarray, "*n f"]) -> Float[np.ndarray, "*n 3"]:
        components = (features - self.mean) @ self.axes
        shares = (components - self.low) / np.maximum(self.high - self.low, 1e-12)
        colors = np.zeros((*features.shape[:-1], 3))
        colors[..., : shares.shape[-1]] = np.clip(shares, 0, 1)  # fewer if there are fewer features
        return colors
