"""What all browsers share: the scene, the model that is shown, the rendering thread."""
import threading
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8

from util import one_line
from viewer.features import FeatureCloud, feature_cloud
from viewer.model import Model, SceneInView
from viewer.renderer import Renderer
from viewer.summaries import Curves


@dataclass
class Shared:
    """model: what is shown now; a newer checkpoint replaces it. points: the scene's sparse points and their colours.
    curves: those of the run, if it has any."""

    scene: SceneInView
    model: Model
    renderer: Renderer
    logging_root: Path
    points: tuple[Float[np.ndarray, "points 3"], UInt8[np.ndarray, "points 3"]] | None
    curves: Curves | None
    _features: tuple[Model, FeatureCloud] | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def show(self, model: Model) -> None:
        """Makes another model the one that is shown."""
        self.model, self._features = model, None

    def title(self) -> str:
        """What is shown, in a line."""
        step = "" if self.model.step is None else f", step {self.model.step:,}"
        root = self.scene.root.resolve()
        return f"**{one_line((root.parent if root.name == 'train' else root).name)}**{step}"

    def features(self) -> FeatureCloud:
        """What the grid of the model has learned, computed once for all browsers."""
        with self._lock:
            model = self.model
            if self._features is None or self._features[0] is not model:
                self._features = model, feature_cloud(model, self.scene, self.renderer.run)
            return self._features[1]
