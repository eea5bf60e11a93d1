"""What each CPU kernel gains: the time of a step and of frames without it over the time with all,
taken in turns.

    python -m benchmarks.kernels --preset small --json kernels.json

Of each ratio the median and the quartiles over the turns. `frames` is a batch of four, `frame` a
single one. On a busy machine take `OMP_NUM_THREADS=1` and `--cpu_time`. As a processor without
AVX-512 would compute:

    ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 MKL_ENABLE_INSTRUCTIONS=AVX2 \\
        OMP_NUM_THREADS=1 python -m benchmarks.kernels --preset small --cpu_time
"""

import copy
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median, quantiles

import torch
from torch import nn

from benchmarks.prepare import PRESETS, prepared_step
from cpu_kernels import prepare_for_frames_, thresholds
from cpu_kernels.accelerate import KERNELS
from evaluation.render import VIEWS_AT_ONCE
from machine.cli import Parser, number, run
from machine.runtime import PRECISIONS, Machine, autocast, set_arithmetic
from training.options import Learning
from util import write_json

# Kernels that a threshold switches off; the others' layers become their parents again.
BY_THRESHOLD = {
    "few_pixels": {"FEW_PIXELS_MAX_PAIRS": 0},
    "winograd": {"WINOGRAD_MIN_CHANNELS": 2**30},
    "folded_conv3d": {"FOLDED_MAX_CHANNELS": 0},
    "norm_act": {"LEAN_MIN_ELEMENTS": 2**60},
    "weight_gradient": {"COPIED_GRADIENT_MIN_ELEMENTS": 2**60},
}
BY_CLASS = {
    kernel.__name__: kernel
    for kernel in KERNELS
    if kernel.__name__ not in ("FastConv2d", "FastConvTranspose2d", "FastSequential")
}  # those of BY_THRESHOLD
PREPARED = "prepare_for_frames_"


def main(argv: Sequence[str] | None = None) -> None:
    parser = Parser("benchmarks.kernels", __doc__)
    parser.add_argument("--preset", choices=PRESETS, default="small")
    parser.add_argument("--precision", choices=PRECISIONS, default="fp32")
    parser.add_argument(
        "--turns", type=number(int, 2), default=15, help="pairs of measurements (default: 15)"
    )
    parser.add_argument(
        "--calls", type=number(int, 1), default=1, help="calls per measurement (default: 1)"
    )
    parser.add_argument(
        "--cpu_time",
        action="store_true",
        help="measure the process's own time, which other programs hardly change; for one thread",
    )
    parser.add_argument(
        "--only",
        nargs="+",
        choices=[*BY_THRESHOLD, *BY_CLASS, PREPARED],
        metavar="KERNEL",
        help="kernels to leave out (default: each)",
    )
    parser.add_argument("--json", type=Path, help="file for the ratios")
    opt = parser.parse_args(argv)
    results = time_kernels(opt)
    if opt.json:
        write_json(opt.json, results)


def time_kernels(opt: Namespace) -> dict[str, dict[str, list[float]]]:
    """The ratios by kernel and by what is timed: median, lower and upper quartile."""
    device = torch.device("cpu")
    results = {}
    set_arithmetic(opt.precision, device)
    networks, train, poses = prepared_step(
        PRESETS[opt.preset].architecture,
        Learning(ssim_weight=20.0),  # for avg_pool
        Machine(device="cpu", precision=opt.precision),
    )
    parts = (networks.model, networks.discriminator, networks.structure_loss)
    chosen = opt.only or [*BY_THRESHOLD, *BY_CLASS, PREPARED]
    clock = time.process_time if opt.cpu_time else time.perf_counter

    def compare(
        timed: str, kernel: str, call: Callable, other: Callable, *models: nn.Module
    ) -> None:
        ratios = []
        for turn in range(opt.turns + 1):
            with_all = seconds(call, opt.calls, clock)
            with without(kernel, *models):
                ratios.append(seconds(other, opt.calls, clock) / with_all)
            if turn == 0:
                ratios.clear()  # it warms up
        low, _, high = quantiles(ratios, n=4, method="inclusive")
        results.setdefault(kernel, {})[timed] = [median(ratios), low, high]
        print(
            f"{opt.preset} {timed:6} without {kernel:21} {median(ratios):.3f} ({low:.3f} to "
            f"{high:.3f})",
            flush=True,
        )

    for kernel in chosen:
        if kernel != PREPARED:
            compare("step", kernel, train, train, *parts)
    networks.model.zero_grad()
    unprepared = networks.model.eval()
    prepared = prepare_for_frames_(copy.deepcopy(unprepared))
    with torch.inference_mode(), autocast(opt.precision, device):
        inpainted = prepared.inpaint(prepared.deepvoxels)
        for timed, views in [("frames", VIEWS_AT_ONCE), ("frame", 1)]:
            calls = [
                lambda model=model, views=views: model.render(inpainted, poses[:views])
                for model in (prepared, unprepared)
            ]
            for kernel in chosen:
                compare(timed, kernel, calls[0], calls[kernel == PREPARED], prepared)
    return results


@contextmanager
def without(kernel: str, *models: nn.Module) -> Iterator[None]:
    """The models without a kernel, while this is active."""
    if kernel in BY_THRESHOLD:
        changed = thresholds
        values = BY_THRESHOLD[kernel]
        kept = {name: getattr(changed, name) for name in values}
        for name, value in values.items():
            setattr(changed, name, value)
        yield
        for name, value in kept.items():
            setattr(changed, name, value)
        return
    fast = BY_CLASS.get(kernel)
    layers = [layer for model in models for layer in model.modules() if type(layer) is fast]
    for layer in layers:
        layer.__class__ = fast.__base__
    yield
    for layer in layers:
        layer.__class__ = fast


def seconds(call: Callable, calls: int, clock: Callable[[], float]) -> float:
    """Mean seconds of a call."""
    start = clock()
    for _ in range(calls):
        call()
    return (clock() - start) / calls


if __name__ == "__main__":
    run("benchmarks.kernels", main, sys.argv[1:])
