"""What `--recipe` and its flags change, and that they change nothing else."""

import numpy as np
import pytest
import torch

from checkpoints import load_weights, save_checkpoint
from dataio import load_scene
from tests.helpers import (
    CPU,
    arguments,
    assert_same,
    final_checkpoint,
    new_training,
    options_of,
    render_arguments,
    resume,
    run,
    training_options,
)
from training.data import load_batch
from training.recipes import RECIPES, LearningRate, WeightAverage, scale_dropout_


def test_a_recipe_sets_the_flags_that_are_not_given():
    learning = training_options("--recipe", "fast", "--lr", 0.002).learning
    chosen = {name: getattr(learning, name) for name in RECIPES["fast"]}
    assert chosen == {**RECIPES["fast"], "lr": 0.002}
    assert training_options("--recipe", "paper") == training_options()


def test_the_papers_recipe_is_training_as_it_was():
    """Nothing of it is on, and no tensor is added to a checkpoint."""
    learning = training_options().learning
    assert (learning.lr, learning.lr_decay, learning.dropout, learning.average) == (4e-4, 0, 1, 0)


def test_averaging_leaves_the_training_alone(scene, tmp_path):
    for name, more in [("plain", []), ("watched", ["--average", 0.9])]:
        assert run(*arguments(scene, tmp_path / name, "--max_steps", 5, *more)) == 0
    _, plain = final_checkpoint(tmp_path / "plain", 5)
    _, watched = final_checkpoint(tmp_path / "watched", 5)
    assert plain.keys() == watched.keys() - {"average"}
    for part in plain.keys() - {"options", "checksum", "seconds"}:
        assert_same(plain[part], watched[part], part)


def test_a_resumed_run_keeps_its_recipe(scene, tmp_path):
    """Other values are refused (test_input.py)."""
    assert (
        run(*arguments(scene, tmp_path, "--max_steps", 2, "--recipe", "fast", "--average", 0.5))
        == 0
    )
    learning = options_of(*resume(tmp_path)).learning
    assert (learning.recipe, learning.average, learning.dropout, learning.max_steps) == (
        "fast",
        0.5,
        RECIPES["fast"]["dropout"],
        2,
    )


def test_a_run_begun_before_a_recipe_grew_stays_what_it_was(scene, tmp_path):
    """Its checkpoint does not say how kernels are updated: with ADAM, as all were."""
    assert (
        run(
            *arguments(scene, tmp_path, "--max_steps", 2, "--recipe", "fast", "--optimizer", "adam")
        )
        == 0
    )
    path, checkpoint = final_checkpoint(tmp_path, 2)
    del checkpoint["options"]["optimizer"]
    save_checkpoint(path, checkpoint)
    assert options_of(*resume(tmp_path)).learning.optimizer == "adam"
    assert run(*resume(tmp_path, "--max_steps", 3)) == 0


def test_a_test_renders_with_the_averaged_weights(scene, tmp_path, monkeypatch):
    assert run(*arguments(scene, tmp_path, "--max_steps", 6, "--average", 0.9)) == 0
    path, checkpoint = final_checkpoint(tmp_path, 6)
    loaded = {}

    def spy(model, state, *more):
        loaded.update(state)
        load_weights(model, state, *more)

    monkeypatch.setattr("evaluation.render.load_weights", spy)
    assert run(*render_arguments(scene / "test", tmp_path, path, "--dry_run")) == 0
    assert loaded.keys() == checkpoint["model"].keys()
    assert_same(loaded, dict(checkpoint["average"]))
    weight = "rendering_net.net.3.weight"
    assert not torch.equal(checkpoint["average"][weight], checkpoint["model"][weight])


@pytest.mark.parametrize("model", ["pix2pix", "tatarchenko"])
def test_baselines_take_a_recipe(scene, tmp_path, model):
    assert (
        run(*arguments(scene, tmp_path, "--max_steps", 2, "--recipe", "fast", "--model", model))
        == 0
    )
    path, checkpoint = final_checkpoint(tmp_path, 2)
    assert checkpoint["average"].keys() == checkpoint["model"].keys()
    assert run(*render_arguments(scene / "test", tmp_path, path, "--dry_run")) == 0


def rates(steps: range, decay: float) -> list[float]:
    """The learning rates of the steps, 2 before they fall."""
    weights = [torch.zeros(1, requires_grad=True) for _ in range(2)]
    optimizers = [torch.optim.SGD([weight], lr=1.0) for weight in weights]
    rate = LearningRate(optimizers, 2.0, decay, steps)
    rates = []
    for step in steps:
        one, other = (float(optimizer.param_groups[0]["lr"]) for optimizer in optimizers)
        assert one == other
        rates.append(one)
        rate.set_after(step + 1)
    return rates


def test_the_learning_rate_falls_to_zero_over_the_last_fraction_of_the_steps():
    assert rates(range(10), 0.4) == pytest.approx([2] * 7 + [1.5, 1, 0.5])
    assert rates(range(10), 1.0) == pytest.approx([2 * left / 10 for left in range(10, 0, -1)])
    assert rates(range(3), 0.0) == [2, 2, 2]


def test_the_learning_rate_of_a_resumed_run_follows_its_length():
    assert rates(range(7, 10), 0.4) == rates(range(10), 0.4)[7:]
    assert rates(range(10, 20), 0.4) == rates(range(20), 0.4)[10:]
    assert rates(range(20, 10), 0.0) == []


def test_an_average_is_of_the_whole_state_and_gives_less_weight_to_the_first_steps():
    """For values that equal the step's number: the first two steps keep 2/11 and 3/12 of the
    average, then the decay holds. A continued average continues these factors."""
    model = torch.nn.BatchNorm1d(1)
    average = WeightAverage(model, decay=0.25)
    expected = 0.0
    torch.nn.init.zeros_(average.module.weight)
    for step, decay in [(1, 2 / 11), (2, 3 / 12), (3, 0.25)]:
        continued = WeightAverage(model, decay=0.25)
        continued.module.load_state_dict(average.module.state_dict())
        with torch.no_grad():
            for value in (model.weight, model.running_mean, model.num_batches_tracked):
                value.fill_(step)
        for each in (average, continued):
            each.update(model, step)
        expected = decay * expected + (1 - decay) * step
        assert_same(average.module.state_dict(), continued.module.state_dict())
    assert average.module.weight.item() == pytest.approx(expected)
    assert average.module.running_mean.item() == pytest.approx(expected)
    assert average.module.num_batches_tracked == 3  # a count has no mean


def test_dropout_is_scaled_and_names_stay(scene, tmp_path):
    views = load_scene(scene / "train", 64)
    outputs = []
    for scale in (0, 1):
        training = new_training(*arguments(scene, tmp_path, "--dropout", scale))
        model = training.networks.model.train()
        batch = load_batch(views.on(CPU), np.array([0, 1, 2]))
        outputs.append(
            [
                model(batch.source_image, batch.source_cam2world, batch.target_cam2world)[0].images
                for _ in range(2)
            ]
        )
    assert torch.equal(*outputs[0])
    assert not torch.equal(*outputs[1])
    assert scale_dropout_(torch.nn.Dropout3d(0.2), 0.5).p == 0.1
