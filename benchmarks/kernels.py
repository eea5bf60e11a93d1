"""What each CPU kernel gains: seconds of a step and of frames without it over those with all, in turns.

    python -m benchmarks.kernels --preset small --turns 15 --json kernels.json
"""
import json
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median, quantiles
from unittest.mock import patch

import torch
from torch import nn

from benchmarks.speed import PRESETS, VIEWS_AT_ONCE, training
from cli import Parser, number, run
from cpu_kernels import thresholds
from cpu_kernels.accelerate import KERNELS
from cpu_kernels.frames import prepare_for_frames_
from runtime import PRECISIONS, autocast, keep_freed_memory, set_arithmetic

# What is left out: classes that become their parents again, or thresholds at which a kernel never applies.
VARIANTS: dict[str, list | dict[str, float]] = {
    "FewPixels": {"FEW_PIXELS_MAX_PAIRS": 0},
    "Winograd": {"WINOGRAD_MIN_CHANNELS": 2 ** 30},
    "FoldedConv3d": {"FOLDED_MAX_CHANNELS": 0},
    "NormActDropout": {"LEAN_MIN_ELEMENTS": 2 ** 40},
    **{kernel.__name__: [kernel] for kernel in KERNELS
       if kernel.__name__ not in ("FastSequential", "FastConv2d", "FastConvTranspose2d")},
}


@contextmanager
def without(variant: str, *models: nn.Module) -> Iterator[None]:
    left_out = VARIANTS[variant]
    if isinstance(left_out, dict):
        with patch.multiple(thresholds, **left_out):
            yield
        return
    parts = [part for model in models for part in model.modules() if type(part) in left_out]
    kernels = [type(part) for part in parts]
    for part in parts:
        part.__class__ = type(part).__base__
    yield
    for part, kernel in zip(parts, kernels, strict=True):
        part.__class__ = kernel


def main(argv: Sequence[str] | None = None) -> None:
    parser = Parser("benchmarks.kernels", __doc__)
    parser.add_argument("--preset", choices=PRESETS, default="small")
    parser.add_argument("--precision", choices=PRECISIONS, default="fp32")
    parser.add_argument("--turns", type=number(int, 1), default=15)
    parser.add_argument("--calls", type=number(int, 1), default=2, help="calls a turn")
    parser.add_argument("--only", nargs="+", choices=list(VARIANTS), default=list(VARIANTS))
    parser.add_argument("--json", type=Path)
    opt = parser.parse_args(argv)
    device = torch.device("cpu")
    set_arithmetic(opt.precision, device)
    networks, train, poses = training(PRESETS[opt.preset].architecture,
                                      Namespace(device="cpu", precision=opt.precision, compile=False))
    results = {}

    def measure(name: str, call: Callable, *models: nn.Module) -> None:
        for variant in opt.only:
            ratios = []
            for turn in range(opt.turns + 1):
                with_all = seconds(call, opt.calls)
                with without(variant, *models):
                    left_out = seconds(call, opt.calls)
                if turn:
                    ratios.append(left_out / with_all)
            low, _, high = quantiles(ratios, n=4) if len(ratios) > 1 else 3 * ratios
            results.setdefault(variant, {})[name] = [median(ratios), low, high]
            print(f"{opt.preset} {name:8} without {variant:20} {median(ratios):.3f} ({low:.3f} to {high:.3f})",
                  flush=True)

    measure("step", train, networks.model, networks.discriminator)
    model = networks.model.eval()
    networks.model_optimizer.zero_grad()
    with torch.inference_mode(), autocast(opt.precision, device):
        inpainted = model.inpaint(model.deepvoxels)
    keep_freed_memory(everything=True)
    prepare_for_frames_(model)
    with torch.inference_mode(), autocast(opt.precision, device):
        measure("frames", lambda: model.render(inpainted, poses[:VIEWS_AT_ONCE]), model)
        measure("frame", lambda: model.render(inpainted, poses[:1]), model)
    if opt.json:
        opt.json.write_text(json.dumps(results, indent=1) + "\n")


def seconds(call: Callable, calls: int) -> float:
    start = time.perf_counter()
    for _ in range(calls):
        call()
    return (time.perf_counter() - start) / calls


if __name__ == "__main__":
    run("benchmarks.kernels", main, sys.argv[1:])
