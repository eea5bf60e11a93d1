"""Table 1 of the paper: DeepVoxels and four baselines with the same data, losses, steps and number
of parameters.

    python -m experiments.table1 --scenes data/cube data/lego --steps 3000 --seeds 0 1
        --out results/table1 --size small

Writes table.md, table.json, figure.png (truth and each method, for a few views) and a video of each
scene's test path. Repeating the command runs what is missing; scenes, models and seeds may be
added. A failed run is a gap in the table. --lpips and --lpips_vgg add LPIPS to it.
"""

from argparse import Namespace
from collections.abc import Collection

import numpy as np

from baselines import MODELS, UNTRAINED
from evaluation.picture_grid import evenly_spread
from experiments.figures import (
    VIEWS_SHOWN,
    load_test_views,
    truth_and_frames,
    write_figure,
    write_path_video,
)
from experiments.plan import StudyRun
from experiments.results import GAP, cell, figures_cell, gaps, markdown_table, parameters_cell
from experiments.study import Collected, Groups, Scenes, Study
from machine.cli import Parser, run

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
PAPER_SCENES = ("vase", "pedestal", "chair", "cube", "mean")


class Table1(Study):
    name = "table1"
    table = "table"
    doc = __doc__
    heading = (
        "{measures} on the test views after {steps} steps, mean over the seeds {seeds}; "
        "flags: {flags}"
    )

    def add_flags(self, parser: Parser) -> None:
        parser.add_argument(
            "--models", nargs="+", choices=list(MODELS), default=list(MODELS), help="default: all"
        )

    def plan_runs(self, args: Namespace, scenes: Scenes) -> Groups:
        groups = {}
        for scene, data in scenes.items():
            for model in models_shown(args.models):
                seeds = args.seeds[:1] if model in UNTRAINED else args.seeds
                groups[scene, model] = [StudyRun(scene, data, model, seed, model) for seed in seeds]
        return groups

    def tables(self, collected: Collected) -> tuple[dict, str]:
        models = models_shown(collected.args.models)
        measures = collected.measures
        table = {
            scene: {model: collected.summary((scene, model)) for model in models}
            for scene in collected.scenes
        }
        content = {
            "scenes": table,
            "mean": {model: mean_over_scenes(table, model, measures) for model in models},
            "paper": {
                model: dict(zip(PAPER_SCENES, figures, strict=True))
                for model, figures in PAPER.items()
            },
        }
        return content, paper_layout(table, models, measures)

    def draw(self, collected: Collected) -> None:
        """Writes figure.png and each SCENE.mp4, from the first seed's runs."""
        out = collected.args.out
        models = models_shown(collected.args.models)
        columns = ["truth", *(NAMES.get(model, model) for model in models)]
        rows = []
        for scene, data in collected.scenes.items():
            results = [collected.first((scene, model)) for model in models]
            finished = [result for result in results if result]
            if not finished:
                continue
            views = load_test_views(data, finished[0])
            for view in evenly_spread(len(views), VIEWS_SHOWN):
                rows.append(
                    (f"{scene} {views.names[view]}", truth_and_frames(views, view, results))
                )
            write_path_video(out / f"{scene}.mp4", columns, views, results)
        write_figure(out / "figure.png", columns, rows)


def models_shown(wanted: Collection[str]) -> list[str]:
    """The wanted models: the paper's in its order, then variants that were added to `MODELS`."""
    return [model for model in dict.fromkeys([*NAMES, *MODELS]) if model in wanted]


def mean_over_scenes(table: dict, model: str, measures: list[str]) -> dict[str, float | None]:
    """The means of PSNR, SSIM and these measures over scenes; None if a scene is a gap, since
    methods would not compare."""
    means = {}
    for name in ("psnr", "ssim", *measures):
        values = [scene[model].get(name) for scene in table.values()]
        means[name] = None if None in values else float(np.mean(values))
    return means


def paper_layout(table: dict, models: list[str], measures: list[str]) -> str:
    """A row for each model and a column for each scene, its best PSNR in bold. The paper's own
    figures follow."""
    best = {
        name: max((scene[model]["psnr"] or 0 for model in models), default=0)
        for name, scene in table.items()
    }
    rows = []
    for model in models:
        cells = [
            cell(scene[model], measures, best=scene[model]["psnr"] == best[name])
            for name, scene in table.items()
        ]
        mean = mean_over_scenes(table, model, measures)
        mean_cell = GAP if mean["psnr"] is None else figures_cell(mean, measures)
        parameters = parameters_cell([scene[model] for scene in table.values()])
        rows.append([NAMES.get(model, model), parameters, *cells, mean_cell])
    paper = [
        [NAMES[model], *(f"{psnr:.2f} / {ssim:.2f}" for psnr, ssim in figures)]
        for model, figures in PAPER.items()
    ]
    by_name = {
        f"{scene}, {NAMES.get(model, model)}": summaries[model]
        for scene, summaries in table.items()
        for model in models
    }
    return (
        markdown_table(["", "Parameters", *table, "Mean"], rows)
        + gaps(by_name, measures)
        + "\nThe paper's own PSNR / SSIM, on its own renders at 512 pixels, for reference:\n\n"
        + markdown_table(["", *map(str.capitalize, PAPER_SCENES)], paper)
    )


main = Table1().main

if __name__ == "__main__":
    run("experiments.table1", main)
