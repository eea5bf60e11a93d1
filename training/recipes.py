"""Recipes: ways to learn faster with the same networks. Each is a flag; `--recipe` names presets of
them.

    python run_deepvoxels.py --train_test train --data_root SCENE/train --logging_root LOGS
        --recipe fast

The default is the paper's recipe, `paper`: every flag keeps its own default.
"""

from collections.abc import Iterable
from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

RECIPES = {
    "paper": {},
    "fast": {
        "optimizer": "muon",
        "lr": 1e-3,
        "lr_decay": 0.5,
        "dropout": 0.0,
        "average": 0.99,
        "ssim_weight": 20.0,
        "turn_roll": 15.0,
        "turn_tilt": 2.0,
    },
}


class LearningRate:
    """The learning rate of all optimizers: `lr`, then lowered linearly to 0 over the last fraction
    `decay` of the steps.

    steps: the range of steps that are left; `steps.start` are done, `steps.stop` is the length of
    the run. The rate depends only on the step and that length, so a resumed run continues exactly,
    and one with another length follows the new schedule.

    The optimizers share one tensor, which is written in place, so that a CUDA graph of a step would
    follow it (docs/gpu.md).
    """

    def __init__(self, optimizers: Iterable[Optimizer], lr: float, decay: float, steps: range):
        self._lr = lr
        self._decay = decay
        self._length = steps.stop
        groups = [group for optimizer in optimizers for group in optimizer.param_groups]
        device = groups[0]["params"][0].device
        # Fused ADAM reads it as float64 on a CPU, as float32 elsewhere.
        dtype = torch.float64 if device.type == "cpu" else torch.float32
        self._value = torch.zeros((), dtype=dtype, device=device)
        for group in groups:
            group["lr"] = self._value
        self.set_after(steps.start)

    def set_after(self, done: int) -> None:
        """Sets the rate of the step after `done` steps."""
        remaining = max(self._length - done, 0) / max(self._length, 1)
        factor = 1.0 if remaining >= self._decay else remaining / self._decay
        self._value.fill_(self._lr * factor)


def scale_dropout_(model: nn.Module, scale: float) -> nn.Module:
    """Multiplies the model's dropout probabilities, up to 1. The layers stay, so its tensors keep
    their names."""
    for layer in model.modules():
        if isinstance(layer, (nn.Dropout, nn.Dropout2d, nn.Dropout3d)):
            layer.p = min(1.0, layer.p * scale)
    return model


class WeightAverage:
    """An exponential moving average of a model over its training steps (Polyak and Juditsky, 1992):
    `module`.

    The whole state is averaged: parameters, batch-norm statistics and the persistent volume belong
    together. `torch.optim.swa_utils.AveragedModel` does the same, but keeps its counter in a tensor
    and so waits for the device.
    """

    def __init__(self, model: nn.Module, decay: float):
        self.module = deepcopy(model).eval().requires_grad_(False)
        self.decay = decay

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Includes the model after `step`, counted from 1. Early in training the average decays
        faster, because the first weights are soon outdated."""
        decay = min(self.decay, (1 + step) / (10 + step))
        pairs = list(zip(_tensors(self.module), _tensors(model), strict=True))
        averaged = [pair for pair in pairs if pair[0].is_floating_point()]
        copied = [pair for pair in pairs if not pair[0].is_floating_point()]  # num_batches_tracked
        torch._foreach_lerp_(*zip(*averaged, strict=True), 1 - decay)
        if copied:
            torch._foreach_copy_(*zip(*copied, strict=True))


def _tensors(model: nn.Module) -> list[Tensor]:
    return [*model.parameters(), *model.buffers()]
