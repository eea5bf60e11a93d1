"""What a CPU can prove about `--device mps`, which nobody has run: it knows no float64, and may not
copy what is still computed."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from dataio import Views, load_scene
from deep_voxels import Architecture, DeepVoxels
from evaluation.render import copies_on_host, view_renderer
from losses import LossWeights, PatchDiscriminator
from machine import runtime
from projection import SceneGeometry
from training.data import load_batch
from training.networks import Networks, make_optimizers
from training.recipes import WeightAverage
from training.step import train_step
from util import InputError

SMALL = Architecture(64, 16, 8, 4, 4)
GEOMETRY = SceneGeometry(8, 0.125, (0.0, 0.0, 0.0), 1.0, 16, 17.0, 8.0, 8.0)


class Doubles(TorchDispatchMode):
    """The operations, while this is active, that give a float64 tensor."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for value in tree_leaves(result):
            if isinstance(value, torch.Tensor) and value.dtype == torch.float64:
                self.found.append(str(function))
        return result


@pytest.fixture
def networks():
    torch.manual_seed(0)

    def new(optimizer: str) -> Networks:
        model = DeepVoxels(SMALL, GEOMETRY)
        average = WeightAverage(nn.Identity(), 0.99)
        average.module = DeepVoxels(SMALL, GEOMETRY).eval().requires_grad_(False)
        discriminator = PatchDiscriminator()
        optimizers = make_optimizers(model, discriminator, 1e-3, optimizer)
        return Networks(model, discriminator, SMALL, optimizers, average)

    return new


@pytest.mark.parametrize("optimizer", ["adam", "muon"])
def test_a_step_and_a_frame_make_no_float64(optimizer, networks):
    trained = networks(optimizer)
    views = Views(torch.zeros(4, 3, 64, 64, dtype=torch.uint8), torch.eye(4).repeat(4, 1, 1))
    with Doubles() as doubles:
        for step in (1, 2):  # the first makes the optimizers' state
            train_step(
                trained, load_batch(views, np.array([0, 1, 2])), LossWeights(volume_limit=10.0)
            )
            trained.average.update(trained.model, step)
        with torch.inference_mode():
            render = view_renderer(trained.model.eval(), None, torch.device("cpu"))
            image, _ = copies_on_host(render(views.poses([0])))
    assert image().shape == (1, 64, 64, 3)
    assert not doubles.found


def test_float64_would_be_seen():
    with Doubles() as doubles:
        torch.ones(2).double()
    assert doubles.found


def test_poses_are_float32_before_they_reach_the_device(scene):
    """A float64 tensor cannot be made there, not even on the way to float32."""
    views = load_scene(scene / "train", 64)
    moved = []

    class Moves(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            if (kwargs or {}).get("device") is not None:
                moved.extend(value.dtype for value in tree_leaves(args) if hasattr(value, "dtype"))
            return function(*args, **(kwargs or {}))

    with Moves():
        views.poses(torch.device("meta"))
    assert moved == [torch.float32]


def test_it_is_taken_with_a_warning_where_it_is(monkeypatch, capsys):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert runtime.choose_device("mps") == "mps"
    assert capsys.readouterr().err == "warning: --device mps: nothing has been run on MPS yet\n"
    assert runtime.choose_device("auto") != "mps"


def test_it_is_refused_where_it_is_not(monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(InputError, match="--device mps: PyTorch finds no MPS device here"):
        runtime.choose_device("mps")
