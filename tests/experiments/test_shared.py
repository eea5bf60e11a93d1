"""An experiment that is stopped, and then continued by two commands at once: real runs, the same to
the bit as a training that nothing disturbed."""

import json
import re
import signal
import subprocess

import imageio.v2 as imageio

from experiments import table1
from experiments.status import read_commands, read_progress, read_state
from tests.conftest import SMALL
from tests.helpers import (
    arguments,
    assert_same,
    final_checkpoint,
    finish,
    run,
    start_python,
    wait_for,
)

STEPS = 50
STATE = (
    *("model", "discriminator", "model_optimizer", "discriminator_optimizer"),
    *("step", "rng"),
)


def words(scene, out, *more) -> list[str]:
    return [
        str(word) for word in ["--scenes", scene, "--out", out, "--steps", STEPS, *SMALL, *more]
    ]


def start(scene, out, *more) -> subprocess.Popen:
    """experiments.table1 in a process of its own."""
    return start_python("-m", "experiments.table1", *words(scene, out, *more))


def test_a_stopped_experiment_is_continued_by_two_commands_to_the_same_bits(
    scene, tmp_path, capsys
):
    out = tmp_path / "out"
    log = out / "runs" / "scene-deepvoxels-seed0"
    models = ["--models", "deepvoxels"]
    stop_while_training(start(scene, out, *models), out, log, capsys)

    before = read_commands(log)
    table1.main(words(scene, out, *models, "--collect"))
    text = capsys.readouterr().out
    assert "| DeepVoxels | – | – (not done) | – |" in text
    assert "- scene, DeepVoxels, seed 0: waiting, stopped at step " in text
    assert read_commands(log) == before

    models.append("nearest_neighbor")
    other = start(scene, out, *models, "--log_every", 7)
    table1.main(words(scene, out, *models))
    outputs = [finish(other)[1], capsys.readouterr().out]
    assert other.returncode == 0
    assert all(re.match("[01] of 2 runs are done", output) for output in outputs), outputs
    assert_table_is_whole(out, outputs)
    assert run(*arguments(scene, tmp_path / "whole", "--max_steps", STEPS)) == 0
    folders = (tmp_path / "whole", log)
    expected, actual = (final_checkpoint(folder, STEPS)[1] for folder in folders)
    for part in STATE:
        assert_same(expected[part], actual[part], part)


def stop_while_training(process, out, log, capsys) -> None:
    """Ctrl-C, once the run trains and its state says so: it saves a checkpoint."""
    wait_for(
        lambda: (progress := read_progress(log)) and progress.unit == "step", process, seconds=120
    )
    table1.main(["--out", str(out), "--status"])
    status = capsys.readouterr().out
    running = rf"running  process {process.pid} on .*: step \d+ of {STEPS}"
    assert len(re.findall(running, status)) == 1, status
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in error
    assert re.fullmatch(rf"stopped at step \d+ of {STEPS}", read_state(log).text)
    (saved,) = {int(path.stem.rpartition("_")[2]) for path in log.glob("logs/*/*/model-*.pth")}
    assert 0 < saved < STEPS


def assert_table_is_whole(out, outputs) -> None:
    """And one of the two commands carried out each run."""
    assert {path.name for path in out.iterdir()} - {".lock"} == {
        "experiment.json",
        "runs",
        "table.md",
        "table.json",
        "table.tex",
        "figure.png",
        "scene.mp4",
    }
    table = json.loads((out / "table.json").read_text())["scenes"]["scene"]
    assert list(table) == ["nearest_neighbor", "deepvoxels"]
    for model, summary in table.items():
        name = f"scene-{model}-seed0"
        commands = [command["command"] for command in read_commands(out / "runs" / name)]
        if model == "deepvoxels":
            commands.pop(0)  # which was stopped
            assert len(commands) == 2  # a training and a test
        else:
            assert len(commands) == 1
        assert sum(f"] {name}: see" in output for output in outputs) == 1
        assert len({"--log_every 7" in command for command in commands}) == 1
        assert not summary["failed"] and not summary["unfinished"]
        metrics = json.loads((out / summary["seeds"]["0"]["frames"] / "metrics.json").read_text())
        assert (metrics["model"], metrics["psnr"]) == (model, summary["psnr"])
    text = (out / "table.md").read_text()
    assert f"{table['deepvoxels']['psnr']:.2f} / {table['deepvoxels']['ssim']:.2f}" in text
    assert "30.55 / 0.97" in text  # the paper's mean
    assert "(not done)" not in text
    assert imageio.imread(out / "figure.png").shape == (24 + 3 * 220, 24 + 3 * 220, 3)
    frames = imageio.mimread(out / "scene.mp4")
    assert (len(frames), frames[0].shape) == (3, (24 + 220, 3 * 220, 3))
    assert "--log_every" not in json.loads((out / "experiment.json").read_text())["flags"]
