"""A step changes the state of a training where it lies, and does the same each time. So lists of
its tensors stay true, and a step could be captured once, as a CUDA graph, and replayed
(docs/gpu.md)."""

import pytest
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from dataio import draw_triplets
from tests.helpers import CPU, arguments, new_training
from training.loop import learning_rate_schedules, take_step
from training.networks import Networks


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


def state_tensors(networks: Networks) -> dict[str, Tensor]:
    """Every tensor that training goes on from, by a name."""
    assert networks.average
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
    return tensors


@pytest.mark.parametrize("recipe", ["paper", "fast"])
def test_no_tensor_of_the_state_changes_its_place_or_its_shape(recipe, scene, tmp_path):
    flags = ["--recipe", recipe, "--average", 0.9, "--max_steps", 4]
    training = new_training(*arguments(scene, tmp_path, *flags))
    networks = training.networks
    views = training.scene.on(CPU)
    schedules = learning_rate_schedules(training)
    places = []
    shapes = []
    for step, triplet in enumerate(draw_triplets(training.scene.cam2world, 2, 0, 0)[:4], start=1):
        batch, _ = take_step(training, views, schedules, step, triplet)
        tensors = state_tensors(networks)
        places.append({name: tensor.data_ptr() for name, tensor in tensors.items()})
        shapes.append(
            {name: (tensor.shape, tensor.stride()) for name, tensor in tensors.items()}
            | {
                f"batch.{name}": value.shape
                for name, value in batch._asdict().items()
                if value is not None
            }
        )
    assert {"model.deepvoxels", "model_optimizer.0.exp_avg"} <= places[0].keys()
    assert places == places[:1] * 4
    assert shapes == shapes[:1] * 4
    assert networks.model.deepvoxels.abs().max() > 0


@pytest.mark.parametrize(
    ("recipe", "rates"), [("paper", set()), ("fast", {"_fused_adam_", "_foreach_mul_"})]
)
def test_all_steps_compute_the_same_but_for_what_the_host_schedules(recipe, rates, scene, tmp_path):
    """The same operations with the same numbers, but for the learning rates, the decay of the
    average and which views are selected. Of the plain model, which is CUDA's."""
    flags = ["--recipe", recipe, "--average", 0.9, "--max_steps", 4, "--kernels", "plain"]
    training = new_training(*arguments(scene, tmp_path, *flags))
    views = training.scene.on(CPU)
    schedules = learning_rate_schedules(training)
    calls = []
    for step, triplet in enumerate(draw_triplets(training.scene.cam2world, 2, 0, 0)[:4], start=1):
        with Operations() as operations:
            take_step(training, views, schedules, step, triplet)
        calls.append(operations.calls)
    third, fourth = calls[2:]
    assert "convolution_backward" in {name for name, _ in third}
    different = [call for call, last in zip(third, fourth, strict=True) if call != last]
    assert {name for name, _ in different} - {"select"} == {"_foreach_lerp_", *rates}
    assert sum(name == "_foreach_lerp_" for name, _ in different) == 1  # MUON's momentum is not
