"""Cost of a training step and a test frame over the sizes of the images, the grid and its features,
one at a time.

    python -m benchmarks.scaling --out scaling

Starts from the `small` preset of `benchmarks.speed`. Writes `scaling.json` and `scaling.png`:
seconds and counted GFLOP on logarithmic axes, where time that arithmetic limits runs parallel to
its GFLOP.
"""

import sys
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks.prepare import (
    PRESETS,
    Stopwatch,
    add_options,
    count_gflop,
    parse_options,
    prepared_step,
    time_frames,
)
from deep_voxels import Architecture
from experiments.figures import Curve, Plot, write_plots
from machine.cli import Parser, run
from training.options import Learning
from util import write_json

VALUES = {
    "img_sidelength": [64, 128, 256],
    "grid_dim": [8, 16, 32, 48],
    "num_grid_feats": [8, 16, 32, 64],
}
CURVES = {
    "train_step_s": ("step, seconds", "C0o-"),
    "train_gflop": ("step, GFLOP", "C0o--"),
    "frame_batched_s": ("frame, seconds", "C1o-"),
    "frame_gflop": ("frame, GFLOP", "C1o--"),
}


def main(argv: Sequence[str] | None = None) -> None:
    parser = Parser("benchmarks.scaling", __doc__)
    add_options(parser, repeats=5)
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="folder for scaling.json and .png"
    )
    opt = parse_options(parser, argv)
    opt.out.mkdir(parents=True, exist_ok=True)
    small = PRESETS["small"].architecture
    measured = {}
    results = {}
    plots = []
    for flag, values in VALUES.items():
        for value in values:
            architecture = replace(small, **{flag: value})
            if architecture not in measured:
                measured[architecture] = cost_of_size(architecture, opt)
            results.setdefault(flag, []).append({flag: value, **measured[architecture]})
            print(
                " ".join(
                    f"{name} {number:.4g}"
                    for name, number in results[flag][-1].items()
                    if number is not None
                )
            )
        sizes = [float(value) for value in values]
        curves = [
            Curve(label, sizes, [[result[name]] for result in results[flag]], style)
            for name, (label, style) in CURVES.items()
            if results[flag][0][name] is not None
        ]
        plots.append(Plot("", f"--{flag}", "seconds, GFLOP", curves, log_x=True, log_y=True))
    write_json(
        opt.out / "scaling.json",
        {
            "device": opt.machine.device,
            "precision": opt.precision,
            "compile": opt.compile,
            "threads": torch.get_num_threads(),
            **results,
        },
    )
    write_plots(opt.out / "scaling.png", plots)


def cost_of_size(architecture: Architecture, opt: Namespace) -> dict[str, float | None]:
    """Seconds and GFLOP of a step and a frame of this size."""
    seconds = Stopwatch(torch.device(opt.machine.device), opt.repeats)
    networks, train, poses = prepared_step(architecture, Learning(), opt.machine, opt.graph)
    return {
        "train_step_s": seconds(train),
        "train_gflop": None if opt.graph else count_gflop(train),  # nothing is seen of a graph
        **time_frames(networks.model, poses, seconds, opt.machine),
    }


if __name__ == "__main__":
    run("benchmarks.scaling", main, sys.argv[1:])
