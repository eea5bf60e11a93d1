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
from functools import partial
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import NamedTuple

import numpy as np
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from cpu_kernels import prepare_for_frames_
from data_util import SceneIntrinsics
from dataio import scene_geometry
from deep_voxels import SIZES, Architecture
from evaluation.render import VIEWS_AT_ONCE
from geometry.cameras import look_at
from machine.cli import Parser, number, run
from machine.ranks import ALONE, Ranks
from machine.runtime import (
    PRECISIONS,
    Machine,
    autocast,
    choose_device,
    keep_freed_memory,
    require_compiler,
    set_arithmetic,
    uses_cpu_kernels,
)
from training.data import Batch
from training.networks import Networks, build_networks
from training.options import PROGRESS_EVERY, Learning
from training.step import train_step
from util import InputError, write_json


class Preset(NamedTuple):
    """A model's size, and the GFLOP of the original's training step and test frame at this size."""

    architecture: Architecture
    train_gflop: float
    frame_gflop: float


PRESETS = {
    "small": Preset(SIZES["small"], 6.6, 1.01),
    "medium": Preset(SIZES["medium"], 40.5, 6.46),
    "paper": Preset(SIZES["paper"], 1446, 198),
}
MATRIX = {"cpu": 2048, "cuda": 8192}  # large enough that launching the product takes no time
CAMERA_RADIUS = 2.0


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


def add_arithmetic_options(parser: Parser) -> None:
    """Device, precision and compilation, without a graph."""
    parser.add_shared("device")
    parser.add_argument("--precision", choices=PRECISIONS, default="fp32")
    parser.add_argument("--compile", action="store_true")
    parser.set_defaults(graph=False)


def add_options(parser: Parser, repeats: int) -> None:
    """The options of every speed benchmark."""
    add_arithmetic_options(parser)
    parser.add_argument(
        "--graph", action="store_true", help="on CUDA, take the training step as one CUDA graph"
    )
    parser.add_argument(
        "--repeats",
        type=number(int, 1),
        default=repeats,
        help=f"runs of each measurement, whose median is reported (default: {repeats})",
    )


def parse_options(parser: Parser, argv: Sequence[str] | None) -> Namespace:
    """The options, with the `machine` that they name, and PyTorch's arithmetic set. Raises
    `InputError` for what the device has not."""
    opt = parser.parse_args(argv)
    device = choose_device(opt.device)
    if opt.compile:
        require_compiler(device)
    if opt.graph and not device.startswith("cuda"):
        raise InputError(f"--graph: --device {device} has no graphs, only CUDA has")
    set_arithmetic(opt.precision, torch.device(device))
    opt.machine = Machine(device=device, precision=opt.precision, compile=opt.compile)
    return opt


def measure_preset(opt: Namespace) -> dict:
    """Measures one preset: seconds, GFLOP, utilisation, and memory in training."""
    preset = PRESETS[opt.preset]
    device = torch.device(opt.machine.device)
    seconds = Stopwatch(device, opt.repeats)
    learning = Learning(optimizer=opt.optimizer)
    networks, train, poses = prepared_step(preset.architecture, learning, opt.machine, opt.graph)

    def peak_gflops(precision: str) -> float:
        torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
        size = MATRIX[device.type]
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


def prepared_step(
    architecture: Architecture, learning: Learning, machine: Machine, graph: bool = False
) -> tuple[Networks, Callable, torch.Tensor]:
    """Fresh networks of this size, a function that trains them for one step, and poses to
    render."""
    networks, batch, poses = training_state(architecture, learning, machine)
    step = partial(train_step, networks, batch, learning.loss_weights, machine.precision)
    return networks, as_graph(step, networks) if graph else step, poses


def training_state(
    architecture: Architecture, learning: Learning, machine: Machine
) -> tuple[Networks, Batch, torch.Tensor]:
    """Fresh networks of this size, a batch for them, and poses to render; from one seed on every
    device."""
    device = torch.device(machine.device)
    side = architecture.img_sidelength
    keep_freed_memory(everything=machine.precision == "bf16")
    torch.manual_seed(0)
    networks = fresh_networks(architecture, learning, machine)
    poses = camera_ring(8).to(device)
    images = (torch.rand(3, 3, side, side) - 0.5).to(device)
    return networks, Batch(images[:1], poses[:1], images[1:], poses[[1, 4]]), poses


