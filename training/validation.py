"""How good the model is on held-out views while it trains (`--validate_every`). Training itself
stays the same, bit for bit: it is measured as in a test, in evaluation mode, without gradients, and
nothing random is drawn.
"""

import os
from dataclasses import astuple, dataclass
from pathlib import Path

import numpy as np
import torch

from baselines import NEEDS_SOURCE_VIEW
from data_util import list_poses
from dataio import Scene, SceneOptions, find_split, load_scene, scene_geometry
from deep_voxels import Architecture
from evaluation.metrics import FrameMetrics, mean_metrics
from evaluation.render import Neighbors, nearest_neighbors, render_path
from machine.runtime import Machine
from training.networks import Networks
from util import InputError

MAX_VIEWS = 8


@dataclass(frozen=True)
class Validation:
    """The held-out views, and, for a baseline that renders from training views, the nearest of
    these."""

    views: Scene
    neighbors: Neighbors | None

    def measure(self, networks: Networks, machine: Machine) -> dict[str, float]:
        """PSNR (dB) and SSIM, each averaged over the held-out views, with the weights that a test
        would use: their moving average if there is one."""
        model = networks.average.module if networks.average else networks.model
        device = torch.device(machine.device)
        was_training = model.training
        model.eval()
        try:
            poses = self.views.poses(device)
            frames = render_path(model, poses, self.neighbors, machine.precision)
            metrics = mean_metrics([FrameMetrics(self.views)(frame)[0] for frame in frames])
            return {name: metrics[name] for name in ("psnr", "ssim")}
        finally:
            model.train(was_training)


def load_validation(
    training_views: Scene,
    model: str,
    architecture: Architecture,
    options: SceneOptions,
    every: int,
) -> Validation:
    """Reads at most `MAX_VIEWS` held-out views, evenly spread. Raises `InputError` if there are
    none, or if their cameras or their grid differ from those of training, with which the model
    renders. every: `--validate_every`, for the message."""
    root = held_out_folder(training_views.root)
    every_nth = f"skip_{(len(list_poses(root / 'pose')) - 1) // MAX_VIEWS}"
    views = load_scene(root, architecture.img_sidelength, every_nth, options.background)
    seen, trained = (
        scene_geometry(
            scene.intrinsics,
            architecture.grid_dim,
            architecture.proj_sidelength,
            options.near_plane,
        )
        for scene in (views, training_views)
    )
    pairs = zip(astuple(trained), astuple(seen), strict=True)
    if not all(np.allclose(a, b, rtol=1e-5) for a, b in pairs):
        raise InputError(
            f"--validate_every {every}: {root}/intrinsics.txt differs from "
            f"{training_views.root}/intrinsics.txt, with which training renders"
        )
    neighbors = None
    if model in NEEDS_SOURCE_VIEW:
        neighbors = nearest_neighbors(training_views, views.cam2world)
    return Validation(views, neighbors)


def held_out_folder(training_root: Path) -> Path:
    """The folder with held-out images of the scene that is trained on: its validation views, else
    its test views."""
    root = Path(os.path.abspath(training_root))
    for split in ("validation", "test"):
        folder = find_split(root, split)
        if folder and folder != root and (folder / "rgb").is_dir():
            return folder
    raise InputError(
        f"{training_root}: no held-out images to measure with belong to it; they would be in "
        f"{root.parent / 'test' / 'rgb'}"
    )
