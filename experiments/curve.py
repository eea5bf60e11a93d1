"""How good models get while they train: PSNR, SSIM and depth error on held-out views, over steps
and over minutes.

    python run_deepvoxels.py --train_test train ... --keep_checkpoints 0 --checkpoint_every 1000
        --logging_root LOGS
    python -m experiments.curve --runs LOGS/logs/*/* --out results/curve

Measures every checkpoint that the runs have kept on the scene's held-out images (`validation`, else
`test`), as a test would. Minutes are those of training, without pauses. Writes curve.png, curve.md
and curve.json; repeating the command measures what is new: checkpoints that were not there or have
changed, or all with other views or --precision.
"""

import sys
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from itertools import chain
from pathlib import Path

import numpy as np
import torch

from dataio import Scene, load_scene
from evaluation.metrics import FrameMetrics, load_true_depth, mean_metrics, measure_depth
from evaluation.trained import Checkpoint, read_checkpoint, recorded_scene
from experiments.plan import views_fingerprint, writing
from experiments.results import GAP, markdown_table
from files.runs import checkpoints_by_step
from machine.cli import Parser, run
from machine.progress import Progress
from machine.runtime import PRECISIONS, choose_device, set_arithmetic
from training.validation import held_out_folder
from util import InputError, new_file, one_line, read_json, write_json, write_text

PROG = "experiments.curve"
QUANTITIES = {"psnr": "PSNR (dB)", "ssim": "SSIM", "depth_error": "depth error (world units)"}


def main(argv: Sequence[str] | None = None) -> None:
    parser = Parser(PROG, __doc__)
    parser.add_argument(
        "--runs",
        type=Path,
        nargs="+",
        required=True,
        metavar="DIR",
        help="folders with a run's checkpoints: LOGS/logs/MM_DD/TIME_NAME",
    )
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="folder for the results"
    )
    parser.add_shared(
        "data_root",
        help="held-out views (default: those of the scene that each run was trained on)",
    )
    parser.add_shared("device")
    parser.add_argument("--precision", choices=PRECISIONS, default="fp32", help="default: fp32")
    args = parser.parse_args(argv)
    device = torch.device(choose_device(args.device))
    set_arithmetic(args.precision, device)
    kept = {folder.resolve(): kept_checkpoints(folder) for folder in args.runs}
    all_paths = list(chain.from_iterable(kept.values()))
    points = measure_new(all_paths, args.data_root, args.out, args.precision, device)
    names = short_names(kept)
    curves = {
        names[folder]: [points[path] for path in paths if path in points]
        for folder, paths in kept.items()
    }
    with writing(args.out):
        write_text(args.out / "curve.md", table_text(curves))
        plot_curves(args.out / "curve.png", curves)
    print(table_text(curves))
    print(f"look at {args.out / 'curve.png'}")


def measure_new(
    paths: Sequence[Path],
    held_out: Path | None,
    out: Path,
    precision: str,
    device: torch.device,
) -> dict[Path, dict]:
    """A point for each checkpoint, measured unless `out/curve.json` has it. A training may remove
    checkpoints meanwhile; they are left out. Raises `InputError` if none is left. held_out: the
    views; None for those of the scene that each run was trained on."""
    known = earlier_points(out / "curve.json")
    points = {}
    fingerprint_of = cache(views_fingerprint)
    load = cache(load_scene)  # checkpoints of one scene read it once
    for path in Progress(paths, unit="checkpoint"):
        try:
            point = known.get(str(path.resolve()), {})
            checkpoint = None
            if "data_root" not in point or not file_state(path).items() <= point["inputs"].items():
                checkpoint = read_checkpoint(path)
                point = {"data_root": checkpoint.option("data_root", "")}
            root = held_out or held_out_folder(recorded_scene(path, point["data_root"]))
            inputs = {
                **file_state(path),
                "precision": precision,
                "views": str(root.resolve()),
                "fingerprint": fingerprint_of(root),
            }
            if point.get("inputs") != inputs:
                checkpoint = checkpoint or read_checkpoint(path)
                figures = measure_checkpoint(checkpoint, root, load, device, precision)
                point = {**figures, "data_root": point["data_root"], "inputs": inputs}
                add_point(out, path, point)
            points[path] = point
        except (InputError, FileNotFoundError):
            if path.exists():
                raise
            Progress.write(
                f"warning: {path}: was removed before it was measured, and is left out",
                file=sys.stderr,
            )
    if not points:
        raise InputError(
            f"{paths[-1].parent}: all checkpoints were removed before they were measured"
        )
    return points


def kept_checkpoints(folder: Path) -> list[Path]:
    """The checkpoints of a run by their steps. Raises `InputError` if it kept fewer than two."""
    paths = checkpoints_by_step(folder)
    if len(paths) < 2:
        raise InputError(
            f"--runs {folder}: holds {len(paths) or 'no'} checkpoint{'s' * (len(paths) != 1)}, a "
            "curve "
            "needs two; train with --keep_checkpoints 0 and a small --checkpoint_every"
        )
    return paths