def fresh_networks(
    architecture: Architecture, learning: Learning, machine: Machine, ranks: Ranks = ALONE
) -> Networks:
    """Networks of this size for a scene that the cameras of `camera_ring` see."""
    side = architecture.img_sidelength
    intrinsics = SceneIntrinsics(
        1.8 * side, side / 2, side / 2, (0.0, 0.0, 0.0), CAMERA_RADIUS - 0.9, 1.0, side, side
    )
    geometry = scene_geometry(
        intrinsics, architecture.grid_dim, architecture.proj_sidelength, default_near_plane=1.0
    )
    return build_networks(architecture, geometry, learning, machine, ranks)


def as_graph(step: Callable, networks: Networks) -> Callable:
    """The step as one CUDA graph: its kernels are launched together, without Python in between."""
    for optimizer in networks.optimizers.values():
        for group in optimizer.param_groups:
            group["capturable"] = True
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):  # libraries choose their algorithms before the capture
            step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay


def time_frames(
    model: nn.Module, poses: torch.Tensor, seconds: "Stopwatch", machine: Machine
) -> dict[str, float]:
    """Seconds and GFLOP of a frame, alone as a viewer renders it and in batches as
    evaluation/render.py does. GFLOP are counted uncompiled. The model cannot be trained
    afterwards."""
    keep_freed_memory(everything=True)
    model.eval()
    if uses_cpu_kernels("auto", poses.device, machine.compile):
        prepare_for_frames_(model)
    with torch.inference_mode(), autocast(machine.precision, poses.device):
        inpainted = model.inpaint(model.deepvoxels)
        render = torch.compile(model.render) if machine.compile else model.render
        return {
            "frame_s": seconds(lambda: render(inpainted, poses[:1])),
            "frame_batched_s": seconds(lambda: render(inpainted, poses[:VIEWS_AT_ONCE]))
            / VIEWS_AT_ONCE,
            "frame_gflop": count_gflop(lambda: model.render(inpainted, poses[:1])),
        }


class Stopwatch:
    """Median seconds of a call over `repeats` runs, after two to warm up. On CUDA a run is
    `PROGRESS_EVERY` calls, as training waits for the device only that often."""

    def __init__(self, device: torch.device, repeats: int):
        self.device = device
        self.repeats = repeats
        self.calls = PROGRESS_EVERY if device.type == "cuda" else 1

    def __call__(self, call: Callable) -> float:
        times = []
        for _ in range(self.repeats + 2):
            start = time.perf_counter()
            for _ in range(self.calls):
                call()
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)
            times.append((time.perf_counter() - start) / self.calls)
        return median(times[2:])


def count_gflop(call: Callable) -> float:
    """The GFLOP of a call's convolutions and matrix products, counted by torch."""
    with FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops() / 1e9


def time_parts(
    networks: Networks, step: Callable, device: torch.device, repeats: int
) -> dict[str, float]:
    """Median seconds of a training step's parts, by hooks before and after each network. The time
    between networks is that of lifting, projection, or backward (with the losses)."""
    model = networks.model
    laps = []

    def end_of(part: str) -> Callable:
        def lap(*_) -> None:
            if device.type == "cuda":
                torch.cuda.synchronize(device)
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


def camera_ring(count: int) -> torch.Tensor:
    """Camera-to-world poses on a circle above the equator, `CAMERA_RADIUS` from the origin, which
    they look at."""
    angles = np.linspace(0, 2 * np.pi, count, endpoint=False)
    centers = CAMERA_RADIUS * np.stack(
        [0.8 * np.cos(angles), 0.8 * np.sin(angles), np.full(count, 0.6)], axis=1
    )
    return torch.from_numpy(
        look_at(centers, target=np.zeros(3), up=np.array([0.0, 0.0, 1.0]))
    ).float()


def peak_resident_bytes() -> int:
    """The most memory that this process has held."""
    unit = 1 if platform.system() == "Darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


if __name__ == "__main__":
    run("benchmarks.speed", main, sys.argv[1:])
