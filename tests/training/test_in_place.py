"""A step changes the state of a training where it lies, and does the same each time. So lists of
its tensors stay true, and a step can be recorded once and replayed, as a CUDA graph would be
(docs/gpu.md)."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from dataio import draw_triplets
from tests.helpers import CPU, arguments, assert_same, new_training
from training import loop
from training.loop import learning_rate, take_step
from training.state import Training


class Operations(TorchDispatchMode):
    """The operations while this is active: names and arguments, of tensors type and layout. A
    profiler's marks are left out."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        described = tree_map_only(
            Tensor, lambda tensor: (tensor.dtype, tensor.shape, tensor.stride()), (args, kwargs)
        )
        if function.namespace != "profiler":
            self.calls.append((function._schema.name.removeprefix("aten::"), str(described)))
        return function(*args, **(kwargs or {}))


class Recording(TorchDispatchMode):
    """The operations while this is active, with the tensors that they read and write. `replay` does
    them again in the same memory, as a CUDA graph does. Whatever Python decided meanwhile stays
    decided."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if function.namespace != "profiler":
            self.calls.append((function, args, kwargs or {}, result))
        return result

    @torch.no_grad()
    def replay(self) -> None:
        for function, args, kwargs, result in self.calls:
            again = function(*args, **kwargs)
            for old, new in zip(tree_leaves(result), tree_leaves(again), strict=True):
                assert isinstance(old, Tensor) or old is None, f"{function} tells the host {old}"
                if old is not None and old.data_ptr() != new.data_ptr():
                    old.copy_(new)


class Replayed:
    """A function that is called twice, then recorded, then replayed, whatever its arguments."""

    def __init__(self, function: Callable):
        self._function = function
        self._calls = 0
        self._recording = Recording()

    def __call__(self, *args):
        self._calls += 1
        if self._calls > 3:
            self._recording.replay()
        elif self._calls == 3:
            with self._recording:
                self._result = self._function(*args)
        else:
            self._result = self._function(*args)
        return self._result


def state_tensors(training: Training) -> dict[str, Tensor]:
    """Every tensor that training goes on from, by a name, and what a step reads besides."""
    networks = training.networks
    assert networks.average and training.batch
    modules = {
        "model": networks.model,
        "discriminator": networks.discriminator,
        "average": networks.average.module,
    }
    tensors = {
        f"{name}.{key}": tensor
        for name, module in modules.items()
        for key, tensor in [*module.named_parameters(), *module.named_buffers()]
    }
    for name, optimizer in networks.optimizers.items():
        for number, state in enumerate(optimizer.state.values()):
            tensors |= {f"{name}.{number}.{key}": value for key, value in state.items()}
        tensors[f"{name}.lr"] = optimizer.param_groups[0]["lr"]
        tensors[f"{name}.found_inf"] = optimizer.found_inf
    batch = training.batch._asdict().items()
    return tensors | {f"batch.{name}": value for name, value in batch if value is not None}


@pytest.mark.parametrize(
    "flags", [["--recipe", "paper"], ["--recipe", "fast", "--turn_roll", 15, "--ssim_weight", 20]]
)
def test_no_tensor_of_the_state_changes_its_place_or_its_shape(flags, scene, tmp_path):
    flags = [*flags, "--average", 0.9, "--max_steps", 4]
    training = new_training(*arguments(scene, tmp_path, *flags))
    views = training.scene.on(CPU)
    rate = learning_rate(training)
    places = []
    shapes = []
    for step, triplet in enumerate(draw_triplets(training.scene.cam2world, 2, 0, 0)[:4], start=1):
        take_step(training, views, rate, step, triplet)
        tensors = state_tensors(training)
        places.append({name: tensor.data_ptr() for name, tensor in tensors.items()})
        shapes.append({name: (value.shape, value.stride()) for name, value in tensors.items()})
    assert {"model.deepvoxels", "model_optimizer.0.exp_avg"} <= places[0].keys()
    assert {"batch.source_image", "model_optimizer.lr"} <= places[0].keys()
    assert places == places[:1] * 4
    assert shapes == shapes[:1] * 4
    assert training.networks.model.deepvoxels.abs().max() > 0


@pytest.mark.parametrize(("recipe", "rates"), [("paper", set()), ("fast", {"fill_"})])
def test_all_steps_compute_the_same_but_for_what_the_host_schedules(recipe, rates, scene, tmp_path):
    """The same operations with the same numbers, but for the learning rate, the decay of the
    average and which views are selected. Of the plain model, which is CUDA's."""
    flags = ["--recipe", recipe, "--average", 0.9, "--max_steps", 4, "--kernels", "plain"]
    training = new_training(*arguments(scene, tmp_path, *flags))
    views = training.scene.on(CPU)
    rate = learning_rate(training)
    calls = []
    for step, triplet in enumerate(draw_triplets(training.scene.cam2world, 2, 0, 0)[:4], start=1):
        with Operations() as operations:
            take_step(training, views, rate, step, triplet)
        calls.append(operations.calls)
    third, fourth = calls[2:]
    assert "convolution_backward" in {name for name, _ in third}
    different = [call for call, last in zip(third, fourth, strict=True) if call != last]
    assert {name for name, _ in different} - {"select"} == {"_foreach_lerp_", *rates}
    assert sum(name == "_foreach_lerp_" for name, _ in different) == 1  # MUON's momentum is not


@pytest.mark.parametrize(
    "flags", [["--recipe", "paper"], ["--recipe", "fast", "--turn_roll", 15, "--ssim_weight", 20]]
)
def test_a_recorded_step_can_be_replayed_as_all_others(flags, scene, tmp_path, monkeypatch):
    """To the bit, one that is skipped too. Batch, learning rate and average stay outside of it. Of
    the plain model, which is CUDA's."""
    flags = [*flags, "--average", 0.9, "--max_steps", 7, "--kernels", "plain"]
    train_step = loop.train_step
    ends = []
    for step_function in (train_step, Replayed(train_step)):
        monkeypatch.setattr(loop, "train_step", step_function)
        training = new_training(*arguments(scene, tmp_path, *flags))
        views = training.scene.on(CPU)
        without_images = views._replace(images=torch.full(views.images.shape, torch.nan))
        rate = learning_rate(training)
        finite = []
        losses = []
        triplets = draw_triplets(training.scene.cam2world, 2, 0, 0)[:7]
        for step, triplet in enumerate(triplets, start=1):
            seen = without_images if step == 5 else views
            _, result = take_step(training, seen, rate, step, triplet)
            finite.append(bool(result.finite.all()))
            losses.append(torch.stack(list(result.losses.known.values())))
        assert finite == [step != 5 for step in range(1, 8)]
        ends.append({**state_tensors(training), "losses": losses[-1]})
    assert_same(*ends)
