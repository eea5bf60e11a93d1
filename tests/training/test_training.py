"""Training: what a step does, what a run leaves behind, and that numbers that are not finite do no
harm."""

import copy
import json
import shutil
import sys
from contextlib import closing

import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from cpu_kernels.avg_pool import FastAvgPool2d
from dataio import draw_triplets, load_scene
from losses import (
    LossWeights,
    PatchDiscriminator,
    StructureLoss,
    adversarial_loss,
    discriminator_loss,
)
from tests.helpers import (
    CPU,
    arguments,
    assert_same,
    checkpoints,
    final_checkpoint,
    new_training,
    render_arguments,
    run,
    tensorboard_events,
)
from training.data import load_batch
from training.guard import CHECKED, MAX_SKIPPED_STEPS, SkippedSteps
from training.run_folder import RunLock
from training.state import MAX_SETBACKS
from training.step import train_step
from training.tensorboard_log import TensorboardLog


def test_seeds_decide_everything(scene, tmp_path):
    """The weights, and the bytes of the frames that are rendered with them."""
    models = []
    frames = []
    for name, seed in [("a", 1), ("b", 1), ("c", 2)]:
        logs = tmp_path / name
        assert run(*arguments(scene, logs, "--max_steps", 2, "--seed", seed)) == 0
        path, checkpoint = final_checkpoint(logs, 2)
        assert run(*render_arguments(scene / "test", logs, path)) == 0
        models.append(checkpoint["model"])
        frames.append(
            {
                path.relative_to(path.parents[1]): path.read_bytes()
                for path in logs.glob("test_traj/*/*/depth/*.png")
            }
            | {path.name: path.read_bytes() for path in logs.glob("test_traj/*/*/*.png")}
        )
    assert_same(models[0], models[1])
    assert not torch.equal(models[0]["deepvoxels"], models[2]["deepvoxels"])
    assert len(frames[0]) == 3 + 3 + 1
    assert frames[0] == frames[1] != frames[2]


def test_checkpoint_starts_from_weights_at_the_given_epoch(scene, tmp_path):
    assert run(*arguments(scene, tmp_path / "first", "--max_steps", 3)) == 0
    path, first = final_checkpoint(tmp_path / "first", 3)
    assert (
        run(
            *arguments(
                scene,
                tmp_path / "second",
                "--checkpoint",
                path,
                "--start_epoch",
                2,
                "--max_epoch",
                3,
                "--lr",
                0,
            )
        )
        == 0
    )
    _, second = final_checkpoint(tmp_path / "second", 24)
    weights = [name for name in first["model"] if name.endswith("weight")]
    assert all(torch.equal(first["model"][name], second["model"][name]) for name in weights)
    assert not torch.equal(first["model"]["deepvoxels"], second["model"]["deepvoxels"])


def test_a_run_leaves_options_checkpoints_and_tensorboard(scene, tmp_path):
    assert (
        run(
            *arguments(
                scene,
                tmp_path,
                "--max_steps",
                10,
                "--checkpoint_every",
                4,
                "--log_every",
                5,
                "--experiment_name",
                "disc",
            )
        )
        == 0
    )
    (logs,) = tmp_path.glob("logs/*/*_disc")
    assert sorted(path.name for path in logs.iterdir()) == [
        ".lock",
        "latest.pth",
        "model-epoch_0_iter_4.pth",
        "model-epoch_0_iter_8.pth",
        "model-epoch_1_iter_10.pth",
        "options.json",
    ]
    assert (logs / "latest.pth").resolve().name == "model-epoch_1_iter_10.pth"
    options = json.loads((logs / "options.json").read_text())
    assert options["options"]["grid_dim"] == 8
    assert {"torch", "git_commit", "device", "python"} <= options["machine"].keys()
    (events,) = tmp_path.glob("runs/*/*_disc/events*")
    tags = {value.tag for event in tensorboard_events(events) for value in event.summary.value}
    assert {f"train/{name}" for name in ("l1", "generator", "discriminator", "psnr")} <= tags
    pictures = ("source", "output_and_truth", "depth", "update_gate", "reset_gate")
    assert {f"train/{name}" for name in pictures} <= tags
    assert {tag.partition("/")[0] for tag in tags} == {"train"}  # what tensorboard folds


def test_what_a_killed_run_was_saving_is_removed_by_the_next(scene, tmp_path):
    """A run that had no complete checkpoint is never continued. A run that lives keeps what it
    writes."""
    parts = [
        tmp_path / f"logs/01_01/{name}/.model-epoch_0_iter_3.pth.part"
        for name in ("killed", "lives")
    ]
    for part in parts:
        part.parent.mkdir(parents=True)
        part.write_bytes(b"half")
    with RunLock(parts[1].parent):
        assert run(*arguments(scene, tmp_path, "--max_steps", 1)) == 0
    assert [part.exists() for part in parts] == [False, True]


