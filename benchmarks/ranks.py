"""Seconds of a training step on one process and on several that share its target views, taken in
turns.

    OMP_NUM_THREADS=1 torchrun --standalone --nproc_per_node 2 -m benchmarks.ranks
        --sizes small medium --targets 2 4

One process takes A + B v seconds for v targets: A is what every rank does again (source view,
volume, inpainting, updates), B what the ranks share (projection, occlusion, rendering,
discriminator). N ranks take A + B v / N, the averaging, and what they slow each other down. Medians
over the turns.
"""

import sys
import time
from argparse import Namespace
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

import numpy as np
import torch

from benchmarks.prepare import camera_ring, fresh_networks
from deep_voxels import SIZES
from losses import LossWeights
from machine.cli import Parser, number, run
from machine.ranks import ALONE, Ranks, joined
from machine.runtime import Machine, keep_freed_memory, set_arithmetic
from training.data import Batch
from training.options import Learning
from training.step import train_step
from util import InputError, write_json

WARM_UP = 2  # turns that are not counted
ON_CPU = Machine(device="cpu")


def main(argv: Sequence[str] | None = None) -> None:
    parser = Parser("benchmarks.ranks", __doc__)
    parser.add_argument("--sizes", nargs="+", choices=list(SIZES), default=["small", "medium"])
    parser.add_argument(
        "--targets", nargs="+", type=number(int, 1, 64), default=[2, 4], help="default: 2 4"
    )
    parser.add_argument(
        "--turns", type=number(int, 1), default=15, help="measurements of each (default: 15)"
    )
    parser.add_argument("--json", type=Path, help="file for the medians")
    with joined() as ranks:
        opt = ranks.from_first(lambda: parse_ranks_options(parser, argv, ranks))
        set_arithmetic("fp32", torch.device("cpu"))
        keep_freed_memory()
        figures = {size: step_times(size, opt, ranks) for size in opt.sizes}
        print(f"medians of {opt.turns} turns, {torch.get_num_threads()} threads a process; ms")
        print(medians_table(figures, ranks.count))
        if opt.json and ranks.first:
            write_json(
                opt.json,
                {
                    "ranks": ranks.count,
                    "threads": torch.get_num_threads(),
                    "turns": opt.turns,
                    "seconds": figures,
                },
            )


def parse_ranks_options(parser: Parser, argv: Sequence[str] | None, ranks: Ranks) -> Namespace:
    """Raises `InputError` for what cannot be measured."""
    opt = parser.parse_args(argv)
    if ranks.count == 1:
        raise InputError(
            "needs several processes: torchrun --standalone --nproc_per_node 2 -m benchmarks.ranks"
        )
    for targets in opt.targets:
        if targets % ranks.count:
            raise InputError(
                f"--targets {targets}: must be a multiple of the {ranks.count} processes"
            )
    return opt


def step_times(size: str, opt: Namespace, ranks: Ranks) -> dict[str, dict[str, float] | float]:
    """Seconds of a step on one process ("1 rank") and on all by number of targets, and of one
    averaging."""
    numbers = sorted({1, *opt.targets})
    alone = {targets: make_step(size, targets, ALONE) for targets in numbers} if ranks.first else {}
    together = {targets: make_step(size, targets, ranks) for targets in sorted(set(opt.targets))}
    networks = fresh_networks(SIZES[size], Learning(), ON_CPU)
    shared = [
        torch.zeros_like(tensor)
        for tensor in [
            *networks.model_parameters,
            *networks.discriminator_parameters,
            networks.model.deepvoxels,
        ]
    ]
    times = (
        {("alone", n): [] for n in numbers}
        | {("together", n): [] for n in together}
        | {("averaging", 0): []}
    )
    for turn in range(opt.turns + WARM_UP):
        for (what, targets), taken in times.items():
            ranks.largest(0)  # all begin at once; the others wait here while the first is alone
            start = time.perf_counter()
            if what == "together":
                together[targets]()
            elif what == "averaging":
                ranks.average_(shared)
            elif ranks.first:
                alone[targets]()
            if turn >= WARM_UP:
                taken.append(time.perf_counter() - start)
    medians = {key: median(taken) for key, taken in times.items()}
    spread, replicated = np.polyfit(numbers, [medians["alone", n] for n in numbers], 1)
    return {
        "1 rank": {str(n): medians["alone", n] for n in numbers},
        f"{ranks.count} ranks": {str(n): medians["together", n] for n in together},
        "replicated": float(replicated),
        "of each target": float(spread),
        "averaging": medians["averaging", 0],
    }


def make_step(size: str, targets: int, ranks: Ranks) -> Callable[[], object]:
    """A function that takes a training step with this rank's share of the targets."""
    side = SIZES[size].img_sidelength
    networks = fresh_networks(SIZES[size], Learning(), ON_CPU, ranks)
    poses = camera_ring(targets + 1)
    images = torch.rand(targets + 1, 3, side, side) - 0.5
    batch = Batch(images[:1], poses[:1], ranks.share(images[1:]), ranks.share(poses[1:]))
    return lambda: train_step(networks, batch, LossWeights())


def medians_table(figures: dict[str, dict], count: int) -> str:
    """The medians in ms as a table for the documentation."""
    lines = [
        f"| size | targets | 1 rank | {count} ranks | ratio | replicated | of each target | "
        "averaging |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for size, seconds in figures.items():
        split = " | ".join(
            f"{1000 * seconds[part]:.0f}" for part in ("replicated", "of each target", "averaging")
        )
        for targets, together in seconds[f"{count} ranks"].items():
            alone = seconds["1 rank"][targets]
            lines.append(
                f"| {size} | {targets} | {1000 * alone:.0f} | {1000 * together:.0f} | "
                f"{alone / together:.2f} | {split} |"
            )
    return "\n".join(lines)


if __name__ == "__main__":
    run("benchmarks.ranks", main, sys.argv[1:])
