"""What all browsers share: the scene, the model that is shown, the rendering thread."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8

from evaluation.fusion import Cloud
from evaluation.learned_surface import MAX_VIEWS, fuse_frames
from evaluation.picture_grid import evenly_spread, to_uint8
from evaluation.trained import TrainedModel
from util import one_line
from viewer.camera import edge_color
from viewer.features import FeatureCloud, feature_cloud
from viewer.renderer import Renderer
from viewer.scene import SceneInView
from viewer.training_tab import Curves


@dataclass
class Shared:
    """model: what is shown now; a newer checkpoint replaces it. points: the scene's sparse points
    and their colours. curves: those of the run, if it has any."""

    scene: SceneInView
    model: TrainedModel
    renderer: Renderer
    logging_root: Path
    points: tuple[Float[np.ndarray, "points 3"], UInt8[np.ndarray, "points 3"]] | None
    curves: Curves | None
    _background: tuple[TrainedModel, UInt8[np.ndarray, "3"]] | None = None
    _features: tuple[TrainedModel, FeatureCloud] | None = None
    _surface: tuple[TrainedModel, Cloud] | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _surface_lock: threading.Lock = field(default_factory=threading.Lock)

    def show(self, model: TrainedModel) -> None:
        """Makes another model the one that is shown."""
        self.model = model
        self._features = None
        self._surface = None

    def title(self) -> str:
        """What is shown, in a line."""
        step = "" if self.model.step is None else f", step {self.model.step:,}"
        root = self.scene.root.resolve()
        return f"**{one_line((root.parent if root.name == 'train' else root).name)}**{step}"

    def background(self) -> UInt8[np.ndarray, "3"]:
        """The colour to show around the model's pictures: that of the first view's edges. For the
        rendering thread."""
        model = self.model
        if self._background is None or self._background[0] is not model:
            first = model.render_view(self.scene.views.cam2world[self.scene.first])
            self._background = model, edge_color(to_uint8(first.image))
        return self._background[1]

    def knows_features(self) -> bool:
        """Whether `features` takes no time."""
        return self._features is not None and self._features[0] is self.model

    def features(self) -> FeatureCloud:
        """What the grid of the model has learned, computed once for all browsers."""
        with self._lock:
            model = self.model
            if not self.knows_features():
                self._features = model, feature_cloud(model, self.scene, self.renderer.run)
            return self._features[1]

    def surface(self, model: TrainedModel, progress: Callable[[int, int], None]) -> Cloud:
        """The surface that a model has learned, fused once for all browsers from the views of the
        scene.

        `progress` is called with the steps that are done, and with all.
        """
        with self._surface_lock:
            if self._surface is None or self._surface[0] is not model:
                poses = self.scene.views.cam2world[evenly_spread(len(self.scene.views), MAX_VIEWS)]
                frames = self.renderer.in_turns(model.render_path(poses))
                cloud = fuse_frames(model, poses, frames, progress)
                self._surface = model, cloud
            return self._surface[1]
