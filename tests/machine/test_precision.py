"""What `--precision` changes, and what stays in float32 whatever it says."""

import numpy as np
import pytest
import torch
from torch.overrides import TorchFunctionMode

from machine.runtime import set_arithmetic
from tests.helpers import CPU, arguments, new_training
from training.data import load_batch
from training.step import train_step

IN_FLOAT32 = {"grid_sample", "softmax", "sigmoid", "binary_cross_entropy_with_logits"}


class Dtypes(TorchFunctionMode):
    """The floating-point types that each function of PyTorch is given while this is active."""

    def __init__(self):
        super().__init__()
        self.of = {}

    def __torch_function__(self, function, types, args=(), kwargs=None):
        self.of.setdefault(function.__name__, set()).update(
            value.dtype
            for value in args
            if isinstance(value, torch.Tensor) and value.is_floating_point()
        )
        return function(*args, **(kwargs or {}))


def test_in_bf16_all_but_the_convolutions_is_float32(scene, tmp_path):
    training = new_training(*arguments(scene, tmp_path))
    networks = training.networks
    norm = networks.model.feature_extractor.net[0].downs[0].net[2]
    seen = []
    norm.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach()))
    with Dtypes() as dtypes:
        batch = load_batch(training.scene.on(CPU), np.array([0, 1, 2]))
        step = train_step(networks, batch, 200.0, "bf16")
    assert set(dtypes.of) >= IN_FLOAT32
    for name in IN_FLOAT32:
        assert dtypes.of[name] == {torch.float32}, name
    for kept in (
        *step.losses,
        *step.integration,
        step.rendering.depth,
        networks.model.deepvoxels,
        *networks.model.buffers(),
        *networks.model.parameters(),
        *(
            moment
            for optimizer in networks.optimizers.values()
            for state in optimizer.state.values()
            for moment in state.values()
        ),
    ):
        assert kept.dtype in (torch.float32, torch.int64)
    # Batch norms take what convolutions give, and sum it up in float32.
    assert seen[0].dtype == torch.bfloat16
    torch.testing.assert_close(
        norm.running_mean, 0.1 * seen[0].double().mean(dim=(0, 2, 3)).float()
    )


@pytest.mark.parametrize(
    ("precision", "convolutions"), [("fp32", False), ("tf32", True), ("bf16", False)]
)
def test_tf32_is_for_those_who_ask(precision, convolutions):
    """PyTorch's own default for convolutions is TF32."""
    try:
        set_arithmetic(precision, torch.device("cuda"))
        assert torch.backends.cudnn.allow_tf32 is convolutions
        assert torch.backends.cuda.matmul.allow_tf32 is False
    finally:
        set_arithmetic("fp32", CPU)
