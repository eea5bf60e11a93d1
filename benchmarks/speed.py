"""Seconds and utilisation of a training step and a test frame, against the machine's own matrix-product peak.

    python -m benchmarks.speed --preset small --json speed.json

Utilisation is the GFLOP of the original's arithmetic, fixed for each preset, over time x the peak measured in the
same run (DESIGN, section 8): arithmetic left out counts as speed, and ratios hold across machines.
"""
import argparse
import json
import platform
import resource
import sys
import time
from argparse import Namespace
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import NamedTuple

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from deep_voxels import Architecture, scene_geometry
from pytorch_prototyping.blocks import fold_batch_norms_
from scenes.cameras import look_at
from training import Batch, Networks, build_networks, train_step
from util import SceneIntrinsics


class Preset(NamedTuple):
    """A model's size, and the GFLOP of the original's training step and test frame at that size."""

    architecture: Architecture
    train_gflop: float
    frame_gflop: float


PRESETS = {
    "small": Preset(Architecture(64, 32, 16, 16, 16), 6.6, 1.01),
    "medium": Preset(Architecture(128, 64, 32, 16, 16), 40.5, 6.46),
    "paper": Preset(Architecture(512, 64, 32, 64, 64), 1446, 198),
}
VIEWS_AT_ONCE = 4
MATRIX = 2048
CAMERA_RADIUS = 2.0


def main() -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.speed", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=PRESETS, default="small")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--repeats", type=int, default=15, help="measured runs of each, of which the median counts")
    parser.add_argument("--json", type=Path, help="file for the figures")
    opt = parser.parse_args()
    figures = measure(opt)
    for name, value in figures.items():
        if name == "parts_s":
            print("of a training step:")
            for part, seconds in value.items():
                print(f"  {part:22} {seconds:.4g} s  {seconds / sum(value.values()):4.0%}")
        else:
            print(f"{name:24} {value:.4g}" if isinstance(value, float) else f"{name:24} {value}")
    if opt.json:
        opt.json.write_text(json.dumps(figures, indent=1) + "\n")
    return 0


def measure(opt: Namespace) -> dict:
    """All figures of one preset, in one run."""
    preset, device = PRESETS[opt.preset], torch.device(opt.device)
    torch.manual_seed(0)
    options = Namespace(model="deepvoxels", seed=0, lr=4e-4, compile=opt.compile, **vars(preset.architecture))
    side = preset.architecture.img_sidelength
    intrinsics = SceneIntrinsics(1.8 * side, side / 2, side / 2, (0.0, 0.0, 0.0), CAMERA_RADIUS - 0.9, 1.0, side, side)
    geometry = scene_geometry(intrinsics, preset.architecture, default_near_plane=1.0)
    networks = build_networks(options, geometry, device)
    poses = camera_ring(8).to(device)
    images = torch.rand(3, 3, side, side, device=device) - 0.5
    batch = Batch(images[:1], poses[:1], images[1:], poses[[1, 4]])
    seconds = Stopwatch(device, opt.repeats)

    def train():
        train_step(networks, batch, 200.0, opt.precision)

    def peak_gflops(dtype: torch.dtype) -> float:
        return 2 * MATRIX ** 3 / seconds(matrix_product(MATRIX, dtype, device)) / 1e9

    peaks = [peak_gflops(torch.float32) for _ in range(3)]
    step = seconds(train)
    parts = time_parts(networks, train, device, opt.repeats)
    peaks += [peak_gflops(torch.float32)]
    peak = max(peaks)
    train_gflop = count_gflop(train)
    model = fold_batch_norms_(networks.model.eval())
    with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=opt.precision == "bf16"):
        inpainted = model.inpaint(model.deepvoxels)
        frame = seconds(lambda: model.render(inpainted, poses[:1]))
        batched = seconds(lambda: model.render(inpainted, poses[:VIEWS_AT_ONCE])) / VIEWS_AT_ONCE
        frame_gflop = count_gflop(lambda: model.render(inpainted, poses[:1]))
    memory = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else peak_resident_bytes()
    return {"preset": opt.preset, "device": str(device), "precision": opt.precision, "peak_gflops_fp32": peak,
            f"peak_gflops_{opt.precision}": peak if opt.precision == "fp32" else peak_gflops(torch.bfloat16),
            "train_step_s": step, "frame_s": frame, "frame_batched_s": batched,
            "train_gflop": train_gflop, "frame_gflop": frame_gflop,
            "original_train_gflop": preset.train_gflop, "original_frame_gflop": preset.frame_gflop,
            "train_utilisation": preset.train_gflop / step / peak,
            "frame_utilisation": preset.frame_gflop / batched / peak,
            "peak_memory_gib": memory / 2 ** 30, "parts_s": parts}


class Stopwatch:
    """Median seconds of a call over `repeats` runs, after two that warm up."""

    def __init__(self, device: torch.device, repeats: int):
        self.device, self.repeats = device, repeats

    def __call__(self, call: Callable) -> float:
        times = []
        for _ in range(self.repeats + 2):
            start = time.perf_counter()
            call()
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)
            times.append(time.perf_counter() - start)
        return median(times[2:])


def count_gflop(call: Callable) -> float:
    """The GFLOP of a call's convolutions and matrix products, as torch counts them."""
    with FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops() / 1e9


def time_parts(networks: Networks, step: Callable, device: torch.device, repeats: int) -> dict[str, float]:
    """Median seconds of a training step's parts, by hooks at the networks' borders; what lies between two of them is
    lifting, projection, or losses and backward."""
    model, laps = networks.model, []
    between = {"integration_net": "lifting", "occlusion_net": "projection"}

    def border(name: str) -> Callable:
        def lap(*_) -> None:
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            laps.append((name, time.perf_counter()))
        return lap

    modules = {name: getattr(model, name) for name in ("feature_extractor", "integration_net", "inpainting_net",
                                                       "occlusion_net", "rendering_net")}
    handles = []
    for name, module in {**modules, "discriminator": networks.discriminator}.items():
        handles += [module.register_forward_pre_hook(border(between.get(name, "other"))),
                    module.register_forward_hook(border(name))]
    for optimizer in (networks.model_optimizer, networks.discriminator_optimizer):
        handles += [optimizer.register_step_pre_hook(border("losses and backward")),
                    optimizer.register_step_post_hook(border("optimizers"))]
    runs = []
    for _ in range(repeats):
        laps.clear()
        border("start")()
        step()
        border("other")()
        totals = {}
        for (_, before), (name, after) in pairwise(laps):
            totals[name] = totals.get(name, 0.0) + after - before
        runs.append(totals)
    for handle in handles:
        handle.remove()
    return {name: median(run[name] for run in runs) for name in runs[0]}


def matrix_product(size: int, dtype: torch.dtype, device: torch.device) -> Callable:
    a, b = torch.randn(2, size, size, device=device).to(dtype)
    return lambda: a @ b


def camera_ring(count: int) -> torch.Tensor:
    """Poses on a circle of `CAMERA_RADIUS` above the equator that look at the origin."""
    angles = np.linspace(0, 2 * np.pi, count, endpoint=False)
    centers = CAMERA_RADIUS * np.stack([0.8 * np.cos(angles), 0.8 * np.sin(angles), np.full(count, 0.6)], axis=1)
    return torch.from_numpy(look_at(centers, target=np.zeros(3), up=np.array([0.0, 0.0, 1.0]))).float()


def peak_resident_bytes() -> int:
    """The most memory this process has held so far."""
    unit = 1 if platform.system() == "Darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


if __name__ == "__main__":
    sys.exit(main())
