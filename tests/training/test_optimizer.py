"""The optimizers as training uses them, on weights of any memory layout: PyTorch's fused Adam pairs
the wrong numbers where a moment or a gradient is laid out in memory otherwise than its weight."""

import copy
from pathlib import Path

import pytest
import torch

from checkpoints import load_optimizer
from deep_voxels import SIZES, DeepVoxels
from tests.helpers import GEOMETRY, assert_same
from training.muon import (
    COEFFICIENTS,
    ITERATIONS,
    STEP,
    Muon,
    inverse_roots,
    kernels_of,
    orthogonalized,
)
from training.networks import make_optimizers

CHANNELS_LAST = torch.channels_last
CONTIGUOUS = torch.contiguous_format


def convolution(layout: torch.memory_format) -> torch.nn.Conv2d:
    conv = torch.nn.Conv2d(6, 8, 3, bias=False)
    conv.weight.data = (
        torch.linspace(-1, 1, 8 * 6 * 9).view(8, 6, 3, 3).contiguous(memory_format=layout)
    )
    return conv


def adam(conv: torch.nn.Conv2d) -> torch.optim.Optimizer:
    return make_optimizers(conv, torch.nn.Linear(1, 1), 0.1, "adam")["model_optimizer"]


def muon(conv: torch.nn.Conv2d) -> torch.optim.Optimizer:
    return Muon([conv.weight], 0.1)


def take_steps(
    conv: torch.nn.Conv2d, optimizer: torch.optim.Optimizer, layout: torch.memory_format
) -> None:
    for step in range(3):
        optimizer.zero_grad()
        factor = torch.linspace(-1, 2, conv.weight.numel()).sub(step).view_as(conv.weight)
        (conv.weight * factor.contiguous(memory_format=layout)).sum().backward()
        optimizer.step()


@pytest.mark.parametrize("layout", [CHANNELS_LAST, CONTIGUOUS])
@pytest.mark.parametrize("gradient_layout", [CHANNELS_LAST, CONTIGUOUS])
@pytest.mark.parametrize("checkpoint_layout", [CHANNELS_LAST, CONTIGUOUS])
def test_it_is_adam_in_every_memory_layout(layout, gradient_layout, checkpoint_layout):
    conv = convolution(layout)
    plain = convolution(CONTIGUOUS)
    optimizer = adam(conv)
    expected = torch.optim.Adam(plain.parameters(), 0.1, fused=False)
    take_steps(conv, optimizer, gradient_layout)
    take_steps(plain, expected, CONTIGUOUS)
    state = optimizer.state_dict()
    for name in ("exp_avg", "exp_avg_sq"):
        state["state"][0][name] = state["state"][0][name].contiguous(
            memory_format=checkpoint_layout
        )
    resumed = adam(conv)
    load_optimizer(resumed, state, Path("checkpoint.pth"))
    take_steps(conv, resumed, gradient_layout)
    take_steps(plain, expected, CONTIGUOUS)
    torch.testing.assert_close(conv.weight, plain.weight)
    assert conv.weight.is_contiguous(memory_format=layout)


@pytest.mark.parametrize("layout", [CHANNELS_LAST, CONTIGUOUS])
@pytest.mark.parametrize("gradient_layout", [CHANNELS_LAST, CONTIGUOUS])
def test_it_is_muon_in_every_memory_layout(layout, gradient_layout):
    """And resumed after three steps it goes on as if it had not stopped."""
    conv = convolution(layout)
    plain = convolution(CONTIGUOUS)
    optimizer = muon(conv)
    expected = muon(plain)
    take_steps(conv, optimizer, gradient_layout)
    resumed = muon(conv)
    load_optimizer(resumed, optimizer.state_dict(), Path("checkpoint.pth"))
    take_steps(conv, resumed, gradient_layout)
    for _ in range(2):
        take_steps(plain, expected, CONTIGUOUS)
    torch.testing.assert_close(conv.weight, plain.weight)
    assert conv.weight.is_contiguous(memory_format=layout)


