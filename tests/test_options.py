"""Sizes, and the checkpoints that `latest` and `auto` stand for (docs/design.md, section 6)."""

import json
import shlex
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import imageio.v2 as imageio
import pytest

from checkpoints import save_checkpoint
from data_util import DEFAULT_NEAR_PLANE
from dataio import SceneOptions
from deep_voxels import SIZES, Architecture, DeepVoxels
from files.runs import newest_checkpoint
from machine.options import inherited
from run_deepvoxels import OPTIONS
from scenes import check
from scenes.path import main as make_path
from tests.conftest import SMALL
from tests.helpers import (
    GEOMETRY,
    arguments,
    assert_same,
    final_checkpoint,
    options_of,
    render_arguments,
    resume,
    run,
    training_options,
)
from training.next_commands import unused
from util import InputError
from viewer.__main__ import build_parser as viewer_parser


def test_a_size_sets_the_architecture_flags_that_are_not_given():
    assert training_options("--size", "small").architecture == Architecture(64, 32, 16, 16, 16)
    narrower = training_options("--nf0", 8, "--size", "medium")
    assert narrower.architecture == Architecture(128, 64, 32, 16, 8)
    assert training_options("--size", "paper") == training_options()
    without = training_options("--size", "small", "--no_occlusion_net")
    assert without.architecture == replace(SIZES["small"], no_occlusion_net=True)


def test_a_test_takes_the_model_and_its_architecture_from_the_checkpoint():
    """As `recorded_model` finds them there, which the options say beside their defaults."""
    fixed = inherited(OPTIONS.values(), "in_test", "fixed")
    assert fixed == {"model", *asdict(Architecture())}


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


def test_a_resumed_run_may_change_its_learning_rate(scene, logs):
    """As the pages advise after setbacks, which halved it; it then begins with just the given
    one."""
    assert run(*arguments(scene, logs, "--max_steps", 1)) == 0
    path, content = final_checkpoint(logs, 1)
    save_checkpoint(path, {**content, "setbacks": 3})
    ends = {}
    for lr in (None, 1e-4, 0.0):
        flags = () if lr is None else ("--lr", lr, "--volume_limit", 5)
        words = ["--resume", path, "--logging_root", logs.parent / f"{lr}", "--max_steps", 2]
        assert run(*resume(logs, *words, *flags)) == 0
        ends[lr] = final_checkpoint(logs.parent / f"{lr}", 2)[1]
    assert [end["setbacks"] for end in ends.values()] == [3, 0, 0]
    assert [end["options"]["lr"] for end in ends.values()] == [4e-4, 1e-4, 0.0]
    assert [end["options"]["volume_limit"] for end in ends.values()] == [10.0, 5.0, 5.0]
    name = "rendering_net.net.3.weight"
    moved = [(end["model"][name] - content["model"][name]).abs().max() for end in ends.values()]
    assert moved[1] > 1.5 * moved[0] > moved[2] == 0


def test_a_resumed_run_need_not_compile(scene, logs, monkeypatch):
    """On a machine without a compiler, say, as that of a run which was begun on another."""
    assert run(*arguments(scene, logs, "--max_steps", 1)) == 0
    path, content = final_checkpoint(logs, 1)
    save_checkpoint(path, {**content, "options": {**content["options"], "compile": True}})
    monkeypatch.setenv("CXX", "no-compiler")
    assert run(*resume(logs, "--max_steps", 2)) == 0


def test_a_recorded_option_that_is_not_known_is_the_checkpoints_fault(
    scene, logs, trained, tmp_path, assert_refused
):
    """As one that a reader's edit of a recipe added."""
    path = tmp_path / "other.pth"
    for option in ("recipe", "background"):
        options = {**trained[2]["options"], option: "turbo"}
        save_checkpoint(path, {**trained[2], "options": options})
        assert_refused(resume(logs, "--resume", path), f"{path}: records an option", "turbo")
    assert_refused(render_arguments(scene / "test", logs, path), f"{path}: records an", "turbo")


@pytest.mark.parametrize(
    "flags", [["--max_epoch", 0], ["--max_epoch", 3, "--start_epoch", 5]], ids=str
)
def test_a_new_run_without_steps_is_refused(scene, logs, assert_refused, flags):
    assert_refused(arguments(scene, logs, *flags), f"--max_epoch {flags[1]}: leaves no step")
    assert not logs.exists()


def test_a_resumed_run_begins_where_it_stopped(scene, logs, trained, assert_refused):
    more = ["--resume", trained[1], "--start_epoch", 3]
    assert_refused(resume(logs, *more), "--start_epoch is for a new run")


