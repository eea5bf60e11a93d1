"""What training changes: the model, the discriminator, their optimizers, and the average of the model's weights."""
from argparse import Namespace
from dataclasses import dataclass

import torch
from torch import nn

from baselines import build_model
from cpu_kernels import accelerate_
from deep_voxels import architecture_of
from losses import PatchDiscriminator
from processes import ALONE, Ranks
from projection import SceneGeometry
from runtime import channels_last_, compile_for_training, uses_cpu_kernels
from training.guard import RunningStatistics
from training.recipes import WeightAverage, scale_dropout_


@dataclass
class Networks:
    """The networks of a run. Lists that need a walk over all modules, which takes milliseconds, are made once.

    setbacks: how often training went back to a checkpoint; each halves the learning rate. seconds: of training, without
    pauses, until the last save. ranks: the processes that train copies of these networks, with one state.
    """

    model: nn.Module
    discriminator: PatchDiscriminator
    model_optimizer: torch.optim.Adam
    discriminator_optimizer: torch.optim.Adam
    average: WeightAverage | None = None
    setbacks: int = 0
    seconds: float = 0.0
    ranks: Ranks = ALONE

    def __post_init__(self):
        self.model_parameters = list(self.model.parameters())
        self.discriminator_parameters = list(self.discriminator.parameters())
        self.running_statistics = RunningStatistics(self.model, self.discriminator)

    @property
    def optimizers(self) -> tuple[torch.optim.Adam, torch.optim.Adam]:
        return self.model_optimizer, self.discriminator_optimizer


def build_networks(opt: Namespace, geometry: SceneGeometry, device: torch.device, ranks: Ranks = ALONE) -> Networks:
    """New networks, initialised from `--seed`, and their optimizers."""
    torch.manual_seed(opt.seed)
    networks = build_model(opt.model, architecture_of(opt), geometry).to(device), PatchDiscriminator().to(device)
    for network in networks:
        channels_last_(network)
        if uses_cpu_kernels(opt.kernels, device, opt.compile):
            accelerate_(network)
    scale_dropout_(networks[0], opt.dropout)
    ranks.spread_dropout_(*networks)
    average = WeightAverage(networks[0], opt.average) if opt.average else None
    if opt.compile:
        compile_for_training(*networks)
    optimizers = [make_optimizer(network, opt.lr) for network in networks]
    return Networks(*networks, *optimizers, average, ranks=ranks)


def make_optimizer(network: nn.Module, lr: float) -> torch.optim.Adam:
    """ADAM (Kingma and Ba, 2015), fused: where its attribute `found_inf`, a tensor, is 1, a step changes nothing."""
    return torch.optim.Adam(network.parameters(), lr, fused=True)
