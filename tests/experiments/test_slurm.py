"""What of `--slurm` needs no SLURM; the rest is in test_cluster.py."""

import re
import shlex

import pytest

from experiments import table1
from machine.cli import run
from tests.conftest import SMALL
from tests.helpers import (
    ROOT,
    assert_one_line,
)


@pytest.mark.parametrize(
    "refusal",
    [
        (["--slurm"], ["--slurm: SLURM is not installed here"]),
        (["--slurm_hours", "2"], ["--slurm_hours: needs --slurm"]),
        (["--slurm", "--jobs", "2"], ["not allowed with"]),
        (["--slurm", "--slurm_gpus_per_task", "2"], ["--slurm_gpus_per_task", "from 0 to 1"]),
        (["--slurm", "--slurm_extra", "exclusive"], ["exclusive is not KEY=VALUE"]),
        (["--slurm", "--slurm_extra", "job_name=mine"], ["job-name cannot be given"]),
    ],
)
def test_wrong_arguments(scene, tmp_path, monkeypatch, capfd, refusal):
    """refusal: arguments, and what the message holds."""
    more, words = refusal
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SystemExit) as end:
        run(
            "experiments.table1",
            table1.main,
            ["--scenes", str(scene), "--steps", "3", "--out", str(tmp_path / "out"), *SMALL, *more],
        )
    error = capfd.readouterr().err
    assert end.value.code == 2
    assert_one_line(error, *words)
    assert not (tmp_path / "out").exists()


def test_the_commands_of_the_documentation_are_understood():
    """All of docs/clusters.md that start an experiment or a worker."""
    text = (ROOT / "docs" / "clusters.md").read_text(encoding="utf-8").replace("\\\n", "")
    commands = re.findall(r"^    python -m (experiments\.\w+) (.*)$", text, re.MULTILINE)
    assert len(commands) >= 4
    for module, words in commands:
        assert module == "experiments.table1"
        args = table1.Table1().parse(shlex.split(words))
        assert set(args.free_flags) <= {"--keep_checkpoints", "1"}, args.free_flags
        assert args.flags == []
