"""A run's folders and the signals sent to a run.

One process holds the folders (`RunLock`). `options.json` records each start.
"""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

import torch

from files.folders import Lock
from files.runs import MAX_HISTORY_BYTES
from machine.options import Run
from machine.ranks import Ranks
from machine.runtime import describe_machine
from machine.signals import ENDING, handling
from util import InputError, make_run_folder, read_json, write_json

# Windows has neither signal.
SIGHUP = getattr(signal, "SIGHUP", None)
SIGUSR1 = getattr(signal, "SIGUSR1", None)
SAME_REQUEST = 1.0  # seconds within which a second signal repeats the first request


@contextmanager
def open_run(run: Run, start: dict) -> Iterator[tuple[Path, Path]]:
    """The run's folders for checkpoints and for tensorboard, locked for this process, with this
    start recorded (`describe_start`).

    A start that cannot be recorded (a full disk) leaves no new folders.
    """
    logs, runs, history = open_run_folders(run)
    try:
        with RunLock(logs):
            remove_unfinished(run.logging_root)
            write_json(logs / "options.json", {**start, "history": [*history, start]})
            yield logs, runs
    finally:
        with suppress(OSError):
            if not (logs / "options.json").exists():
                (logs / ".lock").unlink(missing_ok=True)
                runs.rmdir()
                logs.rmdir()


def open_run_folders(run: Run) -> tuple[Path, Path, list[dict]]:
    """The folders for checkpoints and for tensorboard, and the history recorded in the run's
    `options.json`.

    A resumed run continues in its own folders if they lie under the logging root; any other run
    gets new ones.
    """
    root = run.logging_root
    logs = run.resume.resolve().parent if run.resume else None
    if (
        logs is None
        or not logs.is_relative_to((root / "logs").resolve())
        or not (logs / "options.json").is_file()
    ):
        name = run.experiment_name or run.data_root.resolve().name
        logs, runs = make_run_folder(root, "logs", "runs", name=name)
        return logs, runs, []
    runs = root / "runs" / logs.relative_to((root / "logs").resolve())
    runs.mkdir(parents=True, exist_ok=True)
    try:
        history = list(read_json(logs / "options.json", MAX_HISTORY_BYTES)["history"])
    except (KeyError, TypeError, InputError):
        raise InputError(
            f"{logs / 'options.json'}: is damaged; to resume {run.resume} without it, choose "
            "another --logging_root"
        ) from None
    return logs, runs, history


def remove_unfinished(root: Path) -> None:
    """Removes the checkpoints that runs under the root were writing when they were killed. A run
    killed during its first save is never resumed, so it would not remove its own."""
    for part in root.glob("logs/*/*/.*.pth.part"):
        # A run that is alive holds its lock, which raises InputError here.
        with suppress(InputError, OSError), RunLock(part.parent) as lock:
            if lock.descriptor() is not None:  # without file locks nobody knows
                part.unlink()


def describe_start(
    flags: dict[str, object], first_step: int, device: torch.device, ranks: Ranks
) -> dict:
    """What `options.json` holds of each start of a run: all options, and the machine."""
    return {
        "time": datetime.now().isoformat(timespec="milliseconds"),
        "first_step": first_step,
        "options": flags,
        "machine": {**describe_machine(device), "processes": ranks.count},
    }


class RunLock(Lock):
    """Holds a run's folder."""

    def __init__(self, folder: Path):
        super().__init__(folder / ".lock", f"{folder}: another process is writing this run")


class Signals:
    """Takes SIGINT, SIGTERM and SIGHUP as requests to stop after the current step, and SIGUSR1 as a
    request to save.

    stop: the signal that asked to stop, or None. A second SIGINT or SIGTERM ends the process at
    once, unless it comes within `SAME_REQUEST` of the first: a scheduler may signal a process and
    its parent, which passes the signal on. A second SIGHUP does not, because a terminal that closes
    may send two.
    """

    def __init__(self):
        self.stop: int | None = None
        self.save = False
        self._asked = 0.0

    def __enter__(self) -> "Signals":
        self._handling = handling(self._handle, *ENDING, "SIGUSR1")
        self._handling.__enter__()
        return self

    def __exit__(self, *error) -> None:
        self._handling.__exit__(*error)

    def _handle(self, number: int, _frame) -> None:
        if number == SIGUSR1:
            self.save = True
        elif self.stop is None:
            self.stop = number
            self._asked = time.monotonic()
        elif number != SIGHUP and time.monotonic() - self._asked > SAME_REQUEST:
            os._exit(128 + number)
