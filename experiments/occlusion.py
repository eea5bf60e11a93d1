"""The paper's study of occlusion reasoning (section 4, Figure 5): DeepVoxels with and without its
occlusion network.

    python -m experiments.occlusion --scenes data/cube --steps 3000 --seeds 0 1
        --out results/occlusion --size small

Writes occlusion.md, occlusion.json and figure.png: images and depth for a few views. Depth is
measured if the scene has test/depth/*.npz. Repeating the command runs what is missing.
"""

from argparse import Namespace
from collections.abc import Sequence

import numpy as np

from dataio import Scene
from evaluation.metrics import load_true_depth
from evaluation.pictures import depth_pictures, spread
from experiments.command import Groups, Scenes, experiment_parser, parse, run_experiment
from experiments.pictures import VIEWS_SHOWN, load_test_views, truth_and_frames, write_figure
from experiments.plan import Run, SceneData
from experiments.results import GAP, Outcome, cell, gaps, markdown_table, summarize
from experiments.status import Result
from machine.cli import run
from util import write_json, write_text

PROG = "experiments.occlusion"
VARIANTS = {"with": (), "without": ("--no_occlusion_net",)}
PAPER = {
    "cube": {"with": 28.42, "without": 23.26},
    "pedestal": {"with": 32.35, "without": 30.02},
}  # PSNR


def main(argv: Sequence[str] | None = None) -> None:
    args = parse(experiment_parser(PROG, __doc__), argv, reserved={"no_occlusion_net"})
    run_experiment("occlusion", args, plan_runs, collect)


def plan_runs(args: Namespace, scenes: Scenes) -> Groups:
    return {
        (scene, variant): [Run(scene, data, variant, seed, flags=flags) for seed in args.seeds]
        for scene, data in scenes.items()
        for variant, flags in VARIANTS.items()
    }


def collect(args: Namespace, scenes: Scenes, runs: Groups, outcome: Outcome) -> None:
    """Writes the table and the figure."""
    table = {
        scene: {variant: summarize(runs[scene, variant], outcome) for variant in VARIANTS}
        for scene in scenes
    }
    write_json(
        args.out / "occlusion.json",
        {
            "steps": args.steps,
            "seeds": args.seeds,
            "flags": args.flags,
            "scenes": table,
            "paper": PAPER,
        },
    )
    write_text(args.out / "occlusion.md", table_text(table, args))
    print((args.out / "occlusion.md").read_text(encoding="utf-8"))
    write_pictures(
        args, scenes, {key: outcome.results.get(group[0]) for key, group in runs.items()}
    )


def table_text(table: dict, args: Namespace) -> str:
    """A row for each scene and variant. The paper's own figures follow."""
    rows = [
        [
            scene,
            variant,
            GAP if row["parameters"] is None else f"{row['parameters'] / 1e6:.2f} M",
            cell(row),
            *depth_cells(row["depth"]),
        ]
        for scene, variants in table.items()
        for variant, row in variants.items()
    ]
    paper = [
        [scene, f"{psnr['with']:.2f}", f"{psnr['without']:.2f}"] for scene, psnr in PAPER.items()
    ]
    return (
        f"Test views after {args.steps} steps, mean over the seeds "
        f"{', '.join(map(str, args.seeds))}; "
        f"flags: {' '.join(args.flags) or 'none'}\n\n"
        + markdown_table(
            [
                "Scene",
                "Occlusion net",
                "Parameters",
                "PSNR / SSIM",
                "Depth error (voxels)",
                "Within one voxel",
            ],
            rows,
        )
        + gaps(
            {
                f"{scene}, {variant}": row
                for scene, variants in table.items()
                for variant, row in variants.items()
            }
        )
        + "\nThe paper's own PSNR, on its own renders at 512 pixels, for reference:\n\n"
        + markdown_table(["Scene", "with", "without"], paper)
    )


def depth_cells(depth: dict | None) -> list[str]:
    """The mean error of depth over the object, in voxels, and the share of its pixels with an error
    of at most one."""
    if depth is None:
        return [GAP, GAP]
    return [
        f"{depth['mean_absolute_error'] / depth['voxel_size']:.2f}",
        f"{100 * depth['within_one_voxel']:.1f} %",
    ]


def write_pictures(
    args: Namespace, scenes: Scenes, results: dict[tuple[str, str], Result | None]
) -> None:
    """Writes figure.png, from the first seed's runs. The depth of the background is undetermined
    (paper, Figure 5)."""
    rows = []
    for scene, data in scenes.items():
        full, flat = (results[scene, variant] for variant in VARIANTS)
        if not full and not flat:
            continue
        views = load_test_views(data, full or flat)
        true_depth, depth = color_depths(full, views, data) if full else (None, None)
        for view in spread(len(views), VIEWS_SHOWN):
            truth, with_net, without_net = truth_and_frames(views, view, [full, flat])
            rows.append(
                (
                    f"{scene} {views.names[view]}",
                    [
                        truth,
                        None if true_depth is None else true_depth[view],
                        with_net,
                        None if depth is None else depth[view],
                        without_net,
                    ],
                )
            )
    write_figure(
        args.out / "figure.png",
        ["truth", "true depth", "with occlusion net", "its depth", "without occlusion net"],
        rows,
    )


def color_depths(
    result: Result, views: Scene, data: SceneData
) -> tuple[np.ndarray | None, np.ndarray]:
    """The true depth, if it is known, and a run's, in the same colours."""
    depth = np.load(result.folder / "depth_metric.npz")["depth"]
    truth = load_true_depth(data.test / "depth", len(views), depth.shape[-1])
    shown = depth if truth is None or not np.isfinite(truth).any() else truth[np.isfinite(truth)]
    scale = views.images.shape[-1], float(shown.min()), float(shown.max())
    return None if truth is None else depth_pictures(truth, *scale), depth_pictures(depth, *scale)


if __name__ == "__main__":
    run(PROG, main)