def test_summaries_go_on_in_a_folder_that_can_be_written_again(tmp_path):
    """Two logs that begin within one second have two files."""
    for step in (1, 2):
        with closing(TensorboardLog(tmp_path, step)) as log:
            log.scalars({"l1": 1.0}, step)
    assert [
        [event.step for event in tensorboard_events(path)] for path in sorted(tmp_path.iterdir())
    ] == [[0, 1, 1], [0, 2, 2]]
    shutil.rmtree(tmp_path)
    with closing(TensorboardLog(tmp_path, 3)) as log:
        log.scalars({"l1": 1.0}, 3)
        tmp_path.mkdir()
        log.scalars({"l1": 1.0}, 4)
    (path,) = tmp_path.iterdir()
    assert [event.step for event in tensorboard_events(path)] == [0, 4]


@pytest.fixture
def step(scene, tmp_path):
    """The networks and the first batch of a run."""
    training = new_training(*arguments(scene, tmp_path))
    triplet = draw_triplets(training.scene.cam2world, 2, 0, 0)[0]
    return training.networks, load_batch(training.scene.on(CPU), triplet)


def test_both_gradients_come_from_one_forward_pass(step):
    """docs/design.md, section 5: neither network sees the other's update of the same step."""
    networks, batch = step
    for dropout in networks.discriminator.modules():
        if isinstance(dropout, torch.nn.Dropout2d):
            dropout.p = 0.0
    before = {name: value.clone() for name, value in networks.discriminator.state_dict().items()}
    losses, rendering, _, finite = train_step(networks, batch, weights=LossWeights())
    assert finite.all()
    fresh = PatchDiscriminator()
    for dropout in fresh.modules():
        if isinstance(dropout, torch.nn.Dropout2d):
            dropout.p = 0.0
    fresh.load_state_dict(before)
    fake = rendering.images[..., 5:-5, 5:-5].detach()
    real = batch.target_images[..., 5:-5, 5:-5]
    fake_logits = fresh(fake)
    real_logits = fresh(real)
    torch.testing.assert_close(losses.l1, (fake - real).abs().mean())
    torch.testing.assert_close(losses.generator, adversarial_loss(fake_logits, real=True))
    discrimination = discriminator_loss(real_logits, fake_logits)
    torch.testing.assert_close(losses.discriminator, discrimination)
    discrimination.backward()
    for ours, theirs in zip(networks.discriminator.parameters(), fresh.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, atol=1e-6, rtol=1e-4)


def test_the_loss_of_structure_is_that_of_scikit_image():
    images, truth = torch.rand(2, 2, 3, 20, 24) - 0.5
    expected = [
        1
        - structural_similarity(
            *(part.numpy() + 0.5 for part in pair),
            win_size=7,
            use_sample_covariance=False,
            channel_axis=0,
            data_range=1.0,
            full=True,
        )[1][:, 3:-3, 3:-3]
        for pair in zip(images, truth, strict=True)
    ]
    ssim_loss = StructureLoss()
    assert float(ssim_loss(images, truth)) == pytest.approx(np.mean(expected), abs=1e-5)
    known = torch.ones(2, 1, 20, 24)
    known[0, :, :, :10] = 0  # of the first image the windows on the other columns are left
    known[1] = 0
    assert float(ssim_loss(images, truth, known)) == pytest.approx(
        expected[0][:, :, 10:].mean() / 2, abs=1e-5
    )
    assert ssim_loss(truth, truth).abs() < 1e-6
    pixels, others = torch.rand(2, 1, 3, 8, 9, dtype=torch.float64)
    assert torch.autograd.gradcheck(ssim_loss, (pixels.requires_grad_(), others))


@pytest.mark.parametrize(("kernels", "layer"), [("plain", nn.AvgPool2d), ("auto", FastAvgPool2d)])
def test_the_loss_of_structure_is_plain_where_the_networks_are(kernels, layer, scene, tmp_path):
    words = arguments(scene, tmp_path, "--ssim_weight", 20, "--kernels", kernels)
    assert type(new_training(*words).networks.structure_loss.window_mean) is layer


def test_the_loss_of_structure_counts_as_its_weight_says(step):
    networks, batch = step
    both = (networks.model, networks.discriminator)
    states = [copy.deepcopy(network.state_dict()) for network in both]

    def gradient(weights):
        for network, state in zip(both, states, strict=True):
            network.load_state_dict(state)
        torch.manual_seed(0)  # of dropout
        losses = train_step(networks, batch, weights).losses
        gradients = [parameter.grad.flatten() for parameter in networks.model_parameters]
        return losses, torch.cat(gradients)

    plain, of_rest = gradient(LossWeights())
    once, with_ssim = gradient(LossWeights(ssim=10.0))
    _, with_twice = gradient(LossWeights(ssim=20.0))
    assert plain.ssim is None
    assert 0 < once.ssim < 2
    assert LossWeights(ssim=10.0).total(once.on_host()) == pytest.approx(
        float(200 * once.l1 + once.generator + 10 * once.ssim)
    )
    of_ssim = with_ssim - of_rest
    assert of_ssim.norm() > 0.01 * of_rest.norm()
    torch.testing.assert_close(with_twice - of_rest, 2 * of_ssim, atol=1e-3, rtol=0.02)


