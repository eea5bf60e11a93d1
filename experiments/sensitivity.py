"""Sensitivity of DeepVoxels to the number of training images, the size of its grid and errors in
the poses.

    python -m experiments.sensitivity --scenes data/cube --steps 3000
        --out results/sensitivity --size small

Each study varies one setting and keeps the others: `images` uses every (N+1)-th training view
(--skip), `grid` varies the number of voxels per side (--grid_dims), `noise` rotates the training
cameras at random (--degrees; scenes.noise), differently for each seed. Writes sensitivity.md and
sensitivity.json, and plots: images.png, grid.png and noise.png. Repeating the command runs what is
missing. A failed run is a gap in table and plot.
"""

from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from data_util import list_poses
from dataio import sampled_views
from deep_voxels import SIZES
from experiments.command import Groups, Scenes, experiment_parser, parse, run_experiment
from experiments.plan import OUT, Run, SceneData
from experiments.plot import Curve, Plot, write_plots
from experiments.results import Outcome, cell, gaps, markdown_table, summarize
from machine.cli import Parser, number, run
from util import write_json, write_text

PROG = "experiments.sensitivity"
X_LABELS = {"images": "training images", "grid": "voxels per side", "noise": "pose noise (degrees)"}
BASE = "base"  # the variant that changes nothing: one run for all studies


def main(argv: Sequence[str] | None = None) -> None:
    args = parse(
        add_arguments(experiment_parser(PROG, __doc__)), argv, reserved={"sampling_pattern"}
    )
    run_experiment("sensitivity", args, plan_runs, collect)


def plan_runs(args: Namespace, scenes: Scenes) -> Groups:
    return {
        (study, scene, x): [STUDIES[study](args, scene, data, x, seed) for seed in args.seeds]
        for study in args.studies
        for scene, data in scenes.items()
        for x in values(args, study)
    }


def collect(args: Namespace, scenes: Scenes, groups: Groups, outcome: Outcome) -> None:
    """Writes the table and the plots."""
    studies = {
        study: {
            scene: [
                {"x": shown_x(study, data, x), **summarize(groups[study, scene, x], outcome)}
                for x in values(args, study)
            ]
            for scene, data in scenes.items()
        }
        for study in args.studies
    }
    write_json(
        args.out / "sensitivity.json",
        {
            "steps": args.steps,
            "seeds": args.seeds,
            "flags": args.flags,
            "studies": {
                study: {"x": X_LABELS[study], "scenes": points} for study, points in studies.items()
            },
        },
    )
    write_text(args.out / "sensitivity.md", table_text(studies, args))
    print((args.out / "sensitivity.md").read_text(encoding="utf-8"))
    for study, points in studies.items():
        write_plot(args.out / f"{study}.png", study, points, args.steps)


def table_text(studies: dict[str, dict[str, list[dict]]], args: Namespace) -> str:
    """A row for each study, scene and value."""

    def shown(
        study: str, value: int | float, point: dict
    ) -> str:  # several --skip may keep as many views
        return f"{point['x']:g}" + (f" (--skip {value})" if study == "images" else "")

    points = {
        (scene, X_LABELS[study], shown(study, value, point)): point
        for study, scenes in studies.items()
        for scene, line in scenes.items()
        for value, point in zip(values(args, study), line, strict=True)
    }
    return (
        f"Test views after {args.steps} steps, mean over the seeds "
        f"{', '.join(map(str, args.seeds))}; "
        f"flags: {' '.join(args.flags) or 'none'}\n\n"
        + markdown_table(
            ["Scene", "Varied", "Value", "PSNR / SSIM"],
            [[*names, cell(point)] for names, point in points.items()],
        )
        + gaps(
            {f"{scene}, {label} {value}": point for (scene, label, value), point in points.items()}
        )
    )


