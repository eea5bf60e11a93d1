"""Adam as training uses it, on weights of any memory layout: PyTorch's fused one pairs the wrong numbers where a moment
or a gradient is laid out in memory otherwise than its weight."""
from pathlib import Path

import pytest
import torch

from checkpoints import load_optimizer
from training.networks import make_optimizer

CHANNELS_LAST, CONTIGUOUS = torch.channels_last, torch.contiguous_format


def convolution(layout: torch.memory_format) -> torch.nn.Conv2d:
    conv = torch.nn.Conv2d(6, 8, 3, bias=False)
    conv.weight.data = torch.linspace(-1, 1, 8 * 6 * 9).view(8, 6, 3, 3).contiguous(memory_format=layout)
    return conv


def take_steps(conv: torch.nn.Conv2d, optimizer: torch.optim.Optimizer, layout: torch.memory_format) -> None:
    for step in range(3):
        optimizer.zero_grad()
        factor = torch.linspace(-1, 2, conv.weight.numel()).sub(step).view_as(conv.weight)
        (conv.weight * factor.contiguous(memory_format=layout)).sum().backward()
        optimizer.step()


@pytest.mark.parametrize("layout", [CHANNELS_LAST, CONTIGUOUS])
@pytest.mark.parametrize("gradient_layout", [CHANNELS_LAST, CONTIGUOUS])
@pytest.mark.parametrize("checkpoint_layout", [CHANNELS_LAST, CONTIGUOUS])
def test_it_is_adam_in_every_memory_layout(layout, gradient_layout, checkpoint_layout):
    conv, plain = convolution(layout), convolution(CONTIGUOUS)
    optimizer, expected = make_optimizer(conv, 0.1), torch.optim.Adam(plain.parameters(), 0.1, fused=False)
    take_steps(conv, optimizer, gradient_layout)
    take_steps(plain, expected, CONTIGUOUS)
    state = optimizer.state_dict()
    for name in ("exp_avg", "exp_avg_sq"):
        state["state"][0][name] = state["state"][0][name].contiguous(memory_format=checkpoint_layout)
    resumed = make_optimizer(conv, 0.1)
    load_optimizer(resumed, state, Path("checkpoint.pth"))
    take_steps(conv, resumed, gradient_layout)
    take_steps(plain, expected, CONTIGUOUS)
    torch.testing.assert_close(conv.weight, plain.weight)
    assert conv.weight.is_contiguous(memory_format=layout)


def test_a_step_changes_nothing_where_a_number_is_not_finite():
    conv = convolution(CHANNELS_LAST)
    optimizer = make_optimizer(conv, 0.1)
    optimizer.found_inf = torch.ones(())
    take_steps(conv, optimizer, CHANNELS_LAST)
    assert torch.equal(conv.weight, convolution(CONTIGUOUS).weight)
    assert optimizer.state[conv.weight]["step"] == 0
