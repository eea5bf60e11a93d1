"""What `--recipe` and its flags change, and that they change nothing else."""
import pytest
import torch

from checkpoints import load_weights
from dataio import load_scene
from run_deepvoxels import main, resolve_options
from tests.test_cli import assert_refused, logs, train_arguments  # noqa: F401, fixtures
from tests.test_training import arguments, assert_same, final_checkpoint
from training.loop import build_networks, load_training_scene
from training.recipes import RECIPES, WeightAverage, decayed, scale_dropout_
from training.step import load_batch

CPU = torch.device("cpu")
EVERYTHING = ["--lr_decay", 0.8, "--average", 0.9, "--dropout", 0.5]


def resolved(*more):
    opt, checkpoint = resolve_options(["--train_test", "train", "--data_root", "a", "--logging_root", "b", "--device",
                                       "cpu", *map(str, more)])
    return opt


def test_a_recipe_sets_the_flags_that_are_not_given():
    opt = resolved("--recipe", "fast", "--lr", 0.002)
    assert opt.lr == 0.002
    assert {name: getattr(opt, name) for name in RECIPES["fast"] if name != "lr"} == {
        name: value for name, value in RECIPES["fast"].items() if name != "lr"}
    assert resolved("--recipe", "paper") == resolved()


def test_the_papers_recipe_is_training_as_it_was():
    """Nothing of it is on, and no tensor is added to a checkpoint."""
    opt = resolved()
    assert (opt.lr, opt.lr_decay, opt.dropout, opt.average) == (4e-4, 0, 1, 0)


def test_resuming_is_bitwise_with_everything_on(scene, tmp_path):
    """Continues from a checkpoint on the way, at step 9 of 14 in the second epoch: the learning rates, which fall, are
    those of the whole run, whose length is remembered."""
    assert main(arguments(scene, tmp_path / "whole", "--max_steps", 14, "--checkpoint_every", 9, *EVERYTHING)) == 0
    half, _ = final_checkpoint(tmp_path / "whole", 9)
    assert main(["--train_test", "train", "--logging_root", str(tmp_path / "rest"), "--resume", str(half)]) == 0
    _, whole = final_checkpoint(tmp_path / "whole", 14)
    _, rest = final_checkpoint(tmp_path / "rest", 14)
    for part in whole.keys() - {"options", "checksum"}:
        assert_same(whole[part], rest[part], part)
    assert whole["average"].keys() == whole["model"].keys()


def test_averaging_leaves_the_training_alone(scene, tmp_path):
    for name, more in [("plain", []), ("watched", ["--average", 0.9])]:
        assert main(arguments(scene, tmp_path / name, "--max_steps", 5, *more)) == 0
    _, plain = final_checkpoint(tmp_path / "plain", 5)
    _, watched = final_checkpoint(tmp_path / "watched", 5)
    assert plain.keys() == watched.keys() - {"average"}
    for part in plain.keys() - {"options", "checksum"}:
        assert_same(plain[part], watched[part], part)


def test_a_resumed_run_keeps_its_recipe(scene, tmp_path, capfd):
    assert main(arguments(scene, tmp_path, "--max_steps", 2, "--recipe", "fast", "--average", 0.5)) == 0
    path, _ = final_checkpoint(tmp_path, 2)
    resume = ["--train_test", "train", "--logging_root", str(tmp_path), "--resume", str(path)]
    opt, _ = resolve_options(resume)
    assert (opt.recipe, opt.average, opt.dropout, opt.max_steps) == ("fast", 0.5, RECIPES["fast"]["dropout"], 2)
    for flag, value in [("recipe", "paper"), ("average", 0.9), ("lr_decay", 0.1), ("dropout", 1)]:
        assert main([*resume, f"--{flag}", str(value)]) == 2
        assert f"--{flag} " in capfd.readouterr().err


def test_a_test_renders_with_the_averaged_weights(scene, tmp_path, monkeypatch):
    assert main(arguments(scene, tmp_path, "--max_steps", 6, "--average", 0.9)) == 0
    path, checkpoint = final_checkpoint(tmp_path, 6)
    loaded = {}

    def spy(model, state, *more):
        loaded.update(state)
        load_weights(model, state, *more)

    monkeypatch.setattr("evaluation.render.load_weights", spy)
    assert main(["--train_test", "test", "--data_root", str(scene / "test"), "--logging_root", str(tmp_path),
                 "--checkpoint", str(path), "--device", "cpu", "--dry_run"]) == 0
    assert loaded.keys() == checkpoint["model"].keys()
    assert_same(loaded, dict(checkpoint["average"]))
    weight = "rendering_net.net.3.weight"
    assert not torch.equal(checkpoint["average"][weight], checkpoint["model"][weight])


@pytest.mark.parametrize("model", ["pix2pix", "tatarchenko"])
def test_baselines_take_a_recipe(scene, tmp_path, model):
    assert main(arguments(scene, tmp_path, "--max_steps", 2, "--recipe", "fast", "--model", model)) == 0
    path, checkpoint = final_checkpoint(tmp_path, 2)
    assert checkpoint["average"].keys() == checkpoint["model"].keys()
    assert main(["--train_test", "test", "--data_root", str(scene / "test"), "--logging_root", str(tmp_path),
                 "--checkpoint", str(path), "--device", "cpu", "--dry_run"]) == 0


@pytest.mark.parametrize(("flag", "value"), [
    ("recipe", "slow"), ("lr_decay", 1.5), ("lr_decay", "nan"), ("average", 1), ("average", -0.1),
    ("dropout", -1), ("dropout", "inf")])
def test_wrong_values(train_arguments, assert_refused, flag, value):  # noqa: F811, fixtures
    assert_refused([*train_arguments, f"--{flag}={value}"], flag, str(value))


def test_the_learning_rate_falls_to_zero_over_the_last_share_of_the_steps():
    rates = [decayed(2.0, step, 10, 0.4) for step in range(1, 11)]
    assert rates == pytest.approx([2] * 7 + [1.5, 1, 0.5])
    assert decayed(2.0, 1, 10, 1.0) == 2.0
    assert decayed(2.0, 6, 10, 1.0) == 1.0


def test_an_average_forgets_the_first_steps_faster():
    """Of a weight that is its step's number: 2/11 and 3/12 of the old value in the first two steps, then the decay."""
    model = torch.nn.Linear(1, 1)
    average = WeightAverage(model, decay=0.25)
    expected = model.bias.item()
    for step, decay in [(1, 2 / 11), (2, 3 / 12), (3, 0.25)]:
        torch.nn.init.constant_(model.bias, step)
        average.update(model, step)
        expected = decay * expected + (1 - decay) * step
    assert average.model.bias.item() == pytest.approx(expected)


def test_dropout_is_scaled_and_names_stay(scene, tmp_path):
    views = load_scene(scene / "train", 64)
    outputs = []
    for scale in (0, 1):
        opt, _ = resolve_options(arguments(scene, tmp_path, "--dropout", scale))
        model = build_networks(opt, load_training_scene(opt)[1], CPU).model.train()
        batch = load_batch(views.on(CPU), [0, 1, 2])
        outputs.append([model(batch.source_image, batch.source_cam2world, batch.target_cam2world)[0].images
                        for _ in range(2)])
    assert torch.equal(*outputs[0])
    assert not torch.equal(*outputs[1])
    assert scale_dropout_(torch.nn.Dropout3d(0.2), 0.5).p == 0.1
