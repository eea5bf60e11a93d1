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
from dataclasses import replace
from pathlib import Path

from data_util import list_poses, sampled_views
from deep_voxels import SIZES
from experiments.figures import Curve, Plot, write_plots
from experiments.plan import OUT, SceneData, StudyRun
from experiments.results import cell, gaps, markdown_table, measures_heading
from experiments.study import Collected, Groups, Scenes, Study
from machine.cli import Parser, number, run

X_LABELS = {"images": "training images", "grid": "voxels per side", "noise": "pose noise (degrees)"}
BASE = "base"  # the variant that changes nothing: one run for all studies


class Sensitivity(Study):
    name = "sensitivity"
    table = "sensitivity"
    doc = __doc__
    reserved = frozenset({"sampling_pattern"})

    def add_flags(self, parser: Parser) -> None:
        parser.add_argument(
            "--studies",
            nargs="+",
            choices=list(X_LABELS),
            default=list(X_LABELS),
            help="default: all",
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

    def plan_runs(self, args: Namespace, scenes: Scenes) -> Groups:
        groups = {}
        for study in args.studies:
            for scene, data in scenes.items():
                for x in values_of(args, study):
                    groups[study, scene, x] = [
                        varied(StudyRun(scene, data, BASE, seed), study, x, args.flags)
                        for seed in args.seeds
                    ]
        return groups

    def tables(self, collected: Collected) -> tuple[dict, str]:
        studies = points_by_study(collected)
        measures = collected.measures
        rows = []
        by_name = {}
        for study, scenes in studies.items():
            for scene, points in scenes.items():
                for value, point in zip(values_of(collected.args, study), points, strict=True):
                    shown = f"{point['x']:g}"
                    if study == "images":  # several --skip may keep as many views
                        shown += f" (--skip {value})"
                    rows.append([scene, X_LABELS[study], shown, cell(point, measures)])
                    by_name[f"{scene}, {X_LABELS[study]} {shown}"] = point
        header = ["Scene", "Varied", "Value", measures_heading(measures)]
        text = markdown_table(header, rows) + gaps(by_name, measures)
        content = {
            study: {"x": X_LABELS[study], "scenes": scenes} for study, scenes in studies.items()
        }
        return {"studies": content}, text

    def draw(self, collected: Collected) -> None:
        """Writes a plot for each study."""
        title = f"PSNR after {collected.args.steps} steps"
        for study, scenes in points_by_study(collected).items():
            curves = [
                psnr_curve(scene, points)
                for scene, points in scenes.items()
                if any(point["seeds"] for point in points)
            ]
            plots = [Plot(title, X_LABELS[study], "PSNR (dB)", curves)] if curves else []
            write_plots(collected.args.out / f"{study}.png", plots)


def values_of(args: Namespace, study: str) -> list[int] | list[float]:
    """The values that a study compares, in ascending order on its x axis."""
    if study == "images":
        return sorted(set(args.skip), reverse=True)
    return sorted(set(args.grid_dims if study == "grid" else args.degrees))


def points_by_study(collected: Collected) -> dict[str, dict[str, list[dict]]]:
    """The summaries of a study's runs with their place on its x axis, by study and scene."""
    args = collected.args
    return {
        study: {
            scene: [
                {"x": place_on_axis(study, data, x), **collected.summary((study, scene, x))}
                for x in values_of(args, study)
            ]
            for scene, data in collected.scenes.items()
        }
        for study in args.studies
    }


def place_on_axis(study: str, data: SceneData, x: int | float) -> int | float:
    """A value's place on the x axis: for `images`, the number of views kept."""
    if study != "images":
        return x
    return len(sampled_views(len(list_poses(data.train / "pose")), f"skip_{x}"))


def varied(base: StudyRun, study: str, x: int | float, flags: list[str]) -> StudyRun:
    """The run of one value of a study; `base` if the value changes nothing. flags: the study's for
    run_deepvoxels.py."""
    if study == "images":
        if x == 0:
            return base
        return replace(base, variant=f"skip_{x}", flags=("--sampling_pattern", f"skip_{x}"))
    if study == "grid":
        if x == usual_grid_dim(flags):
            return base
        return replace(base, variant=f"grid_{x}", flags=("--grid_dim", str(x)))
    return base if x == 0 else noisy(base, x)


def usual_grid_dim(flags: list[str]) -> int:
    """The number of voxels per side that these flags of run_deepvoxels.py set."""
    parser = Parser("experiments.sensitivity", None, allow_abbrev=False)
    parser.add_argument("--size", choices=list(SIZES), default="paper")
    parser.add_argument("--grid_dim", type=int)
    given, _ = parser.parse_known_args(flags)
    return given.grid_dim or SIZES[given.size].grid_dim


def noisy(base: StudyRun, degrees: float) -> StudyRun:
    """A run on a noisy copy of the training views, which it makes. No held-out views to validate
    with lie beside the copy."""
    copy = Path(OUT, "scenes", f"{base.scene}-noise_{degrees:g}-seed{base.seed}", "train")
    words = ["-m", "scenes.noise", "--scene", base.data.train, "--out", copy]
    words += ["--degrees", degrees, "--seed", base.seed]
    return replace(
        base,
        data=base.data._replace(train=copy),
        variant=f"noise_{degrees:g}",
        flags=("--validate_every", "0"),
        prepare=tuple(map(str, words)),
    )


def psnr_curve(scene: str, points: list[dict]) -> Curve:
    """The PSNR of each finished seed at every point."""
    return Curve(
        scene,
        [float(point["x"]) for point in points],
        [[seed["psnr"] for seed in point["seeds"].values()] for point in points],
    )


main = Sensitivity().main

if __name__ == "__main__":
    run("experiments.sensitivity", main)