def write_plot(path: Path, study: str, points: dict[str, list[dict]], steps: int) -> None:
    """Writes a study's curves and says where. If no run is done, a plot of an earlier call is
    removed."""
    curves = [
        psnr_curve(scene, line)
        for scene, line in points.items()
        if any(point["seeds"] for point in line)
    ]
    if curves:
        write_plots(path, [Plot(f"PSNR after {steps} steps", X_LABELS[study], "PSNR (dB)", curves)])
        print(f"look at {path}")
    else:
        path.unlink(missing_ok=True)


def add_arguments(parser: Parser) -> Parser:
    parser.add_argument(
        "--studies", nargs="+", choices=list(STUDIES), default=list(STUDIES), help="default: all"
    )
    parser.add_argument(
        "--skip",
        type=number(int, 0),
        nargs="+",
        default=[0, 1, 3],
        metavar="N",
        help="training views to leave out after each one kept (default: 0 1 3)",
    )
    parser.add_argument(
        "--grid_dims",
        type=number(int, 1),
        nargs="+",
        default=[8, 16, 32],
        metavar="D",
        help="voxels per side (default: 8 16 32)",
    )
    parser.add_argument(
        "--degrees",
        type=number(float, 0),
        nargs="+",
        default=[0, 1, 3],
        metavar="DEG",
        help="standard deviation of the cameras' rotation (default: 0 1 3)",
    )
    return parser


def values(args: Namespace, study: str) -> list[int] | list[float]:
    """The values that a study compares, in ascending order on its x axis."""
    return {
        "images": sorted(set(args.skip), reverse=True),
        "grid": sorted(set(args.grid_dims)),
        "noise": sorted(set(args.degrees)),
    }[study]


def images_run(args: Namespace, scene: str, data: SceneData, skip: int, seed: int) -> Run:
    if skip == 0:
        return Run(scene, data, BASE, seed)
    return Run(scene, data, f"skip_{skip}", seed, flags=("--sampling_pattern", f"skip_{skip}"))


def grid_run(args: Namespace, scene: str, data: SceneData, grid_dim: int, seed: int) -> Run:
    flags = Parser(PROG, None, allow_abbrev=False)
    flags.add_argument("--size", choices=list(SIZES), default="paper")
    flags.add_argument("--grid_dim", type=int)
    given, _ = flags.parse_known_args(args.flags)
    if grid_dim == (given.grid_dim or SIZES[given.size].grid_dim):
        return Run(scene, data, BASE, seed)
    return Run(scene, data, f"grid_{grid_dim}", seed, flags=("--grid_dim", str(grid_dim)))


def noise_run(args: Namespace, scene: str, data: SceneData, degrees: float, seed: int) -> Run:
    """On a noisy copy of the training views, which the run makes; no held-out views to validate
    with lie beside it."""
    if degrees == 0:
        return Run(scene, data, BASE, seed)
    copy = Path(OUT, "scenes", f"{scene}-noise_{degrees:g}-seed{seed}", "train")
    prepare = (
        "-m",
        "scenes.noise",
        "--scene",
        str(data.train),
        "--out",
        str(copy),
        "--degrees",
        str(degrees),
        "--seed",
        str(seed),
    )
    return Run(
        scene,
        data._replace(train=copy),
        f"noise_{degrees:g}",
        seed,
        flags=("--validate_every", "0"),
        prepare=prepare,
    )


STUDIES = {"images": images_run, "grid": grid_run, "noise": noise_run}


def shown_x(study: str, data: SceneData, x: int | float) -> int | float:
    """A value's place on the x axis: for `images`, the number of views kept."""
    if study != "images":
        return x
    return len(sampled_views(len(list_poses(data.train / "pose")), f"skip_{x}"))


def psnr_curve(scene: str, points: list[dict]) -> Curve:
    """The PSNR of each finished seed at every point."""
    return Curve(
        scene,
        [float(point["x"]) for point in points],
        [[seed["psnr"] for seed in point["seeds"].values()] for point in points],
    )


if __name__ == "__main__":
    run(PROG, main)
