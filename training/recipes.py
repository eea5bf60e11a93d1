"""Recipes: ways to learn faster with the same networks, each a flag, and the sets of them that `--recipe` names.

    python run_deepvoxels.py --train_test train --data_root SCENE/train --logging_root LOGS --recipe fast

None is in the paper, whose recipe is the default: `paper` leaves every flag at its own default.
"""
import copy

import torch
from torch import nn

RECIPES = {"paper": {}, "fast": {"lr": 1e-3, "lr_decay": 0.5, "dropout": 0.0, "average": 0.99}}


def decayed(lr: float, step: int, total_steps: int, decay: float) -> float:
    """The learning rate of `step` (from 1) of a run whose last share `decay` of steps brings it linearly to 0.

    It is still above 0 in the last step.
    """
    left = (total_steps - step + 1) / total_steps
    return lr if left >= decay else lr * left / decay


def set_learning_rate(lr: float, *optimizers: torch.optim.Optimizer) -> None:
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = lr


def scale_dropout_(model: nn.Module, scale: float) -> nn.Module:
    """Multiplies the model's dropout probabilities; the layers stay, so that the names of its tensors do."""
    for layer in model.modules():
        if isinstance(layer, nn.modules.dropout._DropoutNd):
            layer.p = min(1.0, layer.p * scale)
    return model


class WeightAverage:
    """An exponential moving average of a model over its training steps (Polyak and Juditsky, 1992).

    `model` is a model of its own, whose whole state is averaged: the batch norms' running statistics and the persistent
    volume with the parameters that they belong to.
    """

    def __init__(self, model: nn.Module, decay: float):
        self.model, self.decay = copy.deepcopy(model).eval().requires_grad_(False), decay

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Takes in the model after `step` (from 1). The first steps count for less: they are soon outdated."""
        decay = min(self.decay, (1 + step) / (10 + step))
        pairs = list(zip(self.model.state_dict().values(), model.state_dict().values(), strict=True))
        torch._foreach_lerp_(*zip(*[pair for pair in pairs if pair[0].is_floating_point()], strict=True), 1 - decay)
        for average, newest in pairs:
            if not average.is_floating_point():  # a count of batches
                average.copy_(newest)
