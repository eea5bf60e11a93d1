"""Training steps in float64, in one process or in each of several that torchrun starts, for
tests/machine/test_torchrun.py.

    torchrun --nproc_per_node 2 -m tests.ranks_worker OUT WORDS...

In float32 rounding would decide: ADAM's first steps follow the signs of gradients, of which some
are zero but for it.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dataio import draw_triplets
from machine.ranks import Ranks, joined
from run_deepvoxels import resolve_options
from training.data import Batch, load_batch, load_training_scene
from training.networks import Networks, build_networks
from training.options import TrainingOptions
from training.step import train_step

STEPS = 4
# Dropout of few channels, of which batch norms see a few values, enlarges any difference tenfold in
# a step or two, as MUON does: with these the learning rate is small.
RECIPES = {
    "no dropout": ["--dropout", "0"],
    "muon": ["--dropout", "0", "--optimizer", "muon", "--lr", "1e-5", "--ssim_weight", "50"],
    "dropout": ["--lr", "1e-5"],
}


class NormOfEachView(nn.Module):
    """A batch norm that sees one view at a time. Its running statistics become the means over the
    views."""

    def __init__(self, norm: nn.Module):
        super().__init__()
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        norm = self.norm
        views = []
        statistics = []
        for view in x.split(1):
            mean = norm.running_mean.clone()
            variance = norm.running_var.clone()
            views.append(
                F.batch_norm(
                    view, mean, variance, norm.weight, norm.bias, True, norm.momentum, norm.eps
                )
            )
            statistics.append(torch.stack([mean, variance]))
        mean, variance = torch.stack(statistics).mean(dim=0)
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(variance)
        norm.num_batches_tracked += 1
        return torch.cat(views)


def norm_each_view_(network: nn.Module) -> None:
    """Exchanges all batch norms of a network."""
    for name, child in list(network.named_children()):
        if isinstance(child, (nn.BatchNorm2d, nn.BatchNorm3d)):
            setattr(network, name, NormOfEachView(child))
        else:
            norm_each_view_(child)


@contextmanager
def float64() -> Iterator[None]:
    """Makes new tensors float64, and `Tensor.float` too."""
    to_float32 = Tensor.float
    torch.set_default_dtype(torch.float64)
    Tensor.float = Tensor.double
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)
        Tensor.float = to_float32


def train_steps(words: list[str], ranks: Ranks) -> dict[str, dict]:
    """For each of `RECIPES` the losses of `STEPS` steps and the networks' state, in float64; and
    what changes in a step in which the last rank's target has a NaN. One process has two targets,
    and norms that see one at a time."""
    with float64():
        return {name: _train_steps([*words, *flags], ranks) for name, flags in RECIPES.items()}


def _train_steps(words: list[str], ranks: Ranks) -> dict:
    options, _ = resolve_options(words)
    assert isinstance(options, TrainingOptions)
    learning = options.learning
    scene, geometry = load_training_scene(
        options.run.data_root, options.architecture, options.scene
    )
    networks = build_networks(options.architecture, geometry, learning, options.machine, ranks)
    if ranks.count == 1:
        norm_each_view_(networks.model)
        norm_each_view_(networks.discriminator)
    views = scene.on(torch.device("cpu"))
    triplets = [
        triplet
        for epoch in range(3)
        for triplet in draw_triplets(scene.cam2world, learning.num_trgt, 0, epoch)
    ]
    batches = [
        Batch(*(part.double() for part in load_batch(views, triplet, ranks=ranks)[:4]))
        for triplet in triplets[:STEPS]
    ]
    losses = [
        torch.stack(list(train_step(networks, batch, learning.loss_weights).losses.known.values()))
        for batch in batches
    ]
    trained = state(networks)
    batch = batches[-1]
    if ranks.rank == ranks.count - 1:
        batch.target_images[-1, 0, 20, 20] = float("nan")
    finite = train_step(networks, batch, learning.loss_weights).finite
    changed = [
        name for name, value in state(networks).items() if not torch.equal(value, trained[name])
    ]
    return {"losses": torch.stack(losses), "state": trained, "finite": finite, "changed": changed}


def state(networks: Networks) -> dict[str, Tensor]:
    """A copy of what both networks hold, by the names that it has without `NormOfEachView`."""
    return {
        f"{part}.{name.replace('.norm.', '.')}": value.clone()
        for part in ("model", "discriminator")
        for name, value in getattr(networks, part).state_dict().items()
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    with joined() as all_ranks:
        torch.save(
            train_steps(sys.argv[2:], all_ranks), Path(sys.argv[1]) / f"rank{all_ranks.rank}.pth"
        )
