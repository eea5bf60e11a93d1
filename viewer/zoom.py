"""The field of view of one browser: its scene and its model as that lens shows them.

The model renders with any focal length, as it does in a test folder with other intrinsics; far from
the training cameras' it gets worse.
"""

from copy import copy
from dataclasses import replace

import numpy as np

from data_util import BORDER
from deep_voxels import DeepVoxels
from evaluation.trained import TrainedModel
from viewer.camera import Lens
from viewer.scene import SceneInView
from viewer.shared import Shared

NARROWEST = 0.4  # times the training cameras' field of view
WIDEST = 2.0
MAX_DEGREES = 120.0


def field_of_view(lens: Lens) -> float:
    """Of a picture without its border, in degrees from side to side."""
    return float(np.degrees(2 * np.arctan((lens.sidelength / 2 - BORDER) / lens.focal)))


class Zoom:
    """The field of view that one browser has chosen; at first that of the training cameras. Any
    other is a whole number of tenths of a degree, as the slider shows it and a saved path keeps
    it."""

    def __init__(self, shared: Shared):
        self._shared = shared
        self.training = field_of_view(shared.scene.lens)
        self.degrees = self.training
        self._seen: tuple[TrainedModel, float, SceneInView, TrainedModel] | None = None

    @property
    def can_change(self) -> bool:
        """Baselines know no intrinsics."""
        return isinstance(self._shared.model.network, DeepVoxels)

    @property
    def limits(self) -> tuple[float, float]:
        """The least and the most degrees."""
        widest = max(min(WIDEST * self.training, MAX_DEGREES), self.training)
        return round(NARROWEST * self.training, 1), round(widest, 1)

    def choose(self, degrees: float) -> None:
        """Takes the nearest field of view within the limits."""
        degrees = float(np.clip(round(degrees, 1), *self.limits))
        self.degrees = self.training if degrees == round(self.training, 1) else degrees

    def seen(self) -> tuple[SceneInView, TrainedModel]:
        """The scene and the model that is shown now, with this field of view."""
        scene = self._shared.scene
        model = self._shared.model
        degrees = self.degrees
        if degrees == self.training:
            return scene, model
        seen = self._seen
        if seen is None or seen[0] is not model or seen[1] != degrees:
            half = np.radians([self.training, degrees]) / 2
            times = float(np.tan(half[0]) / np.tan(half[1]))
            seen = self._seen = model, degrees, *through_lens(scene, model, times)
        return seen[2:]


def through_lens(
    scene: SceneInView, model: TrainedModel, times: float
) -> tuple[SceneInView, TrainedModel]:
    """The same scene and model, seen with so many times the focal length."""
    intrinsics = replace(scene.intrinsics, focal=times * scene.intrinsics.focal)
    lens = scene.lens._replace(focal=times * scene.lens.focal)
    views = replace(scene.views, intrinsics=intrinsics)
    network = copy(model.network)
    network.geometry = replace(model.geometry, focal=times * model.geometry.focal)
    seen = replace(model, network=network, geometry=network.geometry, intrinsics=intrinsics)
    return replace(scene, views=views, lens=lens), seen
