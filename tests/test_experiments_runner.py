"""How an experiment runs its commands: one process per folder, their time and end recorded."""
import json
import sys

import numpy as np
import pytest

from baselines import MODELS
from experiments import table1
from experiments.runner import Experiment, Run, SceneData, open_experiment, reason
from training.run_folder import RunLock
from util import InputError


def test_two_processes_do_not_share_a_folder(scene, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "experiment.json").write_text(json.dumps(
        {"experiment": "table1", "steps": 3, "flags": [], "scenes": {}}))
    opened = open_experiment("table1", tmp_path / "out", [scene], 3, [])
    with RunLock(tmp_path / "out"), pytest.raises(InputError, match="another process"), opened:
        pass


def test_commands_are_noted_with_their_time_and_end(scene, tmp_path):
    """A command without an end was killed together with the experiment, so that the run's time is unknown."""
    data = SceneData(scene / "train", scene / "test")
    experiment = Experiment(tmp_path / "out", {"scene": data}, 3, [])
    run = Run("scene", data, "pix2pix", 0, "pix2pix")
    folder = experiment.folder(run)
    (folder / "test_traj" / "01_01" / "run").mkdir(parents=True)
    (folder / "test_traj" / "01_01" / "run" / "metrics.json").write_text('{"psnr": 20.0}')
    assert experiment._call(run, [sys.executable, "-c", "print('begun')"]) is None
    assert experiment._call(run, [sys.executable, "-c", "exit('out of luck')"]) == "exit code 1: out of luck"
    noted = json.loads((folder / "commands.json").read_text())["commands"]
    assert [command["exit_code"] for command in noted] == [0, 1]
    assert noted[1]["command"] == """python -c 'exit('"'"'out of luck'"'"')'"""
    assert (folder / "log.txt").read_text().startswith("begun")
    assert experiment.result(run).seconds == sum(command["seconds"] for command in noted)
    noted[0]["seconds"] = None
    (folder / "commands.json").write_text(json.dumps({"commands": noted}))
    assert experiment.result(run).seconds is None


def test_the_reason_of_a_failure_is_the_last_error_of_its_log(tmp_path):
    (tmp_path / "log.txt").write_text("50%|##\r60%|###\nrun.py: error: no such thing\n\n")
    assert reason(tmp_path / "log.txt") == "run.py: error: no such thing"
    (tmp_path / "log.txt").write_text("50%|##\rerror: model.pth could not be saved\n100%|#####\r100%|#####\n")
    assert reason(tmp_path / "log.txt") == "error: model.pth could not be saved"
    (tmp_path / "log.txt").write_text("Killed\n\n")
    assert reason(tmp_path / "log.txt") == "Killed"
    (tmp_path / "log.txt").write_text("")
    assert reason(tmp_path / "log.txt") == "no output"


def test_the_papers_table_is_quoted_right():
    """Its means are those of its scenes, to the rounding of its figures."""
    assert set(table1.PAPER) == set(table1.NAMES) == set(MODELS)
    for row_ in table1.PAPER.values():
        assert np.mean([psnr for psnr, _ in row_[:4]]) == pytest.approx(row_[4][0], abs=0.011)
        assert np.mean([ssim for _, ssim in row_[:4]]) == pytest.approx(row_[4][1], abs=0.011)
