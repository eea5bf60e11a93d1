"""Sizes, and the checkpoints that `latest` and `auto` stand for (docs/design.md, section 6)."""

import json
import shlex
from dataclasses import replace

import pytest

from checkpoints import newest_checkpoint, save_checkpoint
from data_util import DEFAULT_NEAR_PLANE
from deep_voxels import SIZES, Architecture, DeepVoxels, architecture_of
from run_deepvoxels import resolve_options
from scenes.path import main as make_path
from tests.conftest import SMALL
from tests.helpers import (
    GEOMETRY,
    arguments,
    assert_same,
    final_checkpoint,
    render_arguments,
    resume,
    run,
)
from util import InputError


def resolved(*more):
    opt, _ = resolve_options(
        [
            "--train_test",
            "train",
            "--data_root",
            "a",
            "--logging_root",
            "b",
            "--device",
            "cpu",
            *map(str, more),
        ]
    )
    return opt


def test_a_size_sets_the_architecture_flags_that_are_not_given():
    assert architecture_of(resolved("--size", "small")) == Architecture(64, 32, 16, 16, 16)
    assert architecture_of(resolved("--nf0", 8, "--size", "medium")) == Architecture(
        128, 64, 32, 16, 8
    )
    assert resolved("--size", "paper") == resolved()
    assert architecture_of(resolved("--size", "small", "--no_occlusion_net")) == replace(
        SIZES["small"], no_occlusion_net=True
    )


def test_runs_record_what_a_size_sets_and_not_its_name(scene, logs):
    """So nothing can contradict the flags that beat it."""
    command = arguments(scene, logs, "--size", "medium", "--max_steps", 1)
    assert run(*command) == 0
    _, checkpoint = final_checkpoint(logs, 1)
    (options,) = logs.glob("logs/*/*/options.json")
    for recorded in (checkpoint["options"], json.loads(options.read_text())["options"]):
        assert "size" not in recorded
        assert recorded["grid_dim"] == 8
    assert run(*command, "--max_steps", 2, "--resume", "latest") == 0


def test_a_size_that_contradicts_the_checkpoint_names_both_values(
    scene, logs, trained, tmp_path, assert_refused
):
    save_checkpoint(
        tmp_path / "model.pth",
        {"model": DeepVoxels(Architecture(64, 16, 8, 4, 4), GEOMETRY).state_dict()},
    )
    command = render_arguments(scene / "test", logs, tmp_path / "model.pth", "--size", "small")
    contradiction = [
        "--size small: --proj_sidelength 32",
        "trained with --proj_sidelength 16",
        "model.pth",
    ]
    assert_refused(command, *contradiction)
    assert run(*command, *SMALL, "--dry_run") == 0
    save_checkpoint(tmp_path / "model.pth", trained[2])
    assert_refused(
        [
            "--train_test",
            "train",
            "--logging_root",
            logs,
            "--resume",
            tmp_path / "model.pth",
            "--size",
            "small",
        ],
        *contradiction,
    )


def test_auto_starts_a_run_continues_it_and_ends_when_it_is_done(scene, logs, tmp_path, capfd):
    """With one command line, as after a job's preemption; the run ends like one in one go."""
    assert run(*arguments(scene, tmp_path / "whole", "--max_steps", 4)) == 0
    command = arguments(scene, logs, "--max_steps", 4, "--resume", "auto")
    assert run(*command, "--max_steps", 2) == 0
    assert run(*command) == 0
    capfd.readouterr()
    assert run(*command) == 0
    assert "nothing to do" in capfd.readouterr().out
    assert len(list(logs.glob("logs/*/*"))) == 1
    assert_same(
        final_checkpoint(logs, 4)[1]["model"], final_checkpoint(tmp_path / "whole", 4)[1]["model"]
    )


def test_the_run_that_latest_and_auto_find(scene, logs, tmp_path):
    def begin(name):
        assert run(*arguments(scene, logs, "--max_steps", 1, "--experiment_name", name)) == 0
        (folder,) = logs.glob(f"logs/*/*_{name}")
        return newest_checkpoint(folder)

    def found(*more):
        opt, _ = resolve_options(arguments(scene, logs, *more))
        return opt.resume, opt.checkpoint

    first = begin("first")
    second = begin("second_first")
    assert found("--resume", "latest") == (str(second), None)
    assert found("--resume", "auto") == (str(second), None)
    assert found("--resume", "auto", "--experiment_name", "first") == (str(first), None)
    assert found("--resume", "auto", "--experiment_name", "other") == (None, None)
    assert found("--resume", "auto", "--experiment_name", "other", "--checkpoint", first) == (
        None,
        str(first),
    )
    assert found("--resume", "auto", "--experiment_name", "first", "--checkpoint", second) == (
        str(first),
        None,
    )
    assert found("--checkpoint", "latest", "--experiment_name", "first") == (None, str(second))
    test, _ = resolve_options(render_arguments(scene / "test", logs, "latest"))
    assert test.checkpoint == str(second)
    with pytest.raises(InputError, match="--resume latest: .*--experiment_name other"):
        found("--resume", "latest", "--experiment_name", "other")
    with pytest.raises(InputError, match="--lr 0.1 contradicts .*_first/model-epoch_0_iter_1.pth"):
        found("--resume", "auto", "--lr", 0.1)

    assert (
        run(*resume(logs, "--max_steps", 2, "--resume", first, "--experiment_name", "renamed")) == 0
    )
    continued, _ = final_checkpoint(logs, 2)
    assert found("--resume", "auto", "--experiment_name", "first") == (str(continued), None)
    assert found("--checkpoint", "latest") == (None, str(continued))
    continued.unlink()  # latest.pth now points at nothing
    assert found("--checkpoint", "latest") == (None, str(second))


