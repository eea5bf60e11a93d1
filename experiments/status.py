"""How far the runs of an experiment are, read from their folders: done, running, waiting or failed.

A run is done when its test has written `metrics.json`; `commands.json` holds the commands that were
begun, where, and how they ended; `progress.json` how far the last one is; `log.txt` their output;
and whoever carries it out holds `.lock`.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from experiments.plan import MAX_RECORD_BYTES, Plan
from files.folders import is_locked
from util import InputError, read_json

STOPPED = {
    0,
    129,
    130,
    143,
    -1,
    -2,
    -15,
}  # exit codes of a command that did its work, or was asked to stop
LOG_TAIL = 1 << 14  # bytes
PROGRESS = "progress.json"


@dataclass(frozen=True)
class Result:
    """A finished run's metrics, the folder with its frames, and the seconds that all its commands
    took; None if one of them was killed together with the experiment."""

    folder: Path
    metrics: dict
    seconds: float | None

    @property
    def commit(self) -> str | None:
        """The code that tested the run (`machine.version.git_commit`), if that is recorded."""
        try:
            commit = json.loads((self.folder / "options.json").read_text())["machine"]["git_commit"]
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return commit if commit != "unknown" else None


@dataclass(frozen=True)
class State:
    """kind: 'done', 'running', 'waiting' or 'failed'. text: the PSNR, where and how far it runs, or
    what went wrong."""

    kind: str
    text: str = ""


@dataclass(frozen=True)
class Reached:
    """How far a command is: `done` of `total` steps, frames or images (`unit`), and its speed in
    units a second, None if it is not known yet."""

    done: int
    total: int
    unit: str
    per_second: float | None

    def __str__(self) -> str:
        text = f"{self.unit} {self.done} of {self.total}"
        if self.per_second:
            left = tqdm.format_interval((self.total - self.done) / self.per_second)
            text += f", {self.per_second:.3g} {self.unit}s/s, {left} left"
        return text


def find_result(folder: Path) -> Result | None:
    """The result of the run in a folder, if it is done."""
    done = sorted(folder.glob("test_traj/*/*/metrics.json"))
    if not done:
        return None
    seconds = [command["seconds"] for command in read_commands(folder)]
    return Result(
        done[-1].parent,
        read_metrics(done[-1]),
        None if None in seconds else sum(seconds, start=0.0),
    )


def read_metrics(path: Path) -> dict:
    """The content of a test's metrics.json. Raises `InputError` if it is damaged."""
    metrics = read_json(path, MAX_RECORD_BYTES)
    if not isinstance(metrics, dict) or "psnr" not in metrics:
        raise InputError(f"{path}: is not the metrics of a test")
    return metrics


def read_commands(folder: Path) -> list[dict]:
    """The commands of a run so far. Raises `InputError` if their record is damaged."""
    path = folder / "commands.json"
    if not path.is_file():
        return []
    record = read_json(path, MAX_RECORD_BYTES)
    commands = record.get("commands") if isinstance(record, dict) else None
    if not isinstance(commands, list) or not all(isinstance(entry, dict) for entry in commands):
        raise InputError(f"{path}: is not the record of a run's commands")
    return commands


def count_failures(folder: Path) -> int:
    """How many commands of a run have failed."""
    return sum(_failed(command) for command in read_commands(folder))


def _failed(command: dict) -> bool:
    return command["exit_code"] is not None and command["exit_code"] not in STOPPED


def read_state(folder: Path) -> State:
    """The state of the run in a folder."""
    result = find_result(folder)
    commands = read_commands(folder)
    if result:
        return State("done", f"PSNR {result.metrics['psnr']:.2f} dB")
    if not commands:
        return State("waiting")
    last = commands[-1]
    progress = read_progress(folder)
    if _failed(last):
        return State("failed", f"exit code {last['exit_code']}: {reason(folder)}")
    if is_locked(folder / ".lock"):
        return State("running", f"{last['where']}: {progress}" if progress else last["where"])
    if last["exit_code"] == 0 and "--train_test test" in last["command"]:
        return State("failed", "wrote no metrics")
    if progress is None:
        return State("waiting")
    return State("waiting", f"stopped at {progress.unit} {progress.done} of {progress.total}")


def read_progress(folder: Path) -> Reached | None:
    """How far the last command of a run is, as it says itself (`machine.progress`)."""
    try:
        reached = Reached(**json.loads((folder / PROGRESS).read_text()))
    except (OSError, ValueError, TypeError):
        return None
    return reached if reached.total else None


def reason(folder: Path) -> str:
    """What the last command's log says last: its last line with an error if it has one (a progress
    bar may follow), else its last line that is not blank; at most 200 characters of it."""
    lines = [line for line in _read_log(folder).replace("\r", "\n").splitlines() if line.strip()]
    errors = [line for line in lines if "error: " in line]
    return (errors or lines or ["no output"])[-1].strip()[:200]


def _read_log(folder: Path) -> str:
    """The end of the last command's part of the log."""
    commands = read_commands(folder)
    path = folder / "log.txt"
    if not path.is_file():
        return ""
    with open(path, "rb") as log:
        begin = commands[-1]["log_begin"] if commands else 0
        log.seek(max(begin, path.stat().st_size - LOG_TAIL))
        return log.read(LOG_TAIL).decode(errors="replace")


def status_table(plan: Plan, names: Sequence[str], queued: Mapping[str, str] | None = None) -> str:
    """A line for each run, and how many are in which state. queued: the queue state of each queued
    run, by its name."""
    queued = queued or {}
    states = {name: read_state(plan.folder(name)) for name in names}
    states |= {
        name: State("waiting", queued[name])
        for name, state in states.items()
        if name in queued and state.kind in ("waiting", "failed")
    }
    width = max(map(len, states), default=0)
    lines = [
        f"{name:{width}}  {state.kind:7}  {state.text}".rstrip() for name, state in states.items()
    ]
    counts = Counter(state.kind for state in states.values())
    kinds = ("done", "running", "waiting", "failed")
    lines.append(", ".join(f"{counts[kind]} {kind}" for kind in kinds))
    return "\n".join(lines)
