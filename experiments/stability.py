"""Whether training is stable: the persistent volume's largest value and its loop's gain over the
steps of many runs.

    python -m experiments.stability --scenes data/lego data/cube --seeds 0 1 2 3 --steps 400
        --out results/stability --learning_rates 0.001 0.002 --img_sidelength 64
        --proj_sidelength 32 --grid_dim 16 --num_grid_feats 16
        --nf0 16 --recipe fast

With --volume_limits 10 0 each run is repeated without the limit (see run_deepvoxels.py --help).
Writes stability.png, stability.md and stability.json. Repeating the command runs what is missing.
"Went back" counts runs that continued from a checkpoint, or the start, at half the learning rate;
of these the curves show the last attempt.
"""

from argparse import Namespace
from collections.abc import Collection
from pathlib import Path

import numpy as np
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from experiments.figures import Curve, Plot, write_plots
from experiments.plan import StudyRun
from experiments.results import GAP, gaps, markdown_table
from experiments.study import Collected, Groups, Scenes, Study
from files.runs import grouped_tag
from machine.cli import Parser, number, run

SCALARS = {"loop_gain": "gain of the volume's loop", "volume_max": "largest value of the volume"}


class Stability(Study):
    name = "stability"
    table = "stability"
    doc = __doc__
    heading = "{steps} steps, seeds {seeds}; flags: {flags}"
    reserved = frozenset({"lr", "volume_limit"})

    def add_flags(self, parser: Parser) -> None:
        parser.add_argument(
            "--learning_rates",
            type=number(float, 0),
            nargs="+",
            default=[1e-3],
            metavar="LR",
            help="default: 0.001",
        )
        parser.add_argument(
            "--volume_limits",
            type=number(float, 0),
            nargs="+",
            default=[10.0],
            metavar="LIMIT",
            help="values of --volume_limit to compare (default: 10)",
        )

    def plan_runs(self, args: Namespace, scenes: Scenes) -> Groups:
        groups = {}
        for scene, data in scenes.items():
            for lr in args.learning_rates:
                for limit in args.volume_limits:
                    variant = f"lr{lr:g}-limit{limit:g}"
                    flags = ("--lr", f"{lr:g}", "--volume_limit", f"{limit:g}")
                    groups[scene, lr, limit] = [
                        StudyRun(scene, data, variant, seed, flags=flags) for seed in args.seeds
                    ]
        return groups

    def tables(self, collected: Collected) -> tuple[dict, str]:
        table = []
        for key, group in collected.groups.items():
            scene, lr, limit = key
            row = {"scene": scene, "lr": lr, "volume_limit": limit, **collected.summary(key)}
            curves = {run.seed: read_scalars(collected.args.out, run) for run in group}
            for name in SCALARS:
                row[name] = {
                    str(seed): float(scalars[name][:, 1].max())
                    for seed, scalars in curves.items()
                    if len(scalars[name])
                }
            table.append(row)
        by_name = {
            f"{row['scene']}, lr {row['lr']:g}, limit {row['volume_limit']:g}": row for row in table
        }
        header = [
            "Scene",
            "Learning rate",
            "Volume limit",
            "Finished",
            "Went back",
            "PSNR",
            *(f"Largest {name} of a run: median / largest" for name in SCALARS),
        ]
        rows = [table_row(row, len(collected.args.seeds)) for row in table]
        return {"rows": table}, markdown_table(header, rows) + gaps(by_name)

    def draw(self, collected: Collected) -> None:
        """One line per run, unfinished ones too, and a colour per group: the gain on the left, the
        volume's largest value on the right."""
        names = legend_texts(collected.groups)
        curves = {name: [] for name in SCALARS}
        for number_, (key, group) in enumerate(collected.groups.items()):
            style = f"C{number_ % 10}" + ("-" if key[2] else "--")
            for run_ in group:
                for name, points in read_scalars(collected.args.out, run_).items():
                    values = [[value] for value in points[:, 1]]
                    curves[name].append(Curve(names[key], list(points[:, 0]), values, style))
        gain, largest = SCALARS.items()
        plots = [
            Plot(gain[1], "step", gain[0], curves[gain[0]], line_at=1.0),
            Plot(largest[1], "step", largest[0], curves[largest[0]], log_y=True),
        ]
        write_plots(collected.args.out / "stability.png", plots)


def read_scalars(out: Path, run_: StudyRun) -> dict[str, np.ndarray]:
    """(step, value) pairs, one a row, by the name of a scalar, from a run's tensorboard
    summaries."""
    points = {name: [] for name in SCALARS}
    for events in sorted((out / "runs" / run_.name).glob("runs/*/*")):
        reader = EventAccumulator(str(events), size_guidance={"scalars": 0})
        reader.Reload()
        for tag in reader.Tags()["scalars"]:
            name = grouped_tag(tag).removeprefix("train/")
            if name not in points:
                continue
            points[name] += [(event.step, event.value) for event in reader.Scalars(tag)]
    return {name: np.array(values).reshape(-1, 2) for name, values in points.items()}


def table_row(row: dict, num_seeds: int) -> list[str]:
    """A scene, learning rate and limit in the table."""
    largest = [
        f"{np.median(list(row[name].values())):.3g} / {max(row[name].values()):.3g}"
        if row[name]
        else GAP
        for name in SCALARS
    ]
    return [
        row["scene"],
        f"{row['lr']:g}",
        f"{row['volume_limit']:g}" if row["volume_limit"] else "none",
        f"{len(row['seeds'])} of {num_seeds}",
        str(sum(figures["setbacks"] > 0 for figures in row["seeds"].values())),
        GAP if row["psnr"] is None else f"{row['psnr']:.2f}",
        *largest,
    ]


def legend_texts(groups: Collection[tuple]) -> dict[tuple, str]:
    """The legend's text for each group; it says the volume's limit where it is none or groups have
    different ones."""
    several = len({limit for _, _, limit in groups}) > 1
    texts = {}
    for scene, lr, limit in groups:
        text = f"{scene}, learning rate {lr:g}"
        if not limit:
            text += ", no limit"
        elif several:
            text += f", limit {limit:g}"
        texts[scene, lr, limit] = text
    return texts


main = Stability().main

if __name__ == "__main__":
    run("experiments.stability", main)
