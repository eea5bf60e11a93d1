"""Takes the runs of a plan one by one until none is left, several at once on several GPUs or shares
of the cores.

    python -m experiments.worker --out results/table1 --gpus 0-7
    python -m experiments.worker --out results/table1 --runs cube-worrall-seed0 --device cuda:1

The runs are those that an experiment's command has planned. Any number of workers, on machines that
share the folder, can work on one experiment. Ctrl-C saves and stops the runs; the next worker
resumes them. Flags that it does not know go to run_deepvoxels.py, if they neither change what is
learned nor are the experiment's to set.
"""

import argparse
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from pathlib import Path

import torch
from tqdm import tqdm

from experiments.execute import Commands, carry_out, taken
from experiments.plan import Plan, read_plan, split_flags
from experiments.status import count_failures, find_result, read_progress, read_state
from machine.cli import Parser, number, run
from util import InputError, usable_cores

PROG = "experiments.worker"
MAX_GPU = 1023
SHOW_SECONDS = 1  # between updates of the progress bar on a terminal
LOG_SECONDS = 30  # and in a file


def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser(PROG, __doc__, allow_abbrev=False)
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="folder of the experiment"
    )
    parser.add_argument("--runs", nargs="+", metavar="NAME", help="names of runs (default: all)")
    add_slot_arguments(parser.add_mutually_exclusive_group())
    args, flags = parser.parse_known_args(argv)
    plan = read_plan(args.out)
    names = args.runs
    for name in names or []:
        if name not in plan.runs:
            raise InputError(f"--runs {name}: {args.out} plans no such run")
    names = names or list(plan.runs)
    work(plan, names, free_flags(PROG, flags), make_slots(args, flags))
    return int(any(read_state(plan.folder(name)).kind == "failed" for name in names))


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


def free_flags(prog: str, flags: Sequence[str]) -> list[str]:
    """The flags for run_deepvoxels.py. Raises `InputError` for one that decides what is learned or
    that the experiment sets."""
    learning, free = split_flags(prog, flags)
    if learning:
        raise InputError(
            f"{learning[0]}: cannot be given to a worker, since it decides what is learned"
        )
    return free


def make_slots(args: argparse.Namespace, flags: Sequence[str]) -> list[dict[str, str]]:
    """The environment variables of each run that goes at once, by --jobs or --gpus. Raises
    `InputError` for a GPU that is not there."""
    if not args.gpus:
        count = args.jobs or 1
        # Alone, a run uses what PyTorch takes by itself.
        return [{}] if count == 1 else [thread_share(count)] * count
    if any(word.startswith("--device") for word in flags):
        raise InputError("--gpus and --device exclude each other")
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    for gpu in args.gpus:
        if gpu >= torch.cuda.device_count():
            raise InputError(
                f"--gpus {gpu}: PyTorch finds {torch.cuda.device_count() or 'no'} CUDA devices here"
            )
    return [
        {
            **thread_share(len(args.gpus)),
            "CUDA_VISIBLE_DEVICES": visible.split(",")[gpu] if visible else f"{gpu}",
        }
        for gpu in args.gpus
    ]


def thread_share(count: int) -> dict[str, str]:
    """The number of threads of each of `count` runs; what the environment says already stays."""
    return {
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", f"{max(1, usable_cores() // count)}")
    }


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

    def take_runs(environment: dict[str, str]) -> None:
        while queue and not commands.stopping:
            try:
                number_, name = queue.popleft()
            except IndexError:
                return
            with taken(plan.folder(name), failures[name]) as lock:
                if lock is None:
                    continue
                say(f"[{number_}/{len(missing)}] {name}: see {plan.folder(name) / 'log.txt'}")
                carry_out(plan, name, flags, lock, commands, environment)
            say(f"  {name}: {ending(plan.folder(name))}")

    with (
        StopSignals() as signals,
        StepBar(plan, names) as bar,
        ThreadPoolExecutor(len(slots)) as pool,
    ):
        futures = [pool.submit(take_runs, environment) for environment in slots]
        stops = 0
        waiting = set(futures)
        try:
            while waiting:
                _, waiting = wait(futures, timeout=0.1)
                if signals.count > stops:
                    stops = signals.count
                    commands.stop() if stops == 1 else commands.kill()
                bar.show(last=not waiting)
        except BaseException:
            commands.stop()
            raise
    for future in futures:
        future.result()
    if signals.count:
        raise KeyboardInterrupt


def say(line: str) -> None:
    """Prints a line above the progress bar."""
    tqdm.write(line)
    sys.stdout.flush()


def ending(folder: Path) -> str:
    """How a run that this process carried out has ended."""
    result = find_result(folder)
    state = read_state(folder)
    if result is None:
        return f"failed: {state.text}" if state.kind == "failed" else state.text or state.kind
    return f"PSNR {result.metrics['psnr']:.2f} dB, SSIM {result.metrics['ssim']:.3f}" + (
        "" if result.seconds is None else f" after {result.seconds:.0f} s"
    )


class StopSignals:
    """Counts SIGINT, SIGTERM and SIGHUP as requests to stop; SIGHUP once, because a terminal that
    closes may send two. A signal that is ignored (`nohup`) stays ignored."""

    def __init__(self):
        self.count = 0

    def __enter__(self) -> "StopSignals":
        numbers = [
            getattr(signal, name)
            for name in ("SIGINT", "SIGTERM", "SIGHUP")
            if hasattr(signal, name)
        ]
        self._previous = {
            number_: signal.signal(number_, self._handle)
            for number_ in numbers
            if signal.getsignal(number_) is not signal.SIG_IGN
        }
        return self

    def __exit__(self, *_) -> None:
        for number_, handler in self._previous.items():
            signal.signal(number_, handler)

    def _handle(self, number_: int, _frame) -> None:
        if not self.count or number_ != getattr(signal, "SIGHUP", None):
            self.count += 1


class StepBar(tqdm):
    """The training steps of all runs on the terminal, those of other processes included."""

    def __init__(self, plan: Plan, names: Sequence[str]):
        self._plan = plan
        self._names = [name for name in names if plan.runs[name]["train"]]
        self._steps = dict.fromkeys(self._names, 0)
        self._read()
        self._seconds = SHOW_SECONDS if sys.stderr.isatty() else LOG_SECONDS
        super().__init__(
            total=plan.steps * len(self._names),
            initial=sum(self._steps.values()),
            unit="step",
            dynamic_ncols=True,
            mininterval=self._seconds,
            disable=not self._names,
        )
        self._shown = time.monotonic()

    def _read(self) -> None:
        for name in self._names:
            folder = self._plan.folder(name)
            if self._steps[name] < self._plan.steps:
                progress = read_progress(folder)
                if find_result(folder) or progress and progress.unit == "frame":
                    self._steps[name] = self._plan.steps
                elif progress:
                    self._steps[name] = progress.done

    def show(self, last: bool = False) -> None:
        """Shows the progress, if it was not shown just now or this is the last time."""
        if last or time.monotonic() - self._shown >= self._seconds:
            with suppress(
                OSError, ValueError
            ):  # a shared file system may answer late: the next time will do
                self._read()
            self.update(sum(self._steps.values()) - self.n)
            self._shown = time.monotonic()


if __name__ == "__main__":
    run(PROG, main)