@pytest.mark.parametrize("make", [adam, muon])
def test_a_step_changes_nothing_where_a_number_is_not_finite(make):
    conv = convolution(CHANNELS_LAST)
    optimizer = make(conv)
    take_steps(conv, optimizer, CHANNELS_LAST)
    before = copy.deepcopy((conv.weight, optimizer.state_dict()["state"]))
    optimizer.found_inf = torch.ones(())
    conv.weight.grad = torch.full_like(conv.weight, float("nan"))
    optimizer.step()
    assert_same(before, (conv.weight, optimizer.state_dict()["state"]), "a skipped step")


@pytest.mark.parametrize("shape", [(6, 4, 3, 3), (40, 4, 3, 3), (4, 2, 3, 3, 3), (1, 9, 3, 3, 3)])
def test_muon_sets_singular_values_to_about_one(shape):
    """They are those of its polynomial, along the singular vectors of each kernel, whatever stands
    beside it."""
    torch.manual_seed(0)
    kernels = [
        torch.randn(shape, dtype=torch.float64),
        1e-9 * torch.randn(shape, dtype=torch.float64),
    ]
    rows = shape[0]
    longer_side = max(rows, kernels[0].numel() // rows)
    results = orthogonalized(kernels, longer_side**-0.5)
    for kernel, result in zip(kernels, results, strict=True):
        u, values, vt = torch.linalg.svd(kernel.flatten(1), full_matrices=False)
        values = values / values.norm()
        large = values > 0.02
        for _ in range(ITERATIONS):
            values = sum(
                factor * values**power
                for factor, power in zip(COEFFICIENTS, (1, 3, 5), strict=True)
            )
        torch.testing.assert_close(result.flatten(1), u @ values.diag() @ vt)
        assert values[large].min() > 0.68 and values.max() < 1.21 and large.sum() > 0.9 * len(large)


@pytest.mark.parametrize("decades", [1, 4])
def test_the_iteration_bears_the_bfloat16_of_cuda(decades):
    """Over spectra of up to four decades."""
    torch.manual_seed(0)
    u, _ = torch.linalg.qr(torch.randn(64, 64))
    v, _ = torch.linalg.qr(torch.randn(256, 64))
    matrix = (u * torch.logspace(0, -decades, 64)) @ v.T
    exact, rounded = (
        (inverse_roots((m @ m.T)[None])[0] @ m).float() for m in (matrix, matrix.bfloat16())
    )
    assert 0 < (rounded - exact).norm() < 0.05 * exact.norm()


def test_a_step_of_muon_is_as_long_as_the_learning_rate_says():
    """For every kernel, however small its gradient. One of zeros changes nothing."""
    torch.manual_seed(0)
    kernels = [torch.nn.Parameter(torch.zeros(16, 8, 4, 4)) for _ in range(3)]
    gradient = torch.randn_like(kernels[0])
    for kernel, size in zip(kernels, (1e3, 1e-6, 0.0), strict=True):
        kernel.grad = size * gradient
    Muon(kernels, 0.01).step()
    lengths = [float(kernel.detach().square().mean().sqrt()) for kernel in kernels]
    assert lengths[0] == pytest.approx(lengths[1])
    assert 0.68 < lengths[0] / (0.01 * STEP) < 1.21
    assert lengths[2] == 0


def test_the_gru_and_the_visibility_are_left_to_adam():
    """MUON shut the GRU's gates and killed its proposals, so that no photo changed the volume any
    more."""
    model = DeepVoxels(SIZES["small"], GEOMETRY)
    muons = kernels_of(model)
    left = {
        name
        for name, parameter in model.named_parameters()
        if parameter.ndim > 1 and not any(parameter is kernel for kernel in muons)
    }
    gru = {
        f"integration_net.{name}.weight"
        for name, _ in model.integration_net.named_modules()
        if name.endswith(".1")
    }
    assert len(gru) == 6
    assert left == {*gru, "occlusion_net.softmax_net.0.net.1.weight"}
