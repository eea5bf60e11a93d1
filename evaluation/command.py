"""Testing: renders a camera path from a checkpoint.

    python run_deepvoxels.py --train_test test --data_root SCENE/test --logging_root LOGS
        --checkpoint CHECKPOINT

Measures the frames where the true images are known.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from baselines import NEEDS_SOURCE_VIEW
from baselines.width import count_parameters
from data_util import BORDER
from dataio import Scene, SceneOptions, find_split, load_scene, scene_geometry
from deep_voxels import Architecture
from evaluation.held_out import describe_checkpoint
from evaluation.metrics import (
    SSIM,
    FrameMetrics,
    load_object_masks,
    load_true_depth,
    mean_metrics,
    measure_depth,
)
from evaluation.output import (
    MAX_VIDEO_SIDELENGTH,
    RenderedPath,
    VideoLook,
    frames_per_second,
    write_comparison,
    write_frames,
)
from evaluation.perceptual import NETWORKS, load_lpips
from evaluation.render import (
    Neighbors,
    cycle_spun,
    load_model,
    make_fast_,
    nearest_neighbors,
    render_path,
)
from geometry.coverage import frustum_meets_grid
from machine.cli import number
from machine.installed import is_installed, left_out
from machine.options import Run, option
from machine.ranks import ALONE, Ranks
from machine.runtime import Machine, describe_machine, set_arithmetic
from projection import SceneGeometry
from util import InputError, make_run_folder, one_line, write_json


@dataclass(frozen=True)
class Testing:
    """How a test renders, and what its frames are compared with besides the true images."""

    train_root: Path | None = option(
        None,
        "training views for a test: the baselines' source views and the nearest neighbours "
        "(default: the training folder of data_root's scene: SCENE/train for SCENE/test, "
        "ROOT/train/NAME for ROOT/test/NAME)",
        resume="not inherited",
        metavar="DIR",
    )
    lpips: bool = option(
        False,
        "in a test, measure LPIPS too, by AlexNet's features (weights from torchvision)",
        resume="not inherited",
    )
    lpips_vgg: bool = option(
        False,
        "in a test, measure LPIPS by VGG16's features (weights from torchvision)",
        resume="not inherited",
    )
    cycle_spin: int = option(
        1,
        "in a test, render each view N x N times, with the feature map shifted by N-ths of its "
        "pixel along each axis, and average: better frames in N² times the time",
        resume="not inherited",
        metavar="N",
        type=number(int, 1),
    )
    video_sidelength: int | None = option(
        None,
        "in a test, smoothly enlarge the video's images to N pixels a side, at most "
        f"{MAX_VIDEO_SIDELENGTH} (default: the frames' size)",
        resume="not inherited",
        metavar="N",
        type=int,
    )
    video_depth: bool = option(
        False,
        "in a test, show depth beside the image in the video",
        resume="not inherited",
    )

    @property
    def perceptual(self) -> list[str]:
        """The measures of `evaluation.perceptual` that were asked for."""
        return [name for name in NETWORKS if getattr(self, name)]


@dataclass(frozen=True)
class EvaluationOptions:
    """All that `--train_test test` was told. flags: the same by the flags' names, as
    `options.json` holds them."""

    run: Run
    testing: Testing
    model: str
    architecture: Architecture
    scene: SceneOptions
    machine: Machine
    flags: dict[str, str | int | float | bool | None]


def test(options: EvaluationOptions, checkpoint: dict | None, ranks: Ranks = ALONE) -> int:
    """Renders every pose of `--data_root` and returns the exit code, 0. Ranks share the frames."""
    run = options.run
    machine = options.machine
    device = torch.device(machine.device)
    with ranks.fail_together():
        check_cycle_spin(options)
        set_arithmetic(machine.precision, device, machine.deterministic)
        scene, geometry = load_test_scene(run.data_root, options.architecture, options.scene)
        look = video_look(options, len(scene))
        neighbors = load_neighbors(
            scene,
            options.testing.train_root,
            options.model,
            options.architecture,
            options.scene,
        )
        true_depth = None
        if scene.images is not None:
            map_sidelength = options.architecture.proj_sidelength
            true_depth = load_true_depth(scene.root / "depth", len(scene), map_sidelength)
        measure = load_frame_metrics(
            scene, neighbors, options.scene.background, options.testing.perceptual
        )
        model = load_model(
            options.model, options.architecture, geometry, checkpoint, run.checkpoint
        ).to(device)
        parameters = count_parameters(model)
        make_fast_(model, device, machine.compile, machine.kernels)
        if options.testing.cycle_spin > 1:
            model = cycle_spun(model, options.testing.cycle_spin)
    source = checkpoint and describe_checkpoint(checkpoint, scene)
    if source:
        print(checkpoint_line(run.checkpoint, source))
    if run.dry_run:
        with_images = "without" if measure is None else "with"
        print(f"{scene.root}: {len(scene)} poses, {with_images} true images")
        return 0

    folder = ranks.from_first(lambda: make_test_folder(run, options.model, options.flags, device))
    with ranks.fail_together():
        if not folder.is_dir():
            raise InputError(
                f"--logging_root {run.logging_root}: is not shared by the machines of this run"
            )
    frames = render_path(model, scene.poses(device), neighbors, machine.precision, ranks)
    rendered = RenderedPath(frames, len(scene), geometry.depth_range)
    measured, depth = write_frames(folder, rendered, measure, ranks, look)
    if not ranks.first:
        return 0
    if measure is not None:
        frame_metrics, neighbor_metrics = zip(*measured, strict=True)
        depth_errors = None
        if true_depth is not None and depth is not None:
            depth_errors = measure_depth(depth, true_depth, geometry.voxel_size)
        content = {
            **mean_metrics(frame_metrics),
            "nearest_neighbor": neighbors and mean_metrics(neighbor_metrics),
            "depth": depth_errors,
            "model": options.model,
            "parameters": parameters,
            "checkpoint": source,
            "setbacks": recorded_setbacks(checkpoint),
            "protocol": protocol(options),
            "frames": frame_metrics,
        }
        print_metrics(content)  # first: nothing is lost if the disk is full
        if is_installed("matplotlib"):
            write_comparison(folder, scene)
        write_json(folder / "metrics.json", content)  # last: it says that the test is complete
    print_files(folder, measured=measure is not None)
    return 0


def check_cycle_spin(options: EvaluationOptions) -> None:
    """Raises `InputError` where `--cycle_spin` does not apply."""
    spin = options.testing.cycle_spin
    if spin == 1:
        return
    if options.model != "deepvoxels":
        raise InputError(
            f"--cycle_spin {spin}: shifts the feature map of a view, which --model "
            f"{options.model} does not have"
        )
    if options.machine.compile:
        raise InputError(f"--cycle_spin {spin}: does not go with --compile")
    enlargement = options.architecture.enlargement
    if enlargement % spin:
        raise InputError(
            f"--cycle_spin {spin}: must divide the {enlargement} image pixels along a pixel of the "
            "feature map, since images are shifted back by whole pixels"
        )


def video_look(options: EvaluationOptions, views: int) -> VideoLook:
    """How the video of so many views looks. Raises `InputError` where that cannot be."""
    testing = options.testing
    frame = options.architecture.img_sidelength - 2 * BORDER
    sidelength = testing.video_sidelength
    most = max(frame, MAX_VIDEO_SIDELENGTH)
    if sidelength is not None and (sidelength % 2 or not frame <= sidelength <= most):
        raise InputError(
            f"--video_sidelength {sidelength}: must be an even number from {frame}, the frames' "
            f"own, to {most}"
        )
    if testing.video_depth and options.model != "deepvoxels":
        raise InputError(f"--video_depth: --model {options.model} has no depth")
    if testing.video_depth and options.architecture.no_occlusion_net:
        raise InputError("--video_depth: a model with --no_occlusion_net has no depth")
    return VideoLook(sidelength, testing.video_depth, frames_per_second(views))


def load_test_scene(
    root: Path, architecture: Architecture, options: SceneOptions
) -> tuple[Scene, SceneGeometry]:
    """The poses of a path, with their true images if there are any, and the scene's geometry.
    Raises `InputError` for a view that sees nothing of the grid."""
    sidelength = architecture.img_sidelength
    with_images = (root / "rgb").is_dir()
    scene = load_scene(root, sidelength, background=options.background, with_images=with_images)
    geometry = scene_geometry(
        scene.intrinsics, architecture.grid_dim, architecture.proj_sidelength, options.near_plane
    )
    with np.errstate(all="ignore"):  # overflow ends in an error message; numpy need not warn
        meets = frustum_meets_grid(
            scene.cam2world,
            scene.intrinsics.pinhole(sidelength),
            scene.intrinsics.grid(options.near_plane),
        )
    for view in np.flatnonzero(~meets):
        raise InputError(
            f"{root}/pose/{scene.names[view]}.txt: sees nothing of the grid; check origin, scale "
            "and near plane in intrinsics.txt, and that the poses are camera-to-world"
        )
    return scene, geometry


def load_neighbors(
    scene: Scene,
    train_root: Path | None,
    model: str,
    architecture: Architecture,
    options: SceneOptions,
) -> Neighbors | None:
    """The training views that are nearest to those of a test. True images are compared with them,
    and baselines render from them; None where neither is done, or where there are none.

    They are those of `--train_root`, or of the same scene's training folder, that
    `--sampling_pattern` keeps.
    """
    renders_from_views = model in NEEDS_SOURCE_VIEW
    if scene.images is None and not renders_from_views:
        return None
    root = train_root or find_split(scene.root, "train")
    if root is None and renders_from_views:
        raise InputError(
            f"--train_root is required to test --model {model}, which renders from training views"
        )
    if root is None:
        print(
            f"warning: {scene.root}: no training folder belongs to it and --train_root is not "
            "given; nearest neighbours are not measured",
            file=sys.stderr,
        )
        return None
    sidelength = architecture.img_sidelength
    views = load_scene(root, sidelength, options.sampling_pattern, options.background)
    return nearest_neighbors(views.with_grid_of(scene.intrinsics), scene.cam2world)


def load_frame_metrics(
    scene: Scene, neighbors: Neighbors | None, background: str, perceptual: list[str]
) -> FrameMetrics | None:
    """What measures the frames of a test; None without true images."""
    if scene.images is None:
        if perceptual:
            name = perceptual[0]
            raise InputError(f"--{name}: {scene.root} has no true images (rgb) to compare with")
        return None
    distances = {name: load_lpips(name) for name in perceptual}
    return FrameMetrics(scene, neighbors, load_object_masks(scene, background), distances)


def make_test_folder(run: Run, model: str, flags: dict, device: torch.device) -> Path:
    """A new folder for a test's results, with its options."""
    name = run.experiment_name or "_".join(Path(run.checkpoint or model).parts[-2:])
    (folder,) = make_run_folder(run.logging_root, "test_traj", name=name)
    write_json(folder / "options.json", {"options": flags, "machine": describe_machine(device)})
    return folder


