"""Whether a training step on a device agrees with the CPU's plain model: losses, images, volume,
gradients.

    python -m benchmarks.agreement --preset small --device cuda

Prints the largest difference of each, relative to the largest value, which may be 0.02; of
gradients, that of their norms. Then, over the gradients of single parameters, the largest 1 -
cosine, which may be 0.1, and the largest relative difference of norms, which may be 0.3. Exits with
1 if one is larger.
"""

import sys
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.prepare import PRESETS, add_arithmetic_options, parse_options, training_state
from deep_voxels import Architecture
from machine.cli import Parser, run
from machine.runtime import Machine
from training.options import Learning
from training.recipes import scale_dropout_
from training.step import train_step

PROG = "benchmarks.agreement"
# Batch norm over a few pixels magnifies rounding: gradients of the CPU's two ways differ by 0.006,
# single ones by 0.005 and 0.15; in medium by 0.018, 0.07 and 0.23.
LIMITS = {
    "losses": 0.02,
    "images": 0.02,
    "volume": 0.02,
    "gradients": 0.02,
    "directions": 0.1,
    "norms": 0.3,
}
# A gradient whose norm is below this share of the largest one is only rounding. The bias before the
# softmax has such a gradient.
ZERO = 1e-6


def main(argv: Sequence[str] | None = None) -> None:
    parser = Parser(PROG, __doc__)
    parser.add_argument("--preset", choices=PRESETS, default="small")
    add_arithmetic_options(parser)  # no --graph, which hides what a step computes
    opt = parse_options(parser, argv)
    architecture = PRESETS[opt.preset].architecture
    results, gradients = step_results(architecture, opt.machine)
    plain = Machine(device="cpu", kernels="plain")
    expected, expected_gradients = step_results(architecture, plain)
    differences = {name: relative_difference(results[name], expected[name]) for name in expected}
    differences |= gradient_differences(gradients, expected_gradients)
    for name, difference in differences.items():
        print(f"{name:12} {difference:.1e}")
    if not all(
        differences[name] <= limit for name, limit in LIMITS.items()
    ):  # not a number is no agreement
        sys.exit(1)


def relative_difference(values: Tensor, expected: Tensor) -> float:
    """The largest difference, relative to the largest expected value."""
    return float((values - expected).abs().max() / expected.abs().max())


def gradient_differences(gradients: list[Tensor], expected: list[Tensor]) -> dict[str, float]:
    """How much the gradients of all parameters differ, as the module's docstring says."""
    norms, expected_norms = (
        torch.stack([gradient.norm() for gradient in each]) for each in (gradients, expected)
    )
    counted = expected_norms > ZERO * expected_norms.max()
    cosines = torch.stack(
        [
            F.cosine_similarity(gradient.flatten(), other.flatten(), dim=0)
            for gradient, other in zip(gradients, expected, strict=True)
        ]
    )
    return {
        "gradients": relative_difference(norms, expected_norms),
        "directions": float((1 - cosines[counted]).max()),
        "norms": float((norms / expected_norms - 1)[counted].abs().max()),
    }


def step_results(
    architecture: Architecture, machine: Machine
) -> tuple[dict[str, Tensor], list[Tensor]]:
    """What one step of fresh networks computes, and the gradient of each parameter of the model, on
    the CPU. Without dropout, whose random numbers are each device's."""
    learning = Learning()
    networks, batch, _ = training_state(architecture, learning, machine)
    for network in (networks.model, networks.discriminator):
        scale_dropout_(network, 0.0)
    step = train_step(networks, batch, learning.loss_weights, machine.precision)
    results = {
        "losses": torch.stack(step.losses[:4]),
        "images": step.rendering.images,
        "volume": step.integration.volume,
    }
    return (
        {name: value.detach().float().cpu() for name, value in results.items()},
        [parameter.grad.float().cpu() for parameter in networks.model_parameters],
    )


if __name__ == "__main__":
    run(PROG, main)
