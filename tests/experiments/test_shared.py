"""An experiment that several processes carry out, and one that is stopped: real runs, the same to
the bit."""

import json
import re
import signal
import subprocess
import sys

import imageio.v2 as imageio
import pytest
import torch

from experiments import table1
from experiments.status import read_commands, read_progress, read_state
from tests.conftest import SMALL, write_scene
from tests.helpers import ENVIRONMENT, ROOT, STARTED, assert_same, wait_for

STEPS = 50
RUNS = ["scene-pix2pix-seed0", "scene-deepvoxels-seed0"]  # of the experiment that is stopped


def words(scene, out, *more) -> list[str]:
    return [
        str(word) for word in ["--scenes", scene, "--out", out, "--steps", STEPS, *SMALL, *more]
    ]


def start(scene, out, *more) -> subprocess.Popen:
    """experiments.table1 in a process of its own. It is killed when the test ends."""
    STARTED.append(
        subprocess.Popen(
            [sys.executable, "-m", "experiments.table1", *words(scene, out, *more)],
            cwd=ROOT,
            text=True,
            env=ENVIRONMENT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
    )
    return STARTED[-1]


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """A scene, and the folder of a table of all methods that two commands began at once, with the
    commands' outputs."""
    folder = tmp_path_factory.mktemp("shared")
    write_scene(folder / "scene" / "train", views=8)
    write_scene(folder / "scene" / "test", views=3)
    processes = [
        start(folder / "scene", folder / "out"),
        start(folder / "scene", folder / "out", "--log_every", 7),
    ]
    outputs = [process.communicate(timeout=300) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    return folder / "scene", folder / "out", [output for output, _ in outputs]


def final(folder) -> tuple[dict, dict]:
    """What a run ends with: its state after the last step, and its metrics."""
    (path,) = folder.glob(f"logs/*/*/model-epoch_*_iter_{STEPS}.pth")
    (metrics,) = folder.glob("test_traj/*/*/metrics.json")
    checkpoint = torch.load(path, weights_only=True)
    return (
        {
            name: checkpoint[name]
            for name in (
                "model",
                "discriminator",
                "model_optimizer",
                "discriminator_optimizer",
                "step",
                "rng",
            )
        },
        json.loads(metrics.read_text()),
    )


def test_two_commands_share_the_runs_and_the_table_is_whole(shared):
    _, out, outputs = shared
    assert {path.name for path in out.iterdir()} - {".lock"} == {
        "experiment.json",
        "runs",
        "table.md",
        "table.json",
        "figure.png",
        "scene.mp4",
    }
    table = json.loads((out / "table.json").read_text())["scenes"]["scene"]
    assert list(table) == list(table1.NAMES)
    for model, summary in table.items():
        run = f"scene-{model}-seed0"
        commands = [command["command"] for command in read_commands(out / "runs" / run)]
        assert len(commands) == (1 if model == "nearest_neighbor" else 2), (
            commands
        )  # a training and a test
        assert sum(f"] {run}: see" in output for output in outputs) == 1
        assert len({"--log_every 7" in command for command in commands}) == 1
        assert not summary["failed"] and not summary["unfinished"]
        metrics = json.loads((out / summary["seeds"]["0"]["frames"] / "metrics.json").read_text())
        assert (metrics["model"], metrics["psnr"]) == (model, summary["psnr"])
        assert (
            summary["parameters"] >= table["deepvoxels"]["parameters"]
            or model == "nearest_neighbor"
        )
    text = (out / "table.md").read_text()
    assert f"{table['pix2pix']['psnr']:.2f} / {table['pix2pix']['ssim']:.2f}" in text
    assert "30.55 / 0.97" in text  # the paper's mean
    assert "(not done)" not in text
    assert imageio.imread(out / "figure.png").shape == (24 + 3 * 220, 24 + 6 * 220, 3)
    frames = imageio.mimread(out / "scene.mp4")
    assert (len(frames), frames[0].shape) == (3, (24 + 220, 6 * 220, 3))
    assert "--log_every" not in json.loads((out / "experiment.json").read_text())["flags"]


def test_two_jobs_stopped_and_continued_give_the_same_bits(shared, tmp_path, capsys):
    scene, undisturbed, _ = shared
    out = tmp_path / "out"
    logs = [out / "runs" / run for run in RUNS]
    models = ["--models", "pix2pix", "deepvoxels"]
    process = start(scene, out, *models, "--jobs", 2)
    wait_for(
        lambda: all((progress := read_progress(log)) and progress.unit == "step" for log in logs),
        process,
        seconds=120,
    )
    table1.main(["--out", str(out), "--status"])
    status = capsys.readouterr().out
    assert (
        len(re.findall(rf"running  process {process.pid} on .*: step \d+ of {STEPS}", status)) == 2
    ), status
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in error
    for log in logs:
        assert re.fullmatch(rf"stopped at step \d+ of {STEPS}", read_state(log).text)
        (saved,) = {int(path.stem.rpartition("_")[2]) for path in log.glob("logs/*/*/model-*.pth")}
        assert 0 < saved < STEPS

    before = {log: read_commands(log) for log in logs}
    table1.main(words(scene, out, *models, "--collect"))
    text = capsys.readouterr().out
    assert "| Pix2Pix (Isola et al.) | – | – (not done) | – |" in text
    assert "- scene, Pix2Pix (Isola et al.), seed 0: waiting, stopped at step " in text
    assert {log: read_commands(log) for log in logs} == before

    process = start(scene, out, *models, "--jobs", 2)
    output, error = process.communicate(timeout=300)
    assert process.returncode == 0, error
    assert output.startswith("0 of 2 runs are done")
    for run in RUNS:
        assert_same(final(out / "runs" / run), final(undisturbed / "runs" / run))
