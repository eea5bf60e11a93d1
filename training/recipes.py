"""Recipes: ways to learn faster with the same networks. Each is a flag; `--recipe` names presets of
them.

    python run_deepvoxels.py --train_test train --data_root SCENE/train --logging_root LOGS
        --recipe fast

The default is the paper's recipe, `paper`: every flag keeps its own default.
"""

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

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


class WeightAverage(AveragedModel):
    """An exponential moving average of a model over its training steps (Polyak and Juditsky, 1992):
    `module`.

    The whole state is averaged: parameters, batch-norm statistics and the persistent volume belong
    together.
    """

    def __init__(self, model: nn.Module, decay: float):
        super().__init__(model, multi_avg_fn=self._average, use_buffers=True)
        self.decay = decay
        self.eval().requires_grad_(False)

    def update(self, model: nn.Module, step: int) -> None:
        """Includes the model after `step`, counted from 1. Early in training the average decays
        faster, because the first weights are soon outdated."""
        self.n_averaged.fill_(step)
        self.update_parameters(model)

    def _average(self, averages: list[Tensor], newest: list[Tensor], _) -> None:
        """Updates tensors of one dtype in place."""
        if averages[0].is_floating_point():
            step = int(self.n_averaged)
            get_ema_multi_avg_fn(min(self.decay, (1 + step) / (10 + step)))(averages, newest, None)
        else:  # numbers of batches
            for average, new in zip(averages, newest, strict=True):
                average.copy_(new)
