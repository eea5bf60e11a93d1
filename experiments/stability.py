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
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from experiments.command import Groups, Scenes, experiment_parser, parse, run_experiment
from experiments.plan import Run
from experiments.results import GAP, Outcome, gaps, markdown_table, summarize
from machine.cli import Parser, number, run
from util import new_file, one_line, write_json, write_text

PROG = "experiments.stability"
CURVES = {"loop_gain": "gain of the volume's loop", "volume_max": "largest value of the volume"}


def main(argv: Sequence[str] | None = None) -> None:
    args = parse(
        add_arguments(experiment_parser(PROG, __doc__)), argv, reserved={"lr", "volume_limit"}
    )
    run_experiment("stability", args, plan_runs, collect)


def add_arguments(parser: Parser) -> Parser:
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
    return parser


def plan_runs(args: Namespace, scenes: Scenes) -> Groups:
    return {
        (scene, lr, limit): [
            Run(
                scene,
                data,
                f"lr{lr:g}-limit{limit:g}",
                seed,
                flags=("--lr", f"{lr:g}", "--volume_limit", f"{limit:g}"),
            )
            for seed in args.seeds
        ]
        for scene, data in scenes.items()
        for lr in args.learning_rates
        for limit in args.volume_limits
    }


def collect(args: Namespace, scenes: Scenes, groups: Groups, outcome: Outcome) -> None:
    """Writes the picture and the table, from the curves of unfinished runs too."""
    curves = {
        run: read_curves(args.out / "runs" / run.name) for group in groups.values() for run in group
    }
    table = [
        {
            "scene": scene,
            "lr": lr,
            "volume_limit": limit,
            **summarize(group, outcome),
            **{
                name: {
                    str(run.seed): curves[run][name].max(axis=0).tolist()[1]
                    for run in group
                    if len(curves[run][name])
                }
                for name in CURVES
            },
        }
        for (scene, lr, limit), group in groups.items()
    ]
    write_json(
        args.out / "stability.json",
        {"steps": args.steps, "seeds": args.seeds, "flags": args.flags, "rows": table},
    )
    write_text(args.out / "stability.md", table_text(table, args))
    write_picture(args.out / "stability.png", groups, curves)
    print((args.out / "stability.md").read_text(encoding="utf-8"))
    print(f"look at {args.out / 'stability.png'}")


def read_curves(folder: Path) -> dict[str, np.ndarray]:
    """(step, value) pairs, one a row, by the name of a scalar, from a run's tensorboard
    summaries."""
    points = {name: [] for name in CURVES}
    for events in sorted(folder.glob("runs/*/*")):
        reader = EventAccumulator(str(events), size_guidance={"scalars": 0})
        reader.Reload()
        for name in points.keys() & reader.Tags()["scalars"]:
            points[name] += [(event.step, event.value) for event in reader.Scalars(name)]
    return {name: np.array(values).reshape(-1, 2) for name, values in points.items()}


def table_text(table: list[dict], args: Namespace) -> str:
    """A row for each scene, learning rate and limit."""
    rows = [
        [
            row["scene"],
            f"{row['lr']:g}",
            f"{row['volume_limit']:g}" if row["volume_limit"] else "none",
            f"{len(row['seeds'])} of {len(args.seeds)}",
            str(sum(figures["setbacks"] > 0 for figures in row["seeds"].values())),
            GAP if row["psnr"] is None else f"{row['psnr']:.2f}",
            *(
                f"{np.median(list(row[name].values())):.3g} / {max(row[name].values()):.3g}"
                if row[name]
                else GAP
                for name in CURVES
            ),
        ]
        for row in table
    ]
    header = [
        "Scene",
        "Learning rate",
        "Volume limit",
        "Finished",
        "Went back",
        "PSNR",
        *(f"Largest {name} of a run: median / largest" for name in CURVES),
    ]
    return (
        f"{args.steps} steps, seeds {', '.join(map(str, args.seeds))}; flags: "
        f"{' '.join(args.flags) or 'none'}\n\n"
        + markdown_table(header, rows)
        + gaps(
            {
                f"{row['scene']}, lr {row['lr']:g}, limit {row['volume_limit']:g}": row
                for row in table
            }
        )
    )


def write_picture(
    path: Path, groups: dict[tuple, list[Run]], curves: dict[Run, dict[str, np.ndarray]]
) -> None:
    """One line per run: the gain on the left, the volume's largest value on the right; a colour per
    group."""
    from matplotlib.figure import Figure  # takes half a second; only pictures need it

    figure = Figure((14.4, 5.2), dpi=100, layout="constrained")
    names = legend_texts(groups)
    for axes, (name, label) in zip(figure.subplots(1, 2), CURVES.items(), strict=True):
        for number_, (group, runs) in enumerate(groups.items()):
            for run_ in runs:
                axes.plot(
                    *curves[run_][name].T,
                    color=f"C{number_}",
                    linewidth=1,
                    linestyle="-" if group[2] else "--",
                    label=names[group] if run_ is runs[0] else None,
                )
        axes.set(xlabel="step", title=label, yscale="log" if name == "volume_max" else "linear")
        axes.grid(alpha=0.3)
        if name == "loop_gain":
            axes.axhline(1, color="black", linewidth=1)
    figure.legend(
        *figure.axes[0].get_legend_handles_labels(),
        loc="outside lower center",
        ncols=4,
        frameon=False,
    )
    with new_file(path) as file:
        figure.savefig(file, format="png")


def legend_texts(groups: Collection[tuple]) -> dict[tuple, str]:
    """The legend's text for each group; it says the volume's limit where it is none or groups have
    different ones."""
    several = len({limit for _, _, limit in groups}) > 1
    texts = {}
    for scene, lr, limit in groups:
        bound = f", limit {limit:g}" if limit else ", no limit"
        text = f"{one_line(scene)}, learning rate {lr:g}" + (bound if several or not limit else "")
        texts[scene, lr, limit] = text.replace("$", r"\$")
    return texts


if __name__ == "__main__":
    run(PROG, main)
