"""Testing: render a camera path from a checkpoint, and measure it where the true images are known.

python run_deepvoxels.py --train_test test --data_root SCENE/test --logging_root LOGS --checkpoint
CHECKPOINT
"""

import sys
from argparse import Namespace
from pathlib import Path

import numpy as np
import torch

from baselines import FROM_SOURCE
from baselines.width import count_parameters
from data_util import BORDER
from dataio import Scene, find_split, load_scene, scene_geometry
from deep_voxels import architecture_of
from evaluation.metrics import (
    SSIM,
    FrameMetrics,
    load_object_masks,
    load_true_depth,
    mean_metrics,
    measure_depth,
)
from evaluation.output import write_comparison, write_frames
from evaluation.perceptual import load_lpips
from evaluation.render import load_model, make_fast_, nearest_neighbors, render_path
from geometry.coverage import frustum_meets_grid
from machine.ranks import ALONE, Ranks
from machine.runtime import describe_machine, set_arithmetic
from util import InputError, make_run_folder, write_json


def test(opt: Namespace, checkpoint: dict | None, ranks: Ranks = ALONE) -> int:
    """Renders every pose of `--data_root` and returns the exit code, 0. Ranks share the frames."""
    device = torch.device(opt.device)
    with ranks.together():
        set_arithmetic(opt.precision, device, opt.deterministic)
        root = Path(opt.data_root)
        architecture = architecture_of(opt)
        measured = (root / "rgb").is_dir()
        scene = load_scene(
            root, opt.img_sidelength, background=opt.background, with_images=measured
        )
        geometry = scene_geometry(
            scene.intrinsics, opt.grid_dim, opt.proj_sidelength, opt.near_plane
        )
        with np.errstate(all="ignore"):  # overflow ends in an error message; numpy need not warn
            meets = frustum_meets_grid(
                scene.cam2world,
                scene.intrinsics.pinhole(opt.img_sidelength),
                scene.intrinsics.grid(opt.near_plane),
            )
        for view in np.flatnonzero(~meets):
            raise InputError(
                f"{root}/pose/{scene.names[view]}.txt: sees nothing of the grid; check origin, "
                "scale and "
                "near plane in intrinsics.txt, and that the poses are camera-to-world"
            )
        training_views = (
            load_training_views(opt, root) if measured or opt.model in FROM_SOURCE else None
        )
        if training_views is None and opt.model in FROM_SOURCE:
            raise InputError(
                f"--train_root is required to test --model {opt.model}, which renders from "
                "training views"
            )
        neighbors = training_views and nearest_neighbors(training_views, scene.cam2world)
        true_depth = (
            load_true_depth(root / "depth", len(scene), opt.proj_sidelength) if measured else None
        )
        if opt.lpips and not measured:
            raise InputError(f"--lpips: {root} has no true images (rgb) to compare with")
        measure = (
            FrameMetrics(
                scene,
                neighbors,
                load_object_masks(scene, opt.background),
                load_lpips() if opt.lpips else None,
            )
            if measured
            else None
        )
        model = load_model(
            opt.model,
            architecture,
            geometry,
            device,
            checkpoint,
            opt.checkpoint and Path(opt.checkpoint),
        )
        parameters = count_parameters(model)
        make_fast_(model, device, opt.compile, opt.kernels)
    if opt.dry_run:
        print(f"{root}: {len(scene)} poses, {'with' if measured else 'without'} true images")
        return 0

    folder = ranks.from_first(lambda: make_test_folder(opt, device))
    with ranks.together():
        if not folder.is_dir():
            raise InputError(
                f"--logging_root {opt.logging_root}: is not shared by the machines of this run"
            )
    farthest = geometry.near_plane + 2 * geometry.grid_dim * geometry.voxel_size
    metrics, depth = write_frames(
        folder,
        render_path(model, scene.cam2world, neighbors, opt.precision, device, ranks),
        len(scene),
        (geometry.near_plane, farthest),
        measure,
        ranks,
    )
    if not ranks.first:
        return 0
    if measured:
        frames, nearest = zip(*metrics, strict=True)
        setbacks = checkpoint.get("setbacks") if checkpoint else 0
        content = {
            **mean_metrics(frames),
            "nearest_neighbor": neighbors and mean_metrics(nearest),
            "depth": None
            if true_depth is None or depth is None
            else measure_depth(depth, true_depth, geometry.voxel_size),
            "model": opt.model,
            "parameters": parameters,
            "setbacks": setbacks if isinstance(setbacks, int) else 0,
            "protocol": protocol(opt),
            "frames": frames,
        }
        print_metrics(content)  # first: nothing is lost if the disk is full
        write_comparison(folder, scene)
        write_json(folder / "metrics.json", content)  # last: it says that the test is complete
    for what, name in [
        ("video", "video.mp4"),
        ("picture", "comparison.png"),
        ("metrics", "metrics.json"),
    ]:
        if (folder / name).is_file():
            print(f"{what}: {folder / name}")
    return 0


def make_test_folder(opt: Namespace, device: torch.device) -> Path:
    """A new folder for a test's results, with its options."""
    (folder,) = make_run_folder(
        Path(opt.logging_root),
        "test_traj",
        name=opt.experiment_name or "_".join(Path(opt.checkpoint or opt.model).parts[-2:]),
    )
    write_json(folder / "options.json", {"options": vars(opt), "machine": describe_machine(device)})
    return folder


def load_training_views(opt: Namespace, test_root: Path) -> Scene | None:
    """The training views that frames are compared with and baselines render from: those of
    `--train_root`, or of the same scene's training folder, that `--sampling_pattern` keeps."""
    root = Path(opt.train_root) if opt.train_root else find_split(test_root, "train")
    if root is None:
        print(
            f"warning: {test_root}: no training folder belongs to it and --train_root is not "
            "given; nearest "
            "neighbours are not measured",
            file=sys.stderr,
        )
        return None
    return load_scene(root, opt.img_sidelength, opt.sampling_pattern, opt.background)


def protocol(opt: Namespace) -> dict:
    """How the metrics were computed."""
    return {
        "border": BORDER,
        "background": opt.background,
        "sidelength": opt.img_sidelength,
        "ssim": {**SSIM, "window": 11},
        "psnr": "per frame on [0, 1] images, then averaged",
        "object": "over the pixels that are opaque in the true images, where any are transparent",
        "depth": "along z, over map pixels that lie wholly on the object",
    }


def print_metrics(metrics: dict) -> None:
    neighbor = metrics["nearest_neighbor"]
    depth = metrics["depth"]
    print(_line(metrics) + (f"; nearest neighbour: {_line(neighbor)}" if neighbor else ""))
    if "psnr_object" in metrics:
        print(
            f"over the object: {_line(metrics, '_object')}"
            + (f"; nearest neighbour: {_line(neighbor, '_object')}" if neighbor else "")
        )
    if depth:
        print(
            f"depth: mean error {depth['mean_absolute_error']:.4f} world units, "
            f"{100 * depth['within_one_voxel']:.1f} % of the object within one voxel"
        )


def _line(metrics: dict, where: str = "") -> str:
    perceptual = f", LPIPS {metrics['lpips']:.3f}" if not where and "lpips" in metrics else ""
    return f"PSNR {metrics['psnr' + where]:.2f} dB, SSIM {metrics['ssim' + where]:.3f}{perceptual}"
