"""Takes the runs of a plan one by one until none is left, several at once on several GPUs or shares
of the cores."""

import argparse
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress

import torch

from experiments.execute import Commands, Slot, carry_out, taken
from experiments.plan import Plan
from experiments.status import count_failures, find_result, read_progress, read_state
from machine.cli import number
from machine.progress import LOG_SECONDS, Progress
from machine.signals import ENDING, handling
from util import InputError, usable_cores

MAX_GPU = 1023
SHOW_SECONDS = 1  # between looks at the runs on a terminal; elsewhere `LOG_SECONDS`


def add_slot_arguments(group: argparse._MutuallyExclusiveGroup) -> None:
    group.add_argument(
        "--jobs",
        type=number(int, 1),
        metavar="N",
        help="run N at once, each with its share of the cores unless OMP_NUM_THREADS is set "
        "(default: 1)",
    )
    group.add_argument(
        "--gpus",
        type=gpu_list,
        metavar="LIST",
        help="run one at once on each of these: 0-7 or 0,2,5",
    )


def gpu_list(text: str) -> list[int]:
    """An argparse type: numbers and ranges, as 0-3 or 0,2,5-7."""
    gpus = []
    for part in text.split(","):
        first, dash, last = part.partition("-")
        if not (first.isdecimal() and (last.isdecimal() if dash else not last)):
            raise argparse.ArgumentTypeError(f"{text} is not a list of GPUs as 0-7 or 0,2,5")
        gpus += range(int(first), min(int(last if dash else first), MAX_GPU) + 1)
    if not gpus or len(set(gpus)) < len(gpus):
        raise argparse.ArgumentTypeError(f"{text} names a GPU twice, or none")
    return gpus


def make_slots(
    jobs: int | None, gpus: list[int] | None, flags: Sequence[str]
) -> list[dict[str, str]]:
    """The environment variables of each run that goes at once, by --jobs or --gpus. Raises
    `InputError` for a GPU that is not there."""
    if not gpus:
        if jobs in (None, 1):
            return [{}]  # alone, a run uses what PyTorch takes by itself
        return [thread_share(jobs)] * jobs
    if any(word.startswith("--device") for word in flags):
        raise InputError("--gpus and --device exclude each other")
    count = torch.cuda.device_count()
    for gpu in gpus:
        if gpu >= count:
            raise InputError(f"--gpus {gpu}: PyTorch finds {count or 'no'} CUDA devices here")
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = visible.split(",") if visible else list(map(str, range(count)))
    share = thread_share(len(gpus))
    return [{**share, "CUDA_VISIBLE_DEVICES": names[gpu]} for gpu in gpus]


def thread_share(count: int) -> dict[str, str]:
    """The number of threads of each of `count` runs, unless the environment sets one already."""
    share = max(1, usable_cores() // count)
    return {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(share))}


def work(
    plan: Plan, names: Sequence[str], flags: Sequence[str], slots: list[dict[str, str]]
) -> None:
    """Carries out those of the runs that are neither done nor taken by another process,
    `len(slots)` at once.

    flags: see `carry_out`. slots: each one's environment variables. A run that fails does not stop
    the others. SIGINT, SIGTERM and SIGHUP save and stop all runs; a second SIGINT or SIGTERM kills
    them. `KeyboardInterrupt` follows.
    """
    missing = [name for name in names if find_result(plan.folder(name)) is None]
    queue = deque(enumerate(missing, start=1))
    commands = Commands()
    failures = {name: count_failures(plan.folder(name)) for name in missing}

    def take_runs(slot: Slot) -> None:
        while queue and not commands.stopping:
            try:
                index, name = queue.popleft()
            except IndexError:
                return
            with taken(plan.folder(name), failures[name]) as lock:
                if lock is None:
                    continue
                say(f"[{index}/{len(missing)}] {name}: see {plan.folder(name) / 'log.txt'}")
                carry_out(plan, name, flags, lock, slot)
            say(f"  {name}: {how_it_ended(plan, name)}")

    stops = Stops(commands)
    with (
        handling(stops.ask, *ENDING),
        StepBar(plan, names) as bar,
        ThreadPoolExecutor(len(slots)) as pool,
    ):
        futures = [pool.submit(take_runs, Slot(commands, environment)) for environment in slots]
        waiting = set(futures)
        try:
            while waiting:
                _, waiting = wait(futures, timeout=0.1)
                stops.act()
                bar.look(last=not waiting)
        except BaseException:
            commands.stop()
            raise
    for future in futures:
        future.result()
    if stops.asked:
        say("stopped; repeat the command to continue")
        raise KeyboardInterrupt


def say(line: str) -> None:
    """Prints a line above the progress bar."""
    Progress.write(line)
    sys.stdout.flush()


def how_it_ended(plan: Plan, name: str) -> str:
    """How a run that this process carried out has ended."""
    folder = plan.folder(name)
    result = find_result(folder)
    if result is not None:
        text = f"PSNR {result.metrics['psnr']:.2f} dB, SSIM {result.metrics['ssim']:.3f}"
        return text if result.seconds is None else f"{text} after {result.seconds:.0f} s"
    state = read_state(folder)
    if state.kind == "failed":
        return f"failed: {state.text}"
    return state.text or state.kind


class Stops:
    """Requests to stop the commands. The first stops them, another kills them. Of SIGHUP only the
    first counts, since a terminal that closes may send two."""

    def __init__(self, commands: Commands):
        self.asked = 0
        self._acted = 0
        self._commands = commands

    def ask(self, signal_number: int, _frame) -> None:
        """The signals' handler. It only counts: a handler must not wait for locks."""
        if not self.asked or signal_number != getattr(signal, "SIGHUP", None):
            self.asked += 1

    def act(self) -> None:
        """Does what was asked since the last call."""
        if self.asked == self._acted:
            return
        self._acted = self.asked
        if self.asked == 1:
            self._commands.stop()
        else:
            self._commands.kill()


class StepBar(Progress):
    """The training steps of all runs, those of other processes included."""

    def __init__(self, plan: Plan, names: Sequence[str]):
        self._plan = plan
        self._names = [name for name in names if plan.runs[name]["train"]]
        self._steps = dict.fromkeys(self._names, 0)
        self._read()
        super().__init__(
            total=plan.steps * len(self._names),
            initial=sum(self._steps.values()),
            unit="step",
            disable=not self._names,
        )
        self._seconds = SHOW_SECONDS if sys.stderr.isatty() else LOG_SECONDS
        self._looked = time.monotonic()

    def _read(self) -> None:
        for name in self._names:
            folder = self._plan.folder(name)
            if self._steps[name] < self._plan.steps:
                progress = read_progress(folder)
                if find_result(folder) or progress and progress.unit == "frame":
                    self._steps[name] = self._plan.steps
                elif progress and progress.unit == "step":
                    self._steps[name] = progress.done

    def look(self, last: bool = False) -> None:
        """Shows the progress, unless that was done just now and this is not the last time."""
        if not last and time.monotonic() - self._looked < self._seconds:
            return
        # A shared file system may answer late: the next time will do.
        with suppress(OSError, ValueError):
            self._read()
        self.update(sum(self._steps.values()) - self.n)
        self._looked = time.monotonic()
