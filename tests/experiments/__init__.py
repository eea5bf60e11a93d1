"""What several tests of the studies share."""

from pathlib import Path

import pytest

from experiments.execute import command_lines
from experiments.plan import RECORD, Plan, split_flags
from experiments.status import find_result
from machine.cli import run as run_command
from scenes import noise
from tests.conftest import SMALL
from tests.helpers import assert_one_line, run
from util import write_json


def write_record(out: Path, experiment: str, steps: int) -> None:
    """The record of an experiment with the flags `SMALL` that has planned nothing yet."""
    content = {"experiment": experiment, "steps": steps, "flags": split_flags("test", SMALL)[0]}
    write_json(out / RECORD, {**content, "scenes": {}, "runs": {}, "fingerprints": {}})


def work_here(plan: Plan, names: list[str], flags: list[str], _) -> None:
    """`experiments.work.work` in this thread and process: starting others takes longer than small
    runs do."""
    for name in names:
        if find_result(plan.folder(name)):
            continue
        for words in command_lines(plan, name, flags):
            if words[:2] == ["-m", "scenes.noise"]:
                noise.main(words[2:])
            else:
                assert run(*words[1:]) == 0


def arguments(scene, out, *more):
    return [str(word) for word in ["--scenes", scene, "--steps", 3, "--out", out, *SMALL, *more]]


def refused(capfd, command, *words):
    """The command, a module with its arguments, ends with exit code 2 and a line of these words."""
    with pytest.raises(SystemExit) as end:
        run_command(command[0].__name__, command[0].main, list(map(str, command[1:])))
    assert end.value.code == 2
    error = capfd.readouterr().err
    assert error.startswith(f"{command[0].__name__}: error: ")
    assert_one_line(error, *words)
