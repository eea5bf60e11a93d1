"""What benchmarks share: sizes, options, networks with a batch and a step, and the clock."""

import time
from argparse import Namespace
from collections.abc import Callable, Sequence
from functools import partial
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
from machine.cli import Parser, number
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
    wait_for_device,
)
from training.data import Batch
from training.networks import Networks, build_networks
from training.options import PROGRESS_EVERY, Learning
from training.step import train_step
from util import InputError


class Preset(NamedTuple):
    """A model's size, and the GFLOP of the original's training step and test frame at this size."""

    architecture: Architecture
    train_gflop: float
    frame_gflop: float


PRESETS = {
    "small": Preset(SIZES["small"], 6.6, 1.01),
    "medium": Preset(SIZES["medium"], 40.5, 6.46),
    "large": Preset(SIZES["large"], 303, 37.7),  # counted from this code's plain layers
    "paper": Preset(SIZES["paper"], 1446, 198),
}
CAMERA_RADIUS = 2.0


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
    keep_freed_memory()
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
            wait_for_device(self.device)
            times.append((time.perf_counter() - start) / self.calls)
        return median(times[2:])


def count_gflop(call: Callable) -> float:
    """The GFLOP of a call's convolutions and matrix products, counted by torch."""
    with FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops() / 1e9


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
