"""How good the model is on held-out views while it trains (`--validate_every`). Training itself
stays the same, bit for bit: it is measured as in a test, in evaluation mode, without gradients, and
nothing random is drawn.
"""

import os
from argparse import Namespace
from dataclasses import astuple, dataclass
from pathlib import Path

import numpy as np
import torch

from baselines import FROM_SOURCE
from data_util import list_poses
from dataio import Scene, find_split, load_scene, scene_geometry
from evaluation.metrics import FrameMetrics, mean_metrics
from evaluation.render import Neighbors, nearest_neighbors, render_path
from projection import SceneGeometry
from training.networks import Networks
from util import InputError

MAX_VIEWS = 8


@dataclass(frozen=True)
class Validation:
    """The held-out views, and the training views next to them for a baseline that renders from
    those."""

    views: Scene
    neighbors: Neighbors | None
    precision: str
    device: torch.device

    def measure(self, networks: Networks) -> dict[str, float]:
        """PSNR (dB) and SSIM, each averaged over the held-out views, with the weights that a test
        would take."""
        model = networks.average.module if networks.average else networks.model
        was_training = model.training
        model.eval()
        try:
            frames = render_path(
                model, self.views.cam2world, self.neighbors, self.precision, self.device
            )
            metrics = mean_metrics([FrameMetrics(self.views)(frame)[0] for frame in frames])
            return {name: metrics[name] for name in ("psnr", "ssim")}
        finally:
            model.train(was_training)


def load_validation(opt: Namespace, training_views: Scene, geometry: SceneGeometry) -> Validation:
    """Reads at most `MAX_VIEWS` held-out views, evenly spread. Raises `InputError` if there are
    none, or if their cameras or their grid differ from those of training, with which the model
    renders."""
    root = held_out_folder(Path(opt.data_root))
    every_nth = f"skip_{(len(list_poses(root / 'pose')) - 1) // MAX_VIEWS}"
    views = load_scene(root, opt.img_sidelength, every_nth, opt.background)
    expected = scene_geometry(views.intrinsics, opt.grid_dim, opt.proj_sidelength, opt.near_plane)
    if not all(
        np.allclose(a, b, rtol=1e-5)
        for a, b in zip(astuple(geometry), astuple(expected), strict=True)
    ):
        raise InputError(
            f"--validate_every {opt.validate_every}: {root}/intrinsics.txt differs from "
            f"{opt.data_root}/intrinsics.txt, with which training renders"
        )
    neighbors = (
        nearest_neighbors(training_views, views.cam2world) if opt.model in FROM_SOURCE else None
    )
    return Validation(views, neighbors, opt.precision, torch.device(opt.device))


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
