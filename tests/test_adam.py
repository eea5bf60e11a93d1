"""Adam on weights of any memory layout."""
from pathlib import Path

import pytest
import torch

from checkpoints import load_optimizer
from cpu_kernels.adam import Adam

CHANNELS_LAST, CONTIGUOUS = torch.channels_last, torch.contiguous_format


def weight(layout: torch.memory_format) -> torch.Tensor:
    values = torch.linspace(-1, 1, 8 * 6 * 9).view(8, 6, 3, 3)
    return values.contiguous(memory_format=layout).requires_grad_()


def take_steps(optimizer: torch.optim.Optimizer, layout: torch.memory_format) -> None:
    (parameter,) = optimizer.param_groups[0]["params"]
    for step in range(3):
        gradient = torch.linspace(-1, 2, parameter.numel()).sub(step).view_as(parameter)
        parameter.grad = gradient.contiguous(memory_format=layout)
        optimizer.step()


@pytest.mark.parametrize("layout", [CHANNELS_LAST, CONTIGUOUS])
@pytest.mark.parametrize("of_gradient", [CHANNELS_LAST, CONTIGUOUS])
@pytest.mark.parametrize("of_moments", [CHANNELS_LAST, CONTIGUOUS])
def test_adam_is_pytorchs_in_every_memory_layout(layout, of_gradient, of_moments):
    ours, plain = weight(layout), weight(CONTIGUOUS)
    optimizer, expected = Adam([ours], 0.1), torch.optim.Adam([plain], 0.1, fused=False)
    take_steps(optimizer, of_gradient)
    take_steps(expected, CONTIGUOUS)
    state = optimizer.state_dict()
    for name in ("exp_avg", "exp_avg_sq"):
        state["state"][0][name] = state["state"][0][name].contiguous(memory_format=of_moments)
    resumed = Adam([ours], 0.1)
    load_optimizer(resumed, state, Path("checkpoint.pth"))
    take_steps(resumed, of_gradient)
    take_steps(expected, CONTIGUOUS)
    torch.testing.assert_close(ours, plain)
    assert ours.is_contiguous(memory_format=layout)


def test_adam_changes_nothing_where_a_number_is_not_finite():
    parameter = weight(CHANNELS_LAST)
    optimizer = Adam([parameter], 0.1)
    optimizer.found_inf = torch.ones(())
    take_steps(optimizer, CHANNELS_LAST)
    assert torch.equal(parameter, weight(CONTIGUOUS))
    assert optimizer.state[parameter]["step"] == 0


def test_adam_copies_nothing():
    parameter = weight(CHANNELS_LAST)
    optimizer = Adam([parameter], 0.1)
    take_steps(optimizer, CHANNELS_LAST)
    with torch.profiler.profile() as profile:
        optimizer.step()
    assert "aten::_fused_adam_" in (names := {event.name for event in profile.events()})
    assert "aten::clone" not in names
