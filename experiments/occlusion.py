"""The paper's study of occlusion reasoning (section 4, Figure 5): DeepVoxels with and without its occlusion net.

    python -m experiments.occlusion --scenes data/cube --steps 3000 --seeds 0 1 --out results/occlusion
        --img_sidelength 64 --proj_sidelength 32 --grid_dim 16 --num_grid_feats 16 --nf0 16

Writes occlusion.md, occlusion.json and figure.png: truth and depth, with and without, the same views. Depth is measured
where the scene has test/depth/*.npz. Given again, the command runs what is missing.
"""
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cli import run
from data_util import color_depth
from dataio import Scene
from evaluation.render import load_true_depth
from experiments.command import experiment_parser, parse
from experiments.pictures import frame, load_test_views, true_picture, write_figure
from experiments.results import GAP, cell, failures, markdown_table, summarize
from experiments.runner import Experiment, Result, Run
from util import write_json

PROG = "experiments.occlusion"
VARIANTS = {"with": (), "without": ("--no_occlusion_net",)}
VIEWS_SHOWN = 3
PAPER = {"cube": {"with": 28.42, "without": 23.26}, "pedestal": {"with": 32.35, "without": 30.02}}  # PSNR


def main(argv: Sequence[str] | None = None) -> None:
    args = parse(experiment_parser(PROG, __doc__), argv, reserved={"--no_occlusion_net"})
    experiment = Experiment("occlusion", args.out, args.scenes, args.steps, args.flags)
    runs = {(scene, variant): [Run(scene, data, variant, seed, flags=flags) for seed in args.seeds]
            for scene, data in experiment.scenes.items() for variant, flags in VARIANTS.items()}
    results, failed = experiment.run_all([run for group in runs.values() for run in group])
    table = {scene: {variant: summarize(runs[scene, variant], results, failed) for variant in VARIANTS}
             for scene in experiment.scenes}
    write_json(args.out / "occlusion.json", {"steps": args.steps, "seeds": args.seeds, "flags": args.flags,
                                             "scenes": table, "paper": PAPER})
    (args.out / "occlusion.md").write_text(table_text(table, args), encoding="utf-8")
    write_pictures(experiment, {key: results.get(group[0]) for key, group in runs.items()})
    print((args.out / "occlusion.md").read_text(encoding="utf-8"))
    print(f"look at {args.out / 'figure.png'}")


def table_text(table: dict, args) -> str:
    """A row for each scene and variant; the paper's figures below."""
    rows = [[scene, variant, GAP if row["parameters"] is None else f"{row['parameters'] / 1e6:.2f} M", cell(row),
             *depth_cells(row["depth"])] for scene, variants in table.items() for variant, row in variants.items()]
    paper = [[scene, f"{psnr['with']:.2f}", f"{psnr['without']:.2f}"] for scene, psnr in PAPER.items()]
    return (f"Test views after {args.steps} steps, mean over the seeds {', '.join(map(str, args.seeds))}; "
            f"flags: {' '.join(args.flags) or 'none'}\n\n"
            + markdown_table(["Scene", "Occlusion net", "Parameters", "PSNR / SSIM", "Depth error (voxels)",
                              "Within one voxel"], rows)
            + failures({f"{scene}, {variant}": row for scene, variants in table.items()
                        for variant, row in variants.items()})
            + "\nThe paper's own PSNR, on its own renders at 512 pixels, for reference:\n\n"
            + markdown_table(["Scene", "with", "without"], paper))


def depth_cells(depth: dict | None) -> list[str]:
    """The mean error of depth over the object, in voxels, and the share of its pixels within one."""
    if depth is None:
        return [GAP, GAP]
    return [f"{depth['mean_absolute_error'] / depth['voxel_size']:.2f}", f"{100 * depth['within_one_voxel']:.1f} %"]


def write_pictures(experiment: Experiment, results: dict[tuple[str, str], Result | None]) -> None:
    """figure.png, from the first seed's runs: truth, true depth, with, its depth, without. As the paper says, the depth
    of the background is not determined."""
    rows = []
    for scene, data in experiment.scenes.items():
        full, flat = (results[scene, variant] for variant in VARIANTS)
        if not full and not flat:
            continue
        views = load_test_views(data, full or flat)
        true_depth, depth = depths(full, views, data) if full else (None, None)
        for view in np.linspace(0, len(views) - 1, min(VIEWS_SHOWN, len(views)) + 2).round().astype(int)[1:-1]:
            rows.append([true_picture(views, int(view)), None if true_depth is None else true_depth[view],
                         frame(full, int(view)), None if depth is None else depth[view], frame(flat, int(view))])
    if rows:
        write_figure(experiment.out / "figure.png",
                     ["truth", "true depth", "with occlusion net", "its depth", "without"], rows)


def depths(result: Result, views: Scene, data: Path) -> tuple[np.ndarray | None, np.ndarray]:
    """The true depth, where it is known, and a run's, in the same colours."""
    depth = np.load(result.folder / "depth_metric.npz")["depth"]
    truth = load_true_depth(data / "test", views, depth.shape[-1])
    shown = depth if truth is None or not np.isfinite(truth).any() else truth[np.isfinite(truth)]
    nearest, farthest = float(shown.min()), float(shown.max())
    return None if truth is None else color_depth(truth, nearest, farthest), color_depth(depth, nearest, farthest)


if __name__ == "__main__":
    run(PROG, main)
