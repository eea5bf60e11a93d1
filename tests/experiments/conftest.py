"""Studies without their runs."""

import json

import numpy as np
import pytest

from evaluation.output import write_png16
from experiments import execute
from experiments.status import read_commands
from scenes import noise
from util import write_json


@pytest.fixture
def fake_commands(monkeypatch):
    """Runs take no time: a test writes gray frames and metrics, a training a checkpoint. Returns
    the list of command lines, and the function whose `fail` holds texts: commands that contain one
    of them fail."""
    commands = []

    def call(root, line, *_):
        words = dict(zip(line, line[1:], strict=False))
        if line[:2] == ["-m", "scenes.noise"]:
            noise.main(line[2:])
            return True
        commands.append(" ".join(line[1:]))
        failed = any(word in commands[-1] for word in call.fail)
        (root / "log.txt").write_text("error: out of luck\n")
        write_json(
            root / "commands.json",
            {
                "commands": [
                    *read_commands(root),
                    {
                        "command": commands[-1],
                        "where": "here",
                        "log_begin": 0,
                        "seconds": 1.0,
                        "exit_code": int(failed),
                    },
                ]
            },
        )
        if failed:
            return False
        if words["--train_test"] == "train":
            logs = root / "logs" / "01_01" / "run"
            logs.mkdir(parents=True, exist_ok=True)
            (logs / "model-epoch_0_iter_3.pth").touch()
            return True
        folder = root / "test_traj" / "01_01" / "run"
        folder.mkdir(parents=True)
        for view in range(3):
            write_png16(folder / f"img_{view:05d}.png", np.full((54, 54, 3), 0.5))
        np.savez(folder / "depth_metric.npz", depth=np.full((3, 16, 16), 1.5, np.float32))
        (folder / "metrics.json").write_text(
            json.dumps(
                {
                    "psnr": 20.0 + int(words["--seed"]),
                    "ssim": 0.5,
                    "parameters": 7,
                    "model": words["--model"],
                    "depth": {
                        "mean_absolute_error": 0.1,
                        "within_one_voxel": 0.75,
                        "voxel_size": 0.05,
                    },
                    "protocol": {"sidelength": 64, "background": "white"},
                }
            )
        )
        return True

    call.fail = []
    monkeypatch.setattr(execute, "_call", call)
    monkeypatch.setattr("experiments.study.check_first", lambda *_: None)
    return commands, call
