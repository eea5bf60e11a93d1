"""What `--precision` changes, and what stays in float32 whatever it says."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch.overrides import TorchFunctionMode

from losses import LossWeights
from machine import runtime
from machine.runtime import set_arithmetic
from run_deepvoxels import main
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
        step = train_step(networks, batch, LossWeights(ssim=20.0), "bf16")
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


def test_auto_is_fp32_where_bfloat16_is_not_multiplied_faster():
    """On a processor of AVX2, as PyTorch and oneDNN take it when told to."""
    limits = {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"}
    program = "from machine.runtime import fastest_precision; fastest_precision('cpu')"
    command = [sys.executable, "-c", program]
    done = subprocess.run(
        command, env={**os.environ, **limits}, capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("precision: fp32; products of bfloat16 take ")


def test_auto_is_decided_once_and_recorded(scene, tmp_path, monkeypatch, capsys):
    seconds = {torch.float32: 3.0, torch.bfloat16: 1.0}
    monkeypatch.setattr(runtime, "_seconds_of_product", lambda dtype, device: seconds[dtype])
    command = arguments(scene, tmp_path, "--precision", "auto")
    assert main([*command, "--max_steps", "1"]) == 0
    (checkpoint,) = tmp_path.glob("logs/*/*/model-*.pth")
    options = torch.load(checkpoint, weights_only=False)["options"]
    assert options["precision"] == "bf16"
    assert (
        "precision: bf16; products of bfloat16 take 0.33 times as long" in capsys.readouterr().out
    )

    seconds[torch.bfloat16] = 4.0
    assert main([*command, "--max_steps", "2", "--resume", str(checkpoint)]) == 0
    assert "precision=bf16" in capsys.readouterr().out
