"""What training changes: the model, the discriminator, their optimizers, and the average of the
model's weights."""

from dataclasses import dataclass, field

import torch
from torch import nn
from torch.optim import Optimizer

from baselines import build_model
from cpu_kernels import accelerate_
from deep_voxels import Architecture
from losses import PatchDiscriminator, StructureLoss
from machine.ranks import ALONE, Ranks
from machine.runtime import Machine, channels_last_, compile_for_training, uses_cpu_kernels
from projection import SceneGeometry
from training.guard import RunningStatistics
from training.muon import Muon, kernels_of
from training.options import Learning
from training.recipes import WeightAverage, scale_dropout_


@dataclass
class Networks:
    """The networks of a run. Lists that need a walk over all modules, which takes milliseconds, are
    made once.

    architecture: that of the model. optimizers: by their names in a checkpoint. average: the moving
    average of the model, with `--average`. ranks: the processes that train copies of these
    networks, with one state. structure_loss: a module without parameters, so that its layer can be
    a CPU kernel or plain. found_inf: 1 if the last step was skipped, else 0.
    """

    model: nn.Module
    discriminator: PatchDiscriminator
    architecture: Architecture
    optimizers: dict[str, Optimizer]
    average: WeightAverage | None = None
    ranks: Ranks = ALONE
    structure_loss: StructureLoss = field(default_factory=StructureLoss)

    def __post_init__(self):
        self.model_parameters = trainable_parameters(self.model)
        self.discriminator_parameters = trainable_parameters(self.discriminator)
        self.running_statistics = RunningStatistics(self.model, self.discriminator)
        self.found_inf = torch.zeros(
            (), dtype=torch.float32, device=next(self.discriminator.parameters()).device
        )
        for optimizer in self.optimizers.values():
            optimizer.found_inf = self.found_inf


def trainable_parameters(network: nn.Module) -> list[nn.Parameter]:
    """The parameters that are not frozen (`requires_grad_(False)`)."""
    return [parameter for parameter in network.parameters() if parameter.requires_grad]


def build_networks(
    architecture: Architecture,
    geometry: SceneGeometry,
    learning: Learning,
    machine: Machine,
    ranks: Ranks = ALONE,
) -> Networks:
    """New networks, initialised from `--seed`, and their optimizers."""
    device = torch.device(machine.device)
    torch.manual_seed(learning.seed)
    model = build_model(learning.model, architecture, geometry).to(device)
    discriminator = PatchDiscriminator().to(device)
    structure_loss = StructureLoss()
    for network in (model, discriminator, structure_loss):
        channels_last_(network)
        if uses_cpu_kernels(machine.kernels, device, machine.compile):
            accelerate_(network)
    scale_dropout_(model, learning.dropout)
    ranks.spread_dropout_(model, discriminator)
    average = WeightAverage(model, learning.average) if learning.average else None
    if machine.compile:
        compile_for_training(model, discriminator)
    optimizers = make_optimizers(model, discriminator, learning.lr, learning.optimizer)
    return Networks(model, discriminator, architecture, optimizers, average, ranks, structure_loss)


def make_optimizers(
    model: nn.Module, discriminator: nn.Module, lr: float, optimizer: str
) -> dict[str, Optimizer]:
    """Optimizers by their names in a checkpoint: ADAM (Kingma and Ba, 2015), or MUON for the
    model's kernels if `optimizer` is "muon".

    An optimizer whose attribute `found_inf`, a tensor, is 1 changes nothing in its next step. The
    optimizers of `Networks` share one.
    """
    kernels = kernels_of(model) if optimizer == "muon" else []
    others = [
        parameter
        for parameter in model.parameters()
        if not any(parameter is kernel for kernel in kernels)
    ]
    optimizers = {
        "model_optimizer": torch.optim.Adam(others, lr, fused=True),
        "discriminator_optimizer": torch.optim.Adam(discriminator.parameters(), lr, fused=True),
    }
    if kernels:
        optimizers["kernel_optimizer"] = Muon(kernels, lr)
    return optimizers
