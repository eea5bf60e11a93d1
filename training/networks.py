"""What training changes: the model, the discriminator, their optimizers, and the average of the
model's weights."""

from argparse import Namespace
from dataclasses import dataclass

import torch
from torch import nn
from torch.optim import Optimizer

from baselines import build_model
from cpu_kernels import accelerate_
from deep_voxels import architecture_of
from losses import PatchDiscriminator
from machine.ranks import ALONE, Ranks
from machine.runtime import channels_last_, compile_for_training, uses_cpu_kernels
from projection import SceneGeometry
from training.guard import RunningStatistics
from training.muon import Muon, kernels_of
from training.recipes import WeightAverage, scale_dropout_


@dataclass
class Networks:
    """The networks of a run. Lists that need a walk over all modules, which takes milliseconds, are
    made once.

    optimizers: by their names in a checkpoint. setbacks: how often training went back to a
    checkpoint; each halves the learning rate. skipped_in_a_row: how many steps right before the
    last save were skipped. seconds: of training, without pauses, until the last save. ranks: the
    processes that train copies of these networks, with one state.
    """

    model: nn.Module
    discriminator: PatchDiscriminator
    optimizers: dict[str, Optimizer]
    average: WeightAverage | None = None
    setbacks: int = 0
    skipped_in_a_row: int = 0
    seconds: float = 0.0
    ranks: Ranks = ALONE

    def __post_init__(self):
        self.model_parameters = learned(self.model)
        self.discriminator_parameters = learned(self.discriminator)
        self.running_statistics = RunningStatistics(self.model, self.discriminator)


def learned(network: nn.Module) -> list[nn.Parameter]:
    """The parameters that are not frozen (`requires_grad_(False)`)."""
    return [parameter for parameter in network.parameters() if parameter.requires_grad]


def build_networks(
    opt: Namespace, geometry: SceneGeometry, device: torch.device, ranks: Ranks = ALONE
) -> Networks:
    """New networks, initialised from `--seed`, and their optimizers."""
    torch.manual_seed(opt.seed)
    networks = (
        build_model(opt.model, architecture_of(opt), geometry).to(device),
        PatchDiscriminator().to(device),
    )
    for network in networks:
        channels_last_(network)
        if uses_cpu_kernels(opt.kernels, device, opt.compile):
            accelerate_(network)
    scale_dropout_(networks[0], opt.dropout)
    ranks.spread_dropout_(*networks)
    average = WeightAverage(networks[0], opt.average) if opt.average else None
    if opt.compile:
        compile_for_training(*networks)
    return Networks(
        *networks, make_optimizers(*networks, opt.lr, opt.optimizer), average, ranks=ranks
    )


def make_optimizers(
    model: nn.Module, discriminator: nn.Module, lr: float, optimizer: str
) -> dict[str, Optimizer]:
    """Optimizers by their names in a checkpoint: ADAM (Kingma and Ba, 2015), but MUON for the
    model's kernels if `optimizer` says so. Where the attribute `found_inf` of one, a tensor, is 1,
    a step changes nothing."""
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
    return optimizers | ({"kernel_optimizer": Muon(kernels, lr)} if kernels else {})