def test_a_run_is_found_by_its_name_however_often_it_was_started(scene, logs):
    assert run(*arguments(scene, logs, "--max_steps", 1, "--experiment_name", "often")) == 0
    (record,) = logs.glob("logs/*/*/options.json")
    content = json.loads(record.read_text())
    content["history"] *= 1000
    record.write_text(json.dumps(content))
    assert record.stat().st_size > 1 << 20
    assert resolve_options(
        arguments(scene, logs, "--resume", "auto", "--experiment_name", "often")
    )[0].resume


def test_a_resumed_run_keeps_its_records_and_kernels(scene, logs):
    chosen = {
        "keep_checkpoints": 0,
        "keep_optimizer": "last",
        "checkpoint_every": 1,
        "checkpoint_minutes": 7.0,
        "log_every": 2,
        "validate_every": 3,
        "kernels": "plain",
    }
    flags = [word for name, value in chosen.items() for word in (f"--{name}", value)]
    assert run(*arguments(scene, logs, "--max_steps", 2, *flags)) == 0
    opt, _ = resolve_options(resume(logs, "--resume", "latest"))
    assert {name: getattr(opt, name) for name in chosen} == chosen
    opt, _ = resolve_options(resume(logs, "--resume", "latest", "--keep_checkpoints", 3))
    assert opt.keep_checkpoints == 3
    assert opt.max_steps is None  # of that command alone


def test_a_test_sees_the_scene_as_training_did(scene, logs):
    """Near plane and background, and the training views that a nearest neighbour is taken from."""
    assert (
        run(
            *arguments(
                scene,
                logs,
                "--max_steps",
                1,
                "--near_plane",
                0.7,
                "--background",
                "black",
                "--sampling_pattern",
                "skip_1",
            )
        )
        == 0
    )
    opt, _ = resolve_options(render_arguments(scene / "test", logs, "latest"))
    assert (opt.near_plane, opt.background, opt.sampling_pattern) == (0.7, "black", "skip_1")
    opt, _ = resolve_options(
        render_arguments(scene / "test", logs, "latest", "--background", "white")
    )
    assert opt.background == "white"
    opt, _ = resolve_options(arguments(scene, logs, "--checkpoint", "latest"))  # another training
    assert (opt.near_plane, opt.background, opt.sampling_pattern) == (
        DEFAULT_NEAR_PLANE,
        "white",
        "all",
    )


def test_latest_where_nothing_is(scene, logs, train_arguments, assert_refused):
    assert_refused(
        render_arguments(scene / "test", logs, "latest"), "--checkpoint latest", f"{logs}/logs"
    )
    assert_refused(
        [*train_arguments, "--checkpoint", "latest"], "--checkpoint latest", f"{logs}/logs"
    )
    assert_refused([*train_arguments, "--resume", "latest"], "--resume latest", f"{logs}/logs")


@pytest.mark.parametrize("held_out", [True, False])
def test_training_ends_with_commands_that_can_be_pasted(
    scene, tmp_path, capfd, held_out, monkeypatch
):
    """And a test with the paths to look at."""
    logs = tmp_path / "the logs"
    if not held_out:
        (scene / "test").rename(tmp_path / "elsewhere")
    monkeypatch.chdir(tmp_path)
    assert run(*arguments(scene, logs, "--max_steps", 1, "--background", "black")) == 0
    lines = capfd.readouterr().out.splitlines()
    commands = [shlex.split(line)[1:] for line in lines if line.startswith("  ")]
    assert commands[0] == ["-m", "tensorboard.main", "--logdir", "the logs/runs"]
    if not held_out:
        assert commands[1][:2] == ["-m", "scenes.path"]
        make_path(commands[1][2:])
    assert commands[-1][0].endswith("run_deepvoxels.py")
    assert run(*commands[-1][1:]) == 0
    if held_out:
        (metrics,) = logs.glob("test_traj/*/*/metrics.json")
        assert json.loads(metrics.read_text())["protocol"]["background"] == "black"
    shown = [line.partition(": ") for line in capfd.readouterr().out.splitlines()[-3:]]
    paths = {
        what: tmp_path / path for what, _, path in shown if what in ("video", "picture", "metrics")
    }
    assert set(paths) == ({"video", "picture", "metrics"} if held_out else {"video"})
    assert all(path.is_file() for path in paths.values())
