"""Seconds and utilisation of a training step and a test frame, against the machine's own
matrix-product peak.

    python -m benchmarks.speed --preset small --json speed.json

Utilisation is the GFLOP of the original's arithmetic, fixed for each preset, over time x the peak
measured in the same run (docs/design.md, section 8): saved arithmetic counts as speed, and ratios
hold across machines.
"""

import platform
import resource
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from statistics import median

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
from machine.cli import Parser, run
from machine.runtime import wait_for_device
from training.networks import Networks
from training.options import Learning
from util import write_json

MATRIX = 2048  # large enough that launching the product takes no time
MATRIX_ON_CUDA = 8192


def main(argv: Sequence[str] | None = None) -> None:
    parser = Parser("benchmarks.speed", __doc__)
    parser.add_argument("--preset", choices=PRESETS, default="small")
    add_options(parser, repeats=15)
    parser.add_argument(
        "--optimizer", choices=["adam", "muon"], default="adam", help="as in training"
    )
    parser.add_argument("--json", type=Path, help="file for the measurements")
    opt = parse_options(parser, argv)
    figures = measure_preset(opt)
    for name, value in figures.items():
        if name == "parts_s" and value:
            print("parts of a training step:")
            for part, seconds in value.items():
                print(f"  {part:22} {seconds:.4g} s  {seconds / sum(value.values()):4.0%}")
        else:
            print(f"{name:24} {value:.4g}" if isinstance(value, float) else f"{name:24} {value}")
    if opt.json:
        write_json(opt.json, figures)


def measure_preset(opt: Namespace) -> dict:
    """Measures one preset: seconds, GFLOP, utilisation, and memory in training."""
    preset = PRESETS[opt.preset]
    device = torch.device(opt.machine.device)
    seconds = Stopwatch(device, opt.repeats)
    learning = Learning(optimizer=opt.optimizer)
    networks, train, poses = prepared_step(preset.architecture, learning, opt.machine, opt.graph)

    def peak_gflops(precision: str) -> float:
        torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
        size = MATRIX_ON_CUDA if device.type == "cuda" else MATRIX
        dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        peak = 2 * size**3 / seconds(matrix_product(size, dtype, device)) / 1e9
        torch.backends.cuda.matmul.allow_tf32 = False
        return peak

    peaks = [peak_gflops("fp32") for _ in range(3)]
    step = seconds(train)
    # A graph spans several parts.
    parts = None if opt.compile or opt.graph else time_parts(networks, train, device, opt.repeats)
    memory = (
        torch.cuda.max_memory_allocated(device) if device.type == "cuda" else peak_resident_bytes()
    )
    peaks += [peak_gflops("fp32")]
    peak = max(peaks)
    figures = {
        "preset": opt.preset,
        "device": str(device),
        "precision": opt.precision,
        "compile": opt.compile,
        "graph": opt.graph,
        "peak_gflops_fp32": peak,
        f"peak_gflops_{opt.precision}": peak
        if opt.precision == "fp32"
        else peak_gflops(opt.precision),
        "train_step_s": step,
        "train_gflop": None if opt.graph else count_gflop(train),  # nothing is seen of a graph
        **time_frames(networks.model, poses, seconds, opt.machine),
        "original_train_gflop": preset.train_gflop,
        "original_frame_gflop": preset.frame_gflop,
    }
    return {
        **figures,
        "train_utilisation": preset.train_gflop / step / peak,
        "frame_utilisation": preset.frame_gflop / figures["frame_batched_s"] / peak,
        "peak_memory_gib": memory / 2**30,
        "parts_s": parts,
    }


def time_parts(
    networks: Networks, step: Callable, device: torch.device, repeats: int
) -> dict[str, float]:
    """Median seconds of a training step's parts, by hooks before and after each network. The time
    between networks is that of lifting, projection, or backward (with the losses)."""
    model = networks.model
    laps = []

    def end_of(part: str) -> Callable:
        def lap(*_) -> None:
            wait_for_device(device)
            laps.append((part, time.perf_counter()))

        return lap

    handles = []
    for module, name, before in [
        (model.feature_extractor, "feature extraction", "other"),
        (model.integration_net, "integration", "lifting"),
        (model.inpainting_net, "inpainting", "other"),
        (model.occlusion_net, "occlusion", "projection"),
        (model.rendering_net, "rendering", "other"),
        (networks.discriminator, "discriminator", "other"),
    ]:
        handles += [
            module.register_forward_pre_hook(end_of(before)),
            module.register_forward_hook(end_of(name)),
        ]
    for name, optimizer in networks.optimizers.items():
        handles += [
            optimizer.register_step_pre_hook(
                end_of("backward" if name == "model_optimizer" else "other")
            ),
            optimizer.register_step_post_hook(end_of("optimizers")),
        ]
    runs = []
    for _ in range(repeats):
        laps.clear()
        end_of("start")()
        step()
        end_of("other")()
        totals = {}
        for (_, before), (name, after) in pairwise(laps):
            totals[name] = totals.get(name, 0.0) + after - before
        runs.append(totals)
    for handle in handles:
        handle.remove()
    return {name: median(run[name] for run in runs) for name in runs[0]}


def matrix_product(size: int, dtype: torch.dtype, device: torch.device) -> Callable:
    """A function that multiplies two square matrices."""
    a, b = torch.randn(2, size, size, device=device).to(dtype)
    return lambda: a @ b


def peak_resident_bytes() -> int:
    """The most memory that this process has held."""
    unit = 1 if platform.system() == "Darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


if __name__ == "__main__":
    run("benchmarks.speed", main, sys.argv[1:])
