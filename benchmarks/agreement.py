"""Whether a training step on a device agrees with the CPU's plain model: losses, images, volume, gradients.

    python -m benchmarks.agreement --preset small --device cuda

Prints the largest difference of each, relative to the largest value; exits with 1 if one is above 0.02.
"""
import sys
from argparse import Namespace
from collections.abc import Sequence

import torch
from torch import Tensor

from benchmarks.speed import PRESETS, add_options, training_state
from cli import Parser, run
from training.recipes import scale_dropout_
from training.step import train_step

PROG = "benchmarks.agreement"
TOLERANCE = 0.02  # batch norm over a few pixels magnifies rounding: gradients of the CPU's two ways differ by 0.006


def main(argv: Sequence[str] | None = None) -> None:
    parser = Parser(PROG, __doc__)
    parser.add_argument("--preset", choices=PRESETS, default="small")
    add_options(parser, repeats=1)
    opt = parser.parse_args(argv)
    on_device = step_results(opt)
    opt.device, opt.compile, opt.precision, opt.kernels = "cpu", False, "fp32", "plain"
    differences = {name: float((on_device[name] - expected).abs().max() / expected.abs().max())
                   for name, expected in step_results(opt).items()}
    for name, difference in differences.items():
        print(f"{name:12} {difference:.1e}")
    if not all(difference <= TOLERANCE for difference in differences.values()):  # not a number is no agreement
        sys.exit(1)


def step_results(opt: Namespace) -> dict[str, Tensor]:
    """What one step of fresh networks computes, on the CPU. Without dropout, whose random numbers are each device's."""
    networks, batch, _ = training_state(PRESETS[opt.preset].architecture, opt)
    for network in (networks.model, networks.discriminator):
        scale_dropout_(network, 0.0)
    step = train_step(networks, batch, 200.0, opt.precision)
    norms = torch.stack([parameter.grad.norm() for parameter in networks.model_parameters])
    results = {"losses": torch.stack(step.losses[:4]), "images": step.rendering.images,
               "volume": step.integration.volume, "gradients": norms}
    return {name: value.detach().float().cpu() for name, value in results.items()}


if __name__ == "__main__":
    run(PROG, main)
