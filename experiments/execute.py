"""Carries out one run of a plan: run_deepvoxels.py trains it, resuming where it was stopped, and
tests it.

Whoever carries out a run holds its lock, so that any number of processes, on machines that share
the file system, can take runs one by one. What it did is in the run's `commands.json`, the output
in its `log.txt`.
"""

import os
import shlex
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from experiments.plan import OUT, Plan
from experiments.status import PROGRESS, count_failures, find_result, read_commands
from files.folders import Lock
from machine.progress import REPORT_VARIABLE
from util import InputError, write_json

ROOT = Path(__file__).parent.parent
# A look at the state of a run may hold its lock for an instant (`folders.is_locked`).
LOCK_SECONDS = 0.05


class Commands:
    """The commands that this process runs now. Once they are stopped, no new one starts."""

    def __init__(self):
        self._running: set[subprocess.Popen] = set()
        self._guard = threading.Lock()
        self.stopping = False

    def start(self, words: Sequence[str], **kwargs) -> subprocess.Popen | None:
        """Starts a command, in a session of its own, so that Ctrl-C reaches it only through `stop`.
        None if commands were stopped before."""
        with self._guard:
            if self.stopping:
                return None
            process = subprocess.Popen(
                words, cwd=ROOT, stdin=subprocess.DEVNULL, start_new_session=True, **kwargs
            )
            self._running.add(process)
            return process

    def stop(self) -> None:
        """Asks every command to stop, which lets training save."""
        self._signal(subprocess.Popen.terminate)

    def kill(self) -> None:
        self._signal(subprocess.Popen.kill)

    def _signal(self, send) -> None:
        with self._guard:
            self.stopping = True
            for process in self._running:
                send(process)


@contextmanager
def taken(folder: Path, failures: int) -> Iterator[Lock | None]:
    """Holds the lock of a run. None if there is nothing to do: it is done, another process holds
    it, or one has tried it and failed meanwhile (more than `failures` of its commands have
    failed)."""
    if find_result(folder):
        yield None
        return
    folder.mkdir(parents=True, exist_ok=True)
    try:
        lock = Lock(
            folder / ".lock", f"{folder}: another process carries out this run", wait=LOCK_SECONDS
        )
    except InputError:
        yield None
        return
    with lock:
        yield lock if find_result(folder) is None and count_failures(folder) <= failures else None


@dataclass(frozen=True)
class Slot:
    """Room for one run at a time. commands: those of this process. environment: variables for the
    commands in this slot, besides this process's."""

    commands: Commands
    environment: dict[str, str]


def carry_out(plan: Plan, name: str, flags: Sequence[str], lock: Lock, slot: Slot) -> None:
    """Trains and tests a run whose lock this process holds, until a command fails or the commands
    are stopped. flags: flags of run_deepvoxels.py that do not change what is learned."""
    folder = plan.folder(name)
    for words in command_lines(plan, name, flags):
        if not _call(folder, words, lock, slot):
            return


def command_lines(plan: Plan, name: str, flags: Sequence[str]) -> Iterator[list[str]]:
    """What is left to do for a run: the arguments of `python`, one command after the other has
    ended well. Raises `InputError` if a training has left no checkpoint of its last step."""
    out = str(plan.out.absolute())
    folder = plan.folder(name).absolute()
    prepare, train, test = (
        [word.replace(OUT, out) for word in shlex.split(plan.runs[name][line])[1:]]
        for line in ("prepare", "train", "test")
    )
    more = ["--logging_root", str(folder), *flags]
    checkpoint = []
    if prepare and not Path(plan.runs[name]["views"].replace(OUT, out)).exists():
        yield prepare
    if train:
        yield [train[0], *more, *train[1:]]  # the run's own flags last, so that they count
        # By its step: the newest may be of a training that is not finished.
        trained = max(folder.glob(f"logs/*/*/model-epoch_*_iter_{plan.steps}.pth"), default=None)
        if trained is None:
            raise InputError(
                f"{folder}: holds no checkpoint of step {plan.steps}, though training ended well"
            )
        checkpoint = ["--checkpoint", str(trained)]
    yield [*test, *more, *checkpoint]


def _call(folder: Path, words: list[str], lock: Lock, slot: Slot) -> bool:
    """Runs a command with its output in `log.txt`, and records it in `commands.json`. Returns
    whether it ended well."""
    begin = time.monotonic()
    earlier = read_commands(folder)
    descriptor = lock.descriptor()
    progress = folder.absolute() / PROGRESS
    progress.unlink(missing_ok=True)
    with open(folder / "log.txt", "ab") as log:
        entry = {
            "command": shlex.join(["python", *words]),
            "where": place(slot.environment),
            "log_begin": log.tell(),
            "seconds": None,
            "exit_code": None,
        }
        write_json(folder / "commands.json", {"commands": [*earlier, entry]})
        # The command inherits the lock: if this process is killed, nobody else takes the run while
        # the command lives.
        process = slot.commands.start(
            [sys.executable, *words],
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, REPORT_VARIABLE: str(progress), **slot.environment},
            pass_fds=() if descriptor is None or os.name == "nt" else (descriptor,),
        )
    if process is None:
        write_json(folder / "commands.json", {"commands": earlier})
        return False
    process.wait()
    entry |= {"seconds": round(time.monotonic() - begin, 1), "exit_code": process.returncode}
    write_json(folder / "commands.json", {"commands": [*earlier, entry]})
    return process.returncode == 0


def place(environment: dict[str, str]) -> str:
    """Where this process runs a command, for people who look for it."""
    names = ("SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID")
    job = "_".join(os.environ[name] for name in names if name in os.environ)
    job = job or os.environ.get("SLURM_JOB_ID")
    process = f"SLURM job {job}" if job else f"process {os.getpid()}"
    text = f"{process} on {socket.gethostname()}"
    gpu = environment.get("CUDA_VISIBLE_DEVICES")
    return f"{text}, GPU {gpu}" if gpu else text
