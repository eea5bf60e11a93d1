"""Recipes: ways to learn faster with the same networks. Each is a flag; `--recipe` names presets of
them.

    python run_deepvoxels.py --train_test train --data_root SCENE/train --logging_root LOGS
        --recipe fast

The default is the paper's recipe, `paper`: every flag keeps its own default.
"""

from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

RECIPES = {
    "paper": {},
    "fast": {"optimizer": "muon", "lr": 1e-3, "lr_decay": 0.5, "dropout": 0.0, "average": 0.99},
}


def learning_rate_schedule(
    optimizer: torch.optim.Optimizer, lr: float, decay: float, steps: range
) -> LambdaLR:
    """Holds the learning rate at `lr`, then lowers it linearly to 0 over the last fraction `decay`
    of the steps.

    steps: the range of steps that are left; `steps.start` are done, `steps.stop` is the length of
    the run. The rate depends only on the step and that length, so a resumed run continues exactly,
    and one with another length follows the new schedule.
    """

    def factor(done: int) -> float:
        remaining = max(steps.stop - done, 0) / max(steps.stop, 1)
        return 1.0 if remaining >= decay else remaining / decay

    for group in optimizer.param_groups:
        group["initial_lr"] = lr  # where LambdaLR looks for it if steps were done before
    return LambdaLR(optimizer, factor, last_epoch=steps.start - 1)


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
