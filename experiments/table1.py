"""Table 1 of the paper: DeepVoxels and four baselines with the same data, losses, steps and number
of parameters.

    python -m experiments.table1 --scenes data/cube data/lego --steps 3000 --seeds 0 1
        --out results/table1 --size small

Writes table.md, table.json, figure.png (truth and each method, for a few views) and a video of each
scene's test path. Repeating the command runs what is missing; scenes, models and seeds may be
added. A failed run is a gap in the table.
"""

from argparse import Namespace
from collections.abc import Sequence

import numpy as np

from baselines import MODELS, UNTRAINED
from evaluation.pictures import spread
from experiments.command import Groups, Scenes, experiment_parser, parse, run_experiment
from experiments.pictures import (
    VIEWS_SHOWN,
    load_test_views,
    truth_and_frames,
    write_figure,
    write_path_video,
)
from experiments.plan import Run
from experiments.results import GAP, Outcome, cell, gaps, markdown_table, summarize
from experiments.status import Result
from machine.cli import run
from util import write_json, write_text

PROG = "experiments.table1"
NAMES = {
    "nearest_neighbor": "Nearest Neighbor",
    "tatarchenko": "Tatarchenko et al.",
    "worrall": "Worrall et al.",
    "pix2pix": "Pix2Pix (Isola et al.)",
    "deepvoxels": "DeepVoxels",
}  # in the paper's order
PAPER = {  # PSNR and SSIM on vase, pedestal, chair, cube, and their mean
    "nearest_neighbor": [(23.26, 0.92), (21.49, 0.87), (20.69, 0.94), (18.32, 0.83), (20.94, 0.89)],
    "tatarchenko": [(22.28, 0.91), (23.25, 0.89), (20.22, 0.95), (19.12, 0.84), (21.22, 0.90)],
    "worrall": [(23.41, 0.92), (22.70, 0.89), (19.52, 0.94), (19.23, 0.85), (21.22, 0.90)],
    "pix2pix": [(26.36, 0.95), (25.41, 0.91), (23.04, 0.96), (19.69, 0.86), (23.63, 0.92)],
    "deepvoxels": [(27.99, 0.96), (32.35, 0.97), (33.45, 0.99), (28.42, 0.97), (30.55, 0.97)],
}


def main(argv: Sequence[str] | None = None) -> None:
    parser = experiment_parser(PROG, __doc__)
    parser.add_argument(
        "--models", nargs="+", choices=list(MODELS), default=list(MODELS), help="default: all"
    )
    args = parse(parser, argv, reserved=set())
    run_experiment("table1", args, plan_runs, collect)


def plan_runs(args: Namespace, scenes: Scenes) -> Groups:
    return {
        (scene, model): [
            Run(scene, data, model, seed, model)
            for seed in (args.seeds[:1] if model in UNTRAINED else args.seeds)
        ]
        for scene, data in scenes.items()
        for model in NAMES
        if model in args.models
    }


def collect(args: Namespace, scenes: Scenes, runs: Groups, outcome: Outcome) -> None:
    """Writes the table and the pictures."""
    models = [model for model in NAMES if model in args.models]
    table = {
        scene: {model: summarize(runs[scene, model], outcome) for model in models}
        for scene in scenes
    }
    write_json(
        args.out / "table.json",
        {
            "steps": args.steps,
            "seeds": args.seeds,
            "flags": args.flags,
            "scenes": table,
            "mean": {model: mean_over_scenes(table, model) for model in models},
            "paper": {
                model: dict(zip(("vase", "pedestal", "chair", "cube", "mean"), row, strict=True))
                for model, row in PAPER.items()
            },
        },
    )
    write_text(args.out / "table.md", table_text(table, models, args))
    print((args.out / "table.md").read_text(encoding="utf-8"))
    write_pictures(
        args, scenes, models, {key: outcome.results.get(group[0]) for key, group in runs.items()}
    )


def mean_over_scenes(table: dict, model: str) -> dict[str, float | None]:
    """The means of PSNR and SSIM over scenes; None if a scene is a gap, since methods would not
    compare."""
    rows = [scene[model] for scene in table.values()]
    return {
        name: None
        if any(row[name] is None for row in rows)
        else float(np.mean([row[name] for row in rows]))
        for name in ("psnr", "ssim")
    }


def table_text(table: dict, models: list[str], args: Namespace) -> str:
    """The paper's layout: a column for each scene, its best PSNR in bold. The paper's own figures
    follow."""
    best = {
        name: max((scene[model]["psnr"] or 0 for model in models), default=0)
        for name, scene in table.items()
    }
    rows = []
    for model in models:
        parameters = next(
            (
                scene[model]["parameters"]
                for scene in table.values()
                if scene[model]["parameters"] is not None
            ),
            None,
        )
        mean = mean_over_scenes(table, model)
        rows.append(
            [
                NAMES[model],
                GAP if not parameters else f"{parameters / 1e6:.2f} M",
                *(
                    cell(scene[model], best=scene[model]["psnr"] == best[name])
                    for name, scene in table.items()
                ),
                GAP if mean["psnr"] is None else f"{mean['psnr']:.2f} / {mean['ssim']:.2f}",
            ]
        )
    paper = [
        [NAMES[model], *(f"{psnr:.2f} / {ssim:.2f}" for psnr, ssim in row)]
        for model, row in PAPER.items()
    ]
    return (
        f"PSNR / SSIM on the test views after {args.steps} steps, mean over the seeds "
        f"{', '.join(map(str, args.seeds))}; flags: {' '.join(args.flags) or 'none'}\n\n"
        + markdown_table(["", "Parameters", *table, "Mean"], rows)
        + gaps(
            {
                f"{scene}, {NAMES[model]}": row[model]
                for scene, row in table.items()
                for model in models
            }
        )
        + "\nThe paper's own figures, on its own renders at 512 pixels, for reference:\n\n"
        + markdown_table(["", "Vase", "Pedestal", "Chair", "Cube", "Mean"], paper)
    )


def write_pictures(
    args: Namespace,
    scenes: Scenes,
    models: list[str],
    results: dict[tuple[str, str], Result | None],
) -> None:
    """Writes figure.png and each SCENE.mp4, from the first seed's runs."""
    columns = ["truth", *(NAMES[model] for model in models)]
    rows = []
    for scene, data in scenes.items():
        scene_results = [results[scene, model] for model in models]
        finished = [result for result in scene_results if result]
        if not finished:
            continue
        views = load_test_views(data, finished[0])
        rows += [
            (f"{scene} {views.names[view]}", truth_and_frames(views, view, scene_results))
            for view in spread(len(views), VIEWS_SHOWN)
        ]
        write_path_video(args.out / f"{scene}.mp4", columns, views, scene_results)
    write_figure(args.out / "figure.png", columns, rows)


if __name__ == "__main__":
    run(PROG, main)