def test_the_run_that_latest_and_auto_find(scene, logs, tmp_path):
    def begin(name):
        assert run(*arguments(scene, logs, "--max_steps", 1, "--experiment_name", name)) == 0
        (folder,) = logs.glob(f"logs/*/*_{name}")
        return newest_checkpoint(folder)

    def found(*more):
        run = options_of(*arguments(scene, logs, *more)).run
        return run.resume, run.checkpoint

    first = begin("first")
    second = begin("second_first")
    assert found("--resume", "latest") == (second, None)
    assert found("--resume", "auto") == (second, None)
    assert found("--resume", "auto", "--experiment_name", "first") == (first, None)
    assert found("--resume", "auto", "--experiment_name", "other") == (None, None)
    assert found("--resume", "auto", "--experiment_name", "other", "--checkpoint", first) == (
        None,
        first,
    )
    assert found("--resume", "auto", "--experiment_name", "first", "--checkpoint", second) == (
        first,
        None,
    )
    assert found("--checkpoint", "latest", "--experiment_name", "first") == (None, second)
    assert options_of(*render_arguments(scene / "test", logs, "latest")).run.checkpoint == second
    with pytest.raises(InputError, match="--resume latest: .*--experiment_name other"):
        found("--resume", "latest", "--experiment_name", "other")
    with pytest.raises(
        InputError,
        match="--l1_weight 1.0 contradicts .*_first/model-epoch_0_iter_1.pth.*--checkpoint instead",
    ):
        found("--resume", "auto", "--l1_weight", 1)

    assert (
        run(*resume(logs, "--max_steps", 2, "--resume", first, "--experiment_name", "renamed")) == 0
    )
    continued, _ = final_checkpoint(logs, 2)
    assert found("--resume", "auto", "--experiment_name", "first") == (continued, None)
    assert found("--checkpoint", "latest") == (None, continued)
    continued.unlink()  # latest.pth now points at nothing
    assert found("--checkpoint", "latest") == (None, second)


def test_a_run_is_found_by_its_name_however_often_it_was_started(scene, logs):
    assert run(*arguments(scene, logs, "--max_steps", 1, "--experiment_name", "often")) == 0
    (record,) = logs.glob("logs/*/*/options.json")
    content = json.loads(record.read_text())
    content["history"] *= 1000
    record.write_text(json.dumps(content))
    assert record.stat().st_size > 1 << 20
    command = arguments(scene, logs, "--resume", "auto", "--experiment_name", "often")
    assert options_of(*command).run.resume


def test_a_resumed_run_keeps_its_records_and_kernels(scene, logs):
    chosen = {
        "keep_checkpoints": 0,
        "keep_optimizer": "last",
        "checkpoint_every": 1,
        "checkpoint_minutes": 7.0,
        "log_every": 2,
        "validate_every": 3,
        "patience": 4,
        "kernels": "plain",
    }
    flags = [word for name, value in chosen.items() for word in (f"--{name}", value)]
    assert run(*arguments(scene, logs, "--max_steps", 2, *flags)) == 0
    resumed = options_of(*resume(logs))
    assert {name: resumed.flags[name] for name in chosen} == chosen
    assert asdict(resumed.records).items() <= chosen.items()
    assert resumed.machine.kernels == "plain"
    resumed = options_of(*resume(logs, "--keep_checkpoints", 3))
    assert resumed.records.keep_checkpoints == 3
    assert resumed.learning.max_steps is None  # of that command alone


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
    command = render_arguments(scene / "test", logs, "latest")
    assert options_of(*command).scene == SceneOptions(0.7, "black", "skip_1")
    other = options_of(*command, "--background", "white")
    assert other.scene == SceneOptions(0.7, "white", "skip_1")
    another_training = options_of(*arguments(scene, logs, "--checkpoint", "latest"))
    assert another_training.scene == SceneOptions(DEFAULT_NEAR_PLANE, "white", "all")


def test_latest_where_nothing_is(scene, logs, train_arguments, assert_refused):
    assert_refused(
        render_arguments(scene / "test", logs, "latest"), "--checkpoint latest", f"{logs}/logs"
    )
    assert_refused(
        [*train_arguments, "--checkpoint", "latest"], "--checkpoint latest", f"{logs}/logs"
    )
    assert_refused([*train_arguments, "--resume", "latest"], "--resume latest", f"{logs}/logs")


@pytest.mark.parametrize("held_out", [True, False])
def test_a_check_ends_with_a_training_that_can_be_pasted(
    scene, tmp_path, capfd, held_out, monkeypatch
):
    own = tmp_path / "my scene"
    shutil.copytree(scene, own)
    if not held_out:
        shutil.rmtree(own / "test")
    monkeypatch.chdir(tmp_path)
    check.main(["my scene"])
    words = shlex.split(capfd.readouterr().out.splitlines()[-1])[1:]
    assert Path(words[0]).name == "run_deepvoxels.py"
    assert run(*words[1:], "--dry_run") == 0
    out, err = capfd.readouterr()
    assert "warning" not in err and "data_root=my scene/train logging_root=my scene_logs" in out
    assert ("--validate_every" in words) == held_out


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
    viewer, orbit, video, *tests, curves = commands
    assert viewer[:2] == ["-m", "viewer"]
    viewed = viewer_parser().parse_args(viewer[2:])
    assert Path(viewed.checkpoint).is_file()
    assert orbit[:2] == ["-m", "scenes.path"]
    make_path([*orbit[2:], "--frames", "2"])
    assert run(*video[1:]) == 0
    (path,) = logs.glob("test_traj/*/*/video.mp4")
    assert imageio.mimread(path)[0].shape == (720, 720, 3)
    assert curves == ["-m", "tensorboard.main", "--logdir", "the logs/runs"]
    assert len(tests) == held_out
    if held_out:
        assert run(*tests[0][1:]) == 0
        (metrics,) = logs.glob("test_traj/*/*/metrics.json")
        assert json.loads(metrics.read_text())["protocol"]["background"] == "black"
    assert unused(logs / "orbit") == logs / "orbit_2"  # a second training's
    shown = [line.partition(": ") for line in capfd.readouterr().out.splitlines()[-3:]]
    paths = {
        what: tmp_path / path for what, _, path in shown if what in ("video", "picture", "metrics")
    }
    assert set(paths) == ({"video", "picture", "metrics"} if held_out else {"video"})
    assert all(path.is_file() for path in paths.values())