def print_files(folder: Path, measured: bool) -> None:
    """Prints where the files of a test are that people look at, and which are left out for want of
    a package."""
    if not is_installed("imageio_ffmpeg"):
        print(left_out("video", "imageio-ffmpeg"))
    if measured and not is_installed("matplotlib"):
        print(left_out("picture", "matplotlib"))
    for what, name in [
        ("video", "video.mp4"),
        ("picture", "comparison.png"),
        ("metrics", "metrics.json"),
    ]:
        if (folder / name).is_file():
            print(f"{what}: {folder / name}")


def checkpoint_line(path: Path, source: dict) -> str:
    """Which checkpoint a test takes, and by which views that was decided. source: what
    `describe_checkpoint` says of it."""
    line = f"checkpoint: {path}"
    if source["step"] is not None:
        line += f", step {source['step']}"
    choice = source["chosen_by"]
    if choice:
        views = f"{choice['views']} {one_line(choice['split'])} views"
        line += f", the best of its run by the PSNR on {views}"
        if choice["measured_here"]:
            line += ", which are measured here too"
    return line


def recorded_setbacks(checkpoint: dict | None) -> int:
    """How often the training of a checkpoint went back to an earlier one."""
    setbacks = checkpoint.get("setbacks") if checkpoint else 0
    return setbacks if isinstance(setbacks, int) else 0


def protocol(options: EvaluationOptions) -> dict:
    """How the metrics were computed."""
    return {
        "border": BORDER,
        "background": options.scene.background,
        "sidelength": options.architecture.img_sidelength,
        "cycle_spin": options.testing.cycle_spin,
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
    line = f"PSNR {metrics['psnr' + where]:.2f} dB, SSIM {metrics['ssim' + where]:.3f}"
    for name, network in NETWORKS.items():
        if not where and name in metrics:
            line += f", {network.label} {metrics[name]:.3f}"
    return line
