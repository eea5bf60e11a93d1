"""A run's folders: found or made, held by one process, with a record of each start; and the signals sent to a run."""
import json
import os
import signal
from argparse import Namespace
from datetime import datetime
from pathlib import Path

import torch

from folders import Lock
from runtime import describe_machine
from util import InputError, make_run_folder, read_text, write_json


def open_run_folders(opt: Namespace, scene_root: Path) -> tuple[Path, Path, list[dict]]:
    """The folders for checkpoints and for tensorboard, and the history recorded in the run's `options.json`.

    A resumed run continues in its own folders if they lie under the logging root; any other run gets new ones.
    """
    root = Path(opt.logging_root)
    logs = Path(opt.resume).resolve().parent if opt.resume else None
    if logs is None or not logs.is_relative_to((root / "logs").resolve()) or not (logs / "options.json").is_file():
        logs, runs = make_run_folder(root, "logs", "runs", name=opt.experiment_name or scene_root.resolve().name)
        return logs, runs, []
    runs = root / "runs" / logs.relative_to((root / "logs").resolve())
    runs.mkdir(parents=True, exist_ok=True)
    try:
        history = list(json.loads(read_text(logs / "options.json"))["history"])
    except (KeyError, TypeError, ValueError):
        raise InputError(f"{logs / 'options.json'}: is damaged; to resume {opt.resume} without it, choose another "
                         "--logging_root") from None
    return logs, runs, history


def record_start(logs: Path, history: list[dict], opt: Namespace, first_step: int, device: torch.device) -> None:
    """Writes `options.json`: all options and the machine, of this start and of the run's earlier ones."""
    start = {"time": datetime.now().isoformat(timespec="seconds"), "first_step": first_step, "options": vars(opt),
             "machine": describe_machine(device)}
    write_json(logs / "options.json", {**start, "history": [*history, start]})


class RunLock(Lock):
    """Holds a run's folder."""

    def __init__(self, folder: Path):
        super().__init__(folder / ".lock", f"{folder}: another process is writing this run")


class Signals:
    """Takes SIGINT and SIGTERM as requests to stop after the current step, and SIGUSR1 as a request to save.

    stop: the signal that asked to stop, or None. A second one ends the process at once.
    """

    def __init__(self):
        self.stop: int | None = None
        self.save = False

    def __enter__(self) -> "Signals":
        self._previous = {number: signal.signal(number, self._handle)
                          for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)}
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _handle(self, number: int, _frame) -> None:
        if number == signal.SIGUSR1:
            self.save = True
        elif self.stop is None:
            self.stop = number
        else:
            os._exit(128 + number)