def short_names(folders: Iterable[Path]) -> dict[Path, str]:
    """For each folder the shortest end of its path that no other one has."""
    folders = list(folders)
    names = {}
    for folder in folders:
        others = [other.parts for other in folders if other != folder]
        length = next(
            length
            for length in range(1, len(folder.parts) + 1)
            if all(parts[-length:] != folder.parts[-length:] for parts in others)
        )
        names[folder] = str(Path(*folder.parts[-length:]))
    return names


def file_state(path: Path) -> dict[str, int]:
    """What changes if a checkpoint is replaced."""
    status = path.stat()
    return {"mtime_ns": status.st_mtime_ns, "bytes": status.st_size}


def earlier_points(path: Path) -> dict[str, dict]:
    """What other calls have measured, by the checkpoint's path."""
    if not path.exists():
        return {}
    try:
        return dict(read_json(path, 1 << 26)["checkpoints"])
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: is not a curve ({error})") from None


def add_point(out: Path, path: Path, point: dict) -> None:
    """Adds a checkpoint's point to curve.json, to which another process may just have added
    others."""
    out.mkdir(parents=True, exist_ok=True)
    with writing(out):
        write_json(
            out / "curve.json",
            {"checkpoints": earlier_points(out / "curve.json") | {str(path.resolve()): point}},
        )


def measure_checkpoint(
    checkpoint: Checkpoint,
    root: Path,
    load: Callable[..., Scene],
    device: torch.device,
    precision: str,
) -> dict[str, float | int | None]:
    """What a model reaches on the held-out views at `root`. `load` is `load_scene`."""
    sidelength = checkpoint.architecture.img_sidelength
    scene = load(root, sidelength, "all", checkpoint.background)
    sources = None
    if checkpoint.renders_from_views:
        pattern = checkpoint.option("sampling_pattern", "all")
        sources = load(checkpoint.scene_root(), sidelength, pattern, checkpoint.background)
    model = checkpoint.load_model(scene.intrinsics, device, sources)
    metrics_of = FrameMetrics(scene)
    metrics = []
    depth = []
    for frame in model.render_path(scene.cam2world, precision):
        metrics.append(metrics_of(frame)[0])
        depth.append(frame.depth)
    truth = load_true_depth(root / "depth", len(scene), model.geometry.map_sidelength)
    errors = None
    if truth is not None and model.learns_depth:
        errors = measure_depth(np.stack(depth), truth, model.geometry.voxel_size)
    seconds = checkpoint.content.get("seconds")
    means = mean_metrics(metrics)
    return {
        "step": int(checkpoint.path.stem.rpartition("_")[2]),
        "minutes": None if seconds is None else seconds / 60,
        "psnr": means["psnr"],
        "ssim": means["ssim"],
        "depth_error": errors and errors["mean_absolute_error"],
    }


def table_text(curves: dict[str, list[dict]]) -> str:
    """A row for each checkpoint."""
    rows = [
        [
            name,
            str(point["step"]),
            _cell(point["minutes"], 1),
            _cell(point["psnr"], 2),
            _cell(point["ssim"], 3),
            _cell(point["depth_error"], 4),
        ]
        for name, points in curves.items()
        for point in points
    ]
    return markdown_table(["run", "step", "minutes", *QUANTITIES.values()], rows)


def _cell(value: float | None, digits: int) -> str:
    return GAP if value is None else f"{value:.{digits}f}"


def plot_curves(path: Path, curves: dict[str, list[dict]]) -> None:
    """A row of plots for each quantity, over steps and over minutes."""
    from matplotlib.figure import Figure  # takes half a second; only pictures need it

    shown = [
        name
        for name in QUANTITIES
        if any(point[name] is not None for points in curves.values() for point in points)
    ]
    figure = Figure((14.4, 3.6 * len(shown)), dpi=100, layout="constrained")
    all_axes = figure.subplots(len(shown), 2, sharey="row", sharex="col", squeeze=False)
    for quantity, row in zip(shown, all_axes, strict=True):
        for over, axes in zip(("step", "minutes"), row, strict=True):
            for name, points in curves.items():
                known = [
                    point
                    for point in points
                    if point[over] is not None and point[quantity] is not None
                ]
                axes.plot(
                    [point[over] for point in known],
                    [point[quantity] for point in known],
                    "o-",
                    markersize=3,
                    label=one_line(name).replace("$", r"\$"),
                )
            axes.grid(alpha=0.3)
        row[0].set_ylabel(QUANTITIES[quantity])
    all_axes[-1][0].set_xlabel("steps")
    all_axes[-1][1].set_xlabel("minutes of training")
    all_axes[0][0].legend(frameon=False)
    with new_file(path) as file:
        figure.savefig(file, format="png")


if __name__ == "__main__":
    run(PROG, main)
