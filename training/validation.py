"""How good the model is on held-out views while it trains (`--validate_every`). Training itself
stays the same, bit for bit: it is measured as in a test, in evaluation mode, without gradients, and
nothing random is drawn.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from baselines import NEEDS_SOURCE_VIEW
from data_util import list_poses, nearest_views
from dataio import Scene, SceneOptions, find_split, load_scene, scene_geometry
from deep_voxels import Architecture
from evaluation.held_out import HeldOutPsnr, every_nth
from evaluation.metrics import FrameMetrics, mean_metrics
from evaluation.render import Neighbors, nearest_neighbors, render_path
from machine.runtime import Machine
from training.networks import Networks
from util import InputError, usable_cores


class MeasuredViews(NamedTuple):
    """Views to measure, and the training views next to them for a baseline that renders from
    those."""

    views: Scene
    neighbors: Neighbors | None


@dataclass(frozen=True)
class Validation:
    """The held-out views, of the split `split` of the scene, and as many training views."""

    split: str
    held_out: MeasuredViews
    trained: MeasuredViews

    def measure(self, networks: Networks, machine: Machine) -> dict[str, float]:
        """PSNR (dB) and SSIM, each averaged over the held-out views, with the weights that a test
        would use: their moving average if there is one; `train_psnr` and `train_ssim`, the same of
        training views; and `gap`, by how many dB PSNR is higher on those."""
        model = networks.average.module if networks.average else networks.model
        was_training = model.training
        model.eval()
        try:
            held_out = measure(model, self.held_out, machine)
            trained = measure(model, self.trained, machine)
        finally:
            model.train(was_training)
        return {
            **held_out,
            **{f"train_{name}": value for name, value in trained.items()},
            "gap": trained["psnr"] - held_out["psnr"],
        }

    def psnr_of(self, step: int, metrics: dict[str, float]) -> HeldOutPsnr:
        """The PSNR on the held-out views that `measure` returned after a step."""
        return HeldOutPsnr.of(step, metrics["psnr"], self.split, self.held_out.views)


def measure(model: nn.Module, measured: MeasuredViews, machine: Machine) -> dict[str, float]:
    """PSNR (dB) and SSIM of a model in evaluation mode, each averaged over the views.
    Threads compare images while the next ones are rendered."""
    views, neighbors = measured
    poses = views.poses(torch.device(machine.device))
    frames = render_path(model, poses, neighbors, machine.precision)
    with ThreadPoolExecutor(usable_cores()) as pool:
        compared = list(pool.map(FrameMetrics(views), frames))
    metrics = mean_metrics([of_frame for of_frame, _ in compared])
    return {name: metrics[name] for name in ("psnr", "ssim")}


def load_validation(
    training_views: Scene,
    model: str,
    architecture: Architecture,
    options: SceneOptions,
    every: int,
) -> Validation:
    """Reads at most `MAX_MEASURED` held-out views, evenly spread, and chooses at most as many
    training views. Raises `InputError` if there are no held-out ones, or if their cameras or their
    grid differ from those of training, with which the model renders. every: `--validate_every`, for
    the message."""
    split, root = _held_out_split(training_views.root)
    held_out = every_nth(len(list_poses(root / "pose")))
    views = load_scene(
        root, architecture.img_sidelength, f"skip_{held_out.step - 1}", options.background
    )
    seen, trained = (
        scene_geometry(
            scene.intrinsics,
            architecture.grid_dim,
            architecture.proj_sidelength,
            options.near_plane,
        )
        for scene in (views, training_views)
    )
    same_grid = np.allclose(
        views.intrinsics.grid_origin,
        training_views.intrinsics.grid_origin,
        rtol=0,
        atol=1e-5 * training_views.intrinsics.scale,
    )
    pairs = zip(astuple(trained), astuple(seen), strict=True)
    if not same_grid or not all(np.allclose(a, b, rtol=1e-5) for a, b in pairs):
        raise InputError(
            f"--validate_every {every}: {root}/intrinsics.txt differs from "
            f"{training_views.root}/intrinsics.txt, with which training renders"
        )
    chosen = list(every_nth(len(training_views)))
    training_ones = training_views.subset(chosen)
    neighbors = None
    other_neighbors = None
    if model in NEEDS_SOURCE_VIEW:
        neighbors = nearest_neighbors(training_views, views.cam2world)
        nearest = nearest_views(training_ones.cam2world, training_views.cam2world, 2)
        others = [row[row != view][0] for view, row in zip(chosen, nearest, strict=True)]
        other_neighbors = Neighbors(training_views, np.array(others))
    return Validation(
        split, MeasuredViews(views, neighbors), MeasuredViews(training_ones, other_neighbors)
    )


def held_out_folder(training_root: Path) -> Path:
    """The folder with held-out images of the scene that is trained on: its validation views, else
    its test views."""
    return _held_out_split(training_root)[1]


def _held_out_split(training_root: Path) -> tuple[str, Path]:
    root = Path(os.path.abspath(training_root))
    for split in ("validation", "test"):
        folder = find_split(root, split)
        if folder and folder != root and (folder / "rgb").is_dir():
            return split, folder
    raise InputError(
        f"{training_root}: no held-out images to measure with belong to it; they would be in "
        f"{root.parent / 'test' / 'rgb'}"
    )
