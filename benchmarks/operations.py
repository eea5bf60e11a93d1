"""Which operations a training step's time goes to: PyTorch's profiler over some steps.

    python -m benchmarks.operations --preset paper --device cuda --precision bf16 --optimizer muon

Prints the operations that take most of the device's time. Many `copy_` or kernels that change a
layout mean that a layer does not keep channels-last.
"""

import sys
from collections.abc import Sequence

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.prepare import PRESETS, add_arithmetic_options, parse_options, prepared_step
from machine.cli import Parser, run
from training.options import Learning

PROG = "benchmarks.operations"
STEPS = 3
ROWS = 40


def main(argv: Sequence[str] | None = None) -> None:
    parser = Parser(PROG, __doc__)
    parser.add_argument("--preset", choices=PRESETS, default="small")
    add_arithmetic_options(parser)
    parser.add_argument(
        "--optimizer", choices=["adam", "muon"], default="adam", help="as in training"
    )
    opt = parse_options(parser, argv)
    learning = Learning(optimizer=opt.optimizer)
    _, step, _ = prepared_step(PRESETS[opt.preset].architecture, learning, opt.machine)
    on_cuda = opt.machine.device.startswith("cuda")
    for _ in range(STEPS):  # libraries choose their algorithms
        step()
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_cuda else [])]
    with profile(activities=activities) as profiler:
        for _ in range(STEPS):
            step()
        if on_cuda:
            torch.cuda.synchronize()
    order = "self_cuda_time_total" if on_cuda else "self_cpu_time_total"
    print(profiler.key_averages().table(sort_by=order, row_limit=ROWS, max_name_column_width=60))


if __name__ == "__main__":
    run(PROG, main, sys.argv[1:])
