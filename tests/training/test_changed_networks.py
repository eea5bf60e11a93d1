"""Training goes on with a model that somebody has changed: parameters that get no gradient, or are
frozen, stay as they are, and what does not know the change says nothing."""

import pytest
import torch

from custom_layers import IntegrationNet
from tests.helpers import (
    arguments,
    assert_same,
    checkpoints,
    final_checkpoint,
    new_training,
    resume,
    run,
)
from training.stability import loop_gain


def average(net: IntegrationNet, observation, state):
    """In place of the GRU. Its convolutions stay, and get no gradient."""
    return 0.5 * state + 0.5 * observation, None, None


@pytest.mark.parametrize("recipe", ["paper", "fast"])
def test_a_forward_that_leaves_parameters_without_gradients_trains_and_resumes(
    recipe, scene, tmp_path, monkeypatch
):
    monkeypatch.setattr(IntegrationNet, "forward", average)
    # The CPU kernel that stands for this forward would say that it is left out.
    settings = ["--recipe", recipe, "--log_every", 1, "--kernels", "plain"]
    assert run(*arguments(scene, tmp_path / "whole", *settings, "--max_steps", 4)) == 0
    assert run(*arguments(scene, tmp_path / "parts", *settings, "--max_steps", 2)) == 0
    (half,) = checkpoints(tmp_path / "parts")
    assert run(*resume(tmp_path / "parts", "--max_steps", 4)) == 0
    _, whole = final_checkpoint(tmp_path / "whole", 4)
    _, parts = final_checkpoint(tmp_path / "parts", 4)
    before = torch.load(half, weights_only=True)["model"]
    for part in ("model", "discriminator", "model_optimizer"):
        if recipe == "paper":  # a decay over the last steps depends on how many there are
            assert_same(parts[part], whole[part])
    unused = "integration_net.old_integration.1.weight"
    assert torch.equal(whole["model"][unused], before[unused])
    used = "feature_extractor.net.1.out_layer.0.net.1.weight"
    assert not torch.equal(whole["model"][used], before[used])


def test_frozen_parameters_stay(scene, tmp_path, monkeypatch):
    init = IntegrationNet.__init__

    def frozen(net, *args):
        init(net, *args)
        net.requires_grad_(False)

    monkeypatch.setattr(IntegrationNet, "__init__", frozen)
    command = arguments(scene, tmp_path, "--recipe", "fast", "--max_steps", 2)
    start = new_training(*command).networks.model.state_dict()
    assert run(*command) == 0
    end = final_checkpoint(tmp_path, 2)[1]["model"]
    changed = {name.split(".")[0] for name in end if not torch.equal(start[name], end[name])}
    assert "integration_net" not in changed
    assert {"feature_extractor", "inpainting_net", "rendering_net"} <= changed


def test_the_gain_is_said_only_of_a_loop_that_is_known():
    net = IntegrationNet(num_features=5, grid_dim=4)
    assert loop_gain(net) > 0
    assert loop_gain(None) is None
    assert loop_gain(torch.nn.Identity()) is None
    net.old_integration[1] = torch.nn.Conv3d(5, 5, 3)
    assert loop_gain(net) is None
    del net.old_integration
    assert loop_gain(net) is None