class NoWaiting(TorchFunctionMode):
    """Fails where a value leaves the device or a host's tensor enters it, both of which wait on
    CUDA."""

    WAITS = {
        "item",
        "tolist",
        "numpy",
        "cpu",
        "cuda",
        "nonzero",
        "equal",
        "__bool__",
        "__int__",
        "__float__",
        "__index__",
        "__array__",
        "tensor",
        "as_tensor",
        "masked_select",
        "unique",
    }

    def __torch_function__(self, function, types, args=(), kwargs=None):
        name = getattr(function, "__name__", "")
        assert name not in self.WAITS, name
        within_torch = (
            sys._getframe(1).f_globals["__name__"].startswith("torch.")
        )  # it moves only what is elsewhere
        to_device = any(
            isinstance(to, (str, torch.device)) for to in [*args, *(kwargs or {}).values()]
        )
        assert name != "to" or within_torch or not to_device, "to(device)"
        return function(*args, **(kwargs or {}))


class NoWaitingInside(TorchDispatchMode):
    """The same for what operations do inside."""

    WAITS = {
        "_local_scalar_dense",
        "is_nonzero",
        "item",
        "equal",
        "nonzero",
        "masked_select",
        "_unique2",
        "index",
        "index_put_",
    }  # by a mask or a list

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        assert name not in self.WAITS, name
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("model", ["deepvoxels", "pix2pix"])
def test_no_training_step_waits_for_the_device(scene, tmp_path, model, precision, monkeypatch):
    monkeypatch.setattr(
        torch.backends.mkl, "is_available", lambda: False
    )  # projects as on any device but the CPU
    training = new_training(*arguments(scene, tmp_path, "--model", model))
    views = training.scene.on(CPU)
    with NoWaiting(), NoWaitingInside():
        for _ in range(2):  # the first one sets up what later ones reuse
            batch = load_batch(views, np.array([0, 1, 2]))
            step = train_step(training.networks, batch, LossWeights(), precision)
    assert step.finite.all()


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("poison", ["source_image", "target_images"])
def test_a_step_that_is_not_finite_changes_nothing(step, precision, poison):
    """No weight, moment, running statistic or voxel, to the bit."""

    def state():
        return {
            name: {
                key: value.clone() if isinstance(value, torch.Tensor) else str(value)
                for key, value in part.state_dict().items()
            }
            for name, part in vars(networks).items()
            if hasattr(part, "state_dict")
        }

    networks, good = step
    assert train_step(networks, good, LossWeights(), precision).finite.all()
    before = state()
    bad = getattr(good, poison).clone()
    bad[0, 0, 20, 20] = float("nan")
    finite = train_step(networks, good._replace(**{poison: bad}), LossWeights(), precision).finite
    assert not finite[CHECKED.index("l1 loss")]
    assert_same(before, state())
    assert train_step(networks, good, LossWeights(), precision).finite.all()


def test_steps_that_are_never_finite_are_named_and_end_training(scene, tmp_path, capfd):
    """A loss weight so large that the gradient overflows, from the start."""
    assert run(*arguments(scene, tmp_path, "--max_steps", 6, "--l1_weight", "3e38")) == 1
    error = capfd.readouterr().err
    assert "step 1 was skipped, not finite: " in error
    assert "model's gradient" in error
    assert "views 0000" in error
    assert error.count("going back to the start, at half the learning rate") == MAX_SETBACKS
    assert "were not finite; training went back 5 times already" in error
    assert not checkpoints(tmp_path)


def test_skipped_steps_are_named_whenever_they_are_read():
    """Five in a row count although they are read in two parts; later ones are not named."""
    skipped = SkippedSteps(["a", "b", "c"])
    good = torch.ones(len(CHECKED), dtype=torch.bool)
    bad = good.clone()
    bad[[0, 5]] = False
    place = torch.empty_like(good)  # as a step that is replayed writes them where they were
    for step, finite in enumerate([good, bad, good, bad, bad], start=1):
        skipped.add(step, np.array([2, 0]), place.copy_(finite))
    assert skipped.read() == [
        f"step {step} was skipped, not finite: l1 loss, volume (views c, a)" for step in (2, 4, 5)
    ]
    for step, finite in enumerate([bad, bad, bad, good], start=6):
        skipped.add(step, np.array([1]), finite)
    assert len(skipped.read()) == 3
    assert skipped.in_a_row == MAX_SKIPPED_STEPS


def test_training_learns_the_scene(scene, tmp_path):
    """64 steps take a third off the l1 loss of the first."""
    networks = new_training(*arguments(scene, tmp_path, "--lr", 0.002)).networks
    views = load_scene(scene / "train", 64)
    l1 = []
    for epoch in range(8):
        for triplet in draw_triplets(views.cam2world, 2, 0, epoch):
            l1.append(
                train_step(
                    networks, load_batch(views.on(CPU), triplet), weights=LossWeights()
                ).losses.l1.item()
            )
    assert sum(l1[-8:]) < 0.67 * sum(l1[:8])
