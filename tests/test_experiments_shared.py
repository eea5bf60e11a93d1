"""An experiment that several processes carry out, and one that is stopped: real runs, the same to the bit."""
import json
import re
import shutil
import signal
import subprocess
import sys

import pytest
import torch

from experiments import table1
from experiments.status import read_commands, read_state
from tests.conftest import SMALL, write_scene
from tests.helpers import ENVIRONMENT, ROOT, STARTED, assert_same, wait_for

STEPS = 150
RUNS = ["scene-pix2pix-seed0", "scene-pix2pix-seed1"]


def words(scene, out, *more) -> list[str]:
    return [str(word) for word in ["--scenes", scene, "--out", out, "--steps", STEPS, "--seeds", 0, 1, "--models",
                                   "nearest_neighbor", "pix2pix", *SMALL, *more]]


def start(scene, out, *more) -> subprocess.Popen:
    """experiments.table1 in a process of its own. It is killed when the test ends."""
    STARTED.append(subprocess.Popen([sys.executable, "-m", "experiments.table1", *words(scene, out, *more)], cwd=ROOT,
                                    text=True, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE))
    return STARTED[-1]


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """A scene, and the folder of an experiment that two commands began at once, with the commands' outputs."""
    folder = tmp_path_factory.mktemp("shared")
    write_scene(folder / "scene" / "train", views=8)
    write_scene(folder / "scene" / "test", views=3)
    processes = [start(folder / "scene", folder / "out"), start(folder / "scene", folder / "out", "--log_every", 7)]
    outputs = [process.communicate(timeout=300) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    return folder / "scene", folder / "out", [output for output, _ in outputs]


def final(folder) -> tuple[dict, dict]:
    """What a run ends with: its checkpoint, without what depends on time and place, and its metrics."""
    (checkpoint,) = folder.glob(f"logs/*/*/model-epoch_*_iter_{STEPS}.pth")
    (metrics,) = folder.glob("test_traj/*/*/metrics.json")
    checkpoint = torch.load(checkpoint, weights_only=True)
    return {name: checkpoint[name] for name in ("model", "discriminator", "optimizer", "step") if name in checkpoint}, \
        {name: value for name, value in json.loads(metrics.read_text()).items() if name in ("psnr", "ssim", "frames")}


def test_two_commands_share_the_runs_and_the_table_is_whole(shared):
    _, out, outputs = shared
    for run in ["scene-nearest_neighbor-seed0", *RUNS]:
        commands = [command["command"] for command in read_commands(out / "runs" / run)]
        assert len(commands) == (1 if "nearest" in run else 2), commands
        assert sum(f"] {run}: see" in output for output in outputs) == 1
        assert len({"--log_every 7" in command for command in commands}) == 1
    table = json.loads((out / "table.json").read_text())["scenes"]["scene"]
    assert list(table["pix2pix"]["seeds"]) == ["0", "1"]
    assert not table["pix2pix"]["failed"] and not table["pix2pix"]["unfinished"]
    assert "(not done)" not in (out / "table.md").read_text()
    assert not (json.loads((out / "experiment.json").read_text())["flags"]).count("--log_every")


def test_two_jobs_stopped_and_continued_give_the_same_bits(shared, tmp_path, capsys):
    scene, undisturbed, _ = shared
    out = tmp_path / "out"
    logs = [out / "runs" / run for run in RUNS]
    process = start(scene, out, "--jobs", 2)
    wait_for(lambda: all((log / "log.txt").exists() and f"/{STEPS} [" in (log / "log.txt").read_text()
                         for log in logs), process, seconds=120)
    table1.main(["--out", str(out), "--status"])
    status = capsys.readouterr().out
    assert len(re.findall(rf"running  process {process.pid} on .*: step \d+ of {STEPS}", status)) == 2, status
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in error
    for log in logs:
        assert re.fullmatch(rf"stopped at step \d+ of {STEPS}", read_state(log).text)
        (saved,) = {int(path.stem.rpartition("_")[2]) for path in log.glob("logs/*/*/model-*.pth")}
        assert 0 < saved < STEPS

    before = {log: read_commands(log) for log in logs}
    table1.main(words(scene, out, "--collect"))
    text = capsys.readouterr().out
    assert "| Pix2Pix (Isola et al.) | – | – (not done) | – |" in text
    assert "- scene, Pix2Pix (Isola et al.), seed 1: waiting, stopped at step " in text
    assert (out / "figure.png").exists()  # of the method that needs no training
    assert {log: read_commands(log) for log in logs} == before

    process = start(scene, out, "--jobs", 2)
    output, error = process.communicate(timeout=300)
    assert process.returncode == 0, error
    assert output.startswith("1 of 3 runs are done")
    for run in RUNS:
        assert_same(final(out / "runs" / run), final(undisturbed / "runs" / run))


def test_the_folder_of_an_earlier_version_is_extended(shared, tmp_path, capsys):
    """Its record held no plan, and all flags, those among them that do not change what is learned."""
    scene, undisturbed, _ = shared
    shutil.copytree(undisturbed, tmp_path / "out", symlinks=True)
    record = json.loads((undisturbed / "experiment.json").read_text())
    del record["runs"]
    (tmp_path / "out" / "experiment.json").write_text(json.dumps(record | {"flags": SMALL}))
    table1.main(words(scene, tmp_path / "out"))
    assert capsys.readouterr().out.startswith("3 of 3 runs are done")
    assert list(json.loads((tmp_path / "out" / "experiment.json").read_text())["runs"]) == [
        "scene-nearest_neighbor-seed0", *RUNS]
