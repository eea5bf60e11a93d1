"""What SLURM's queue holds of an experiment.

OUT/slurm/NAME/runs.json    the runs of a submission, in the order of its tasks; NAME is the tasks'
name in SLURM OUT/slurm/NAME/...          submitit's files: what a task is to do, and its output
"""

import json
import os
import subprocess
from pathlib import Path
from typing import NamedTuple

from util import InputError


class Task(NamedTuple):
    """A task in SLURM's queue, with the folder of its submission. text: its state, and where or why
    it waits."""

    id: str
    running: bool
    text: str
    folder: Path

    @property
    def work_file(self) -> Path:
        """Where submitit puts what the task is to do, after the task has been queued."""
        return self.folder / f"{self.id}_submitted.pkl"


def read_queue(out: Path) -> dict[str, Task]:
    """The tasks of the experiment's runs that wait or run, by the run's name. Raises `InputError`
    if SLURM does not answer."""
    submissions = {path.parent.name: path for path in out.absolute().glob("slurm/*/runs.json")}
    if not submissions:
        return {}
    runs = {}
    tasks = {}
    lines = call(
        "squeue", "--noheader", "--array", f"--user={os.getuid()}", "--format=%i|%K|%T|%N|%r|%j"
    ).splitlines()
    for id_, index, state, nodes, reason, name in (line.split("|", 5) for line in lines):
        if name not in submissions:
            continue
        if name not in runs:
            runs[name] = json.loads(submissions[name].read_text(encoding="utf-8"))["runs"]
        run = runs[name][int(index) if index.isdecimal() else 0]  # a single task has no index
        tasks[run] = Task(
            id_,
            bool(nodes),
            f"SLURM task {id_} {state.lower()}" + (f" on {nodes}" if nodes else f" ({reason})"),
            submissions[name].parent,
        )
    return tasks


def tasks_if_known(out: Path) -> dict[str, str]:
    """What becomes of the runs' tasks, by run; empty where SLURM does not answer."""
    try:
        return {name: task.text for name, task in read_queue(out).items()}
    except (InputError, OSError):  # `OSError`: there is no SLURM on this machine
        return {}


def call(*command: str) -> str:
    """The output of one of SLURM's commands. Raises `InputError` with its first line if it
    fails."""
    ended = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    if ended.returncode:
        raise InputError(f"{command[0]}: {(ended.stderr.strip() or 'failed').splitlines()[0]}")
    return ended.stdout
