"""Carries out the runs of a study as tasks of a SLURM cluster, through submitit: `--slurm`.

Each run that is not done and has no task yet becomes one task of an array. SLURM starts a task
again that was requeued, preempted or lost its node; training resumes where it was saved. Nothing
needs SLURM's accounting: the queue says which tasks there are, a run's folder how it has ended.

A submission's tasks are called NAME in SLURM. OUT/slurm/NAME/runs.json holds its runs in the order
of the tasks; the other files there are submitit's: what a task is to do, and its output.
"""

import argparse
import io
import math
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

from experiments.execute import ROOT
from experiments.plan import MAX_RECORD_BYTES, Plan, read_plan
from experiments.status import read_state
from experiments.work import StepBar, how_it_ended, say, work
from files.folders import Lock
from machine.cli import Parser, number
from util import InputError, read_json, write_json

POLL_SECONDS = 10
SETTLE_SECONDS = 15  # until a shared file system shows what another machine wrote
SAVE_SECONDS = 180  # before its time is over, a task is warned so that it saves
# What a submission needs as it is.
OWN_OPTIONS = {
    "array",
    "chdir",
    "error",
    "job-name",
    "no-requeue",
    "ntasks-per-node",
    "open-mode",
    "output",
    "requeue",
    "signal",
}


@dataclass(frozen=True)
class SlurmOptions:
    """What a task asks of the cluster: a partition (None: the cluster's default), 0 or 1 GPUs, a
    time limit in hours, and further options of sbatch."""

    partition: str | None = None
    gpus_per_task: int = 1
    hours: float = 24.0
    extra: tuple[tuple[str, str], ...] = ()

    def for_sbatch(self) -> dict[str, object]:
        """All options of a submission."""
        minutes = math.ceil(60 * self.hours)
        options = {
            "time": minutes,
            "requeue": True,
            "chdir": str(ROOT),
            "ntasks-per-node": 1,
            # To the task's processes, which `work_in_task` expects, so many seconds before its time
            # is over.
            "signal": f"USR1@{min(SAVE_SECONDS, 30 * minutes)}",
        }
        if self.partition:
            options["partition"] = self.partition
        if self.gpus_per_task:
            options["gpus-per-task"] = self.gpus_per_task
        return options | dict(self.extra)


class Task(NamedTuple):
    """A task in SLURM's queue, with the folder of its submission. text: its state, and its node or
    why it waits."""

    id: str
    running: bool
    text: str
    folder: Path

    @property
    def work_file(self) -> Path:
        """Where submitit puts what the task is to do, after the task has been queued."""
        return self.folder / f"{self.id}_submitted.pkl"


def add_slurm_arguments(parser: Parser) -> None:
    """The flags besides --slurm itself. None: not given."""
    group = parser.add_argument_group("with --slurm")
    group.add_argument(
        "--slurm_partition", metavar="NAME", help="partition (default: the cluster's)"
    )
    group.add_argument(
        "--slurm_gpus_per_task",
        type=number(int, 0, 1),
        metavar="N",
        help="GPUs of each task: 1 or 0 (default: 1)",
    )
    group.add_argument(
        "--slurm_hours",
        type=number(float, above=0),
        metavar="H",
        help="time limit of a task; one that reaches it saves and is queued again (default: 24)",
    )
    group.add_argument(
        "--slurm_extra",
        type=key_value,
        nargs="+",
        metavar="KEY=VALUE",
        help="further options of sbatch, for example account=vision mem=16G cpus-per-task=4",
    )


def key_value(text: str) -> tuple[str, str]:
    """An argparse type: KEY=VALUE, the key as sbatch writes it."""
    key, equals, value = text.partition("=")
    key = key.lstrip("-").replace("_", "-")
    if not key or not equals:
        raise argparse.ArgumentTypeError(f"{text} is not KEY=VALUE")
    if key in OWN_OPTIONS:
        raise argparse.ArgumentTypeError(f"{key} cannot be given, the experiment sets it")
    return key, value


def slurm_options(args: argparse.Namespace) -> SlurmOptions | None:
    """What --slurm and its flags ask for; None without it. Raises `InputError` for what can be seen
    to be wrong before anything is written."""
    given = {
        name.removeprefix("slurm_"): value
        for name, value in vars(args).items()
        if name.startswith("slurm_") and value is not None
    }
    if not args.slurm:
        for name in given:
            raise InputError(f"--slurm_{name}: needs --slurm")
        return None
    if "extra" in given:
        given["extra"] = tuple(given["extra"])
    options = SlurmOptions(**given)
    if shutil.which("sbatch") is None:
        raise InputError(
            "--slurm: SLURM is not installed here (no sbatch); run this on a machine of the cluster"
        )
    try:
        import submitit  # noqa: F401  only --slurm needs it
    except ImportError:
        raise InputError("--slurm: submitit is not installed; pip install submitit") from None
    partitions = call("sinfo", "--all", "--noheader", "--format=%R").split()
    for name in (options.partition or "").split(","):
        if name and name not in partitions:
            raise InputError(
                f"--slurm_partition {name}: the cluster has no such partition, only "
                f"{', '.join(sorted(set(partitions)))}"
            )
    return options


def run_on_slurm(plan: Plan, names: Sequence[str], flags: list[str], options: SlurmOptions) -> None:
    """Submits the runs that are neither done nor under way, and waits until none of them has a
    task.

    SIGINT, SIGTERM and SIGHUP leave the tasks in the queue. Raises `InputError` if a task ended
    without having seen the experiment's folder.
    """
    tasks = submit_missing(plan, names, flags, options)
    if not tasks:
        return
    try:
        wait_for_tasks(plan, tasks)
    except KeyboardInterrupt:
        submissions = ",".join(sorted({task.folder.name for task in tasks.values()}))
        say(
            "The tasks go on without this command. The same command waits for them again; "
            f"--status and --collect show what is done; scancel --name={submissions} ends them."
        )
        raise
    say_why_lost(plan, tasks)


def submit_missing(
    plan: Plan, names: Sequence[str], flags: list[str], options: SlurmOptions
) -> dict[str, Task]:
    """Submits the runs that are not done, do not run and have no task. Returns the tasks of the
    runs that have one."""
    root = plan.out.absolute() / "slurm"
    root.mkdir(exist_ok=True)
    with Lock(root / ".lock", f"{root}: another process is submitting", wait=-1):
        tasks = read_queue(plan.out)
        # A command that was killed while it submitted left tasks that will find nothing to do.
        cut_off = [name for name, task in tasks.items() if not task.work_file.exists()]
        if cut_off:
            call("scancel", *(tasks.pop(name).id for name in cut_off))
        tasks = {name: task for name, task in tasks.items() if name in names}
        missing = [
            name
            for name in names
            if name not in tasks and read_state(plan.folder(name)).kind in ("waiting", "failed")
        ]
        if missing:
            folder = root / f"{plan.experiment}-{secrets.token_hex(4)}"
            work_of = partial(work_in_task, plan.out.absolute(), flags=flags)
            tasks |= submit({name: partial(work_of, name) for name in missing}, options, folder)
        say(f"{len(missing)} runs submitted, {len(tasks) - len(missing)} in SLURM's queue before")
    return tasks


def submit(work_of: dict[str, partial], options: SlurmOptions, folder: Path) -> dict[str, Task]:
    """Submits an array of one task for each run. Raises `InputError` if sbatch refuses it."""
    import submitit  # only --slurm needs it

    executor = submitit.SlurmExecutor(folder=folder)
    executor.update_parameters(job_name=folder.name, additional_parameters=options.for_sbatch())
    folder.mkdir(parents=True)
    write_json(folder / "runs.json", {"runs": list(work_of)})
    try:
        with redirect_stderr(io.StringIO()):  # where submitit repeats what sbatch says
            jobs = executor.submit_array(list(work_of.values()))
    except RuntimeError as error:
        shutil.rmtree(folder)
        lines = [line for line in str(error).splitlines() if not line.startswith("Try ")]
        reason = (lines or ["no reason"])[0].removeprefix("sbatch: ").removeprefix("error: ")
        raise InputError(f"--slurm: sbatch refuses: {reason}") from None
    return {
        name: Task(job.job_id, False, "", folder) for name, job in zip(work_of, jobs, strict=True)
    }


def wait_for_tasks(plan: Plan, tasks: dict[str, Task]) -> None:
    """Shows the progress until no run has a task any more. `tasks`: those now, by run."""
    with StepBar(plan, list(tasks)) as bar:
        while tasks:
            running = sum(task.running for task in tasks.values())
            bar.set_postfix_str(
                f"tasks: {running} running, {len(tasks) - running} waiting", refresh=False
            )
            bar.look()
            time.sleep(POLL_SECONDS)
            try:
                now = {name: task for name, task in read_queue(plan.out).items() if name in tasks}
            except InputError as error:  # SLURM's controller may be down for a while
                say(f"warning: {error}")
                continue
            for name in tasks.keys() - now.keys():
                if read_state(plan.folder(name)).kind in ("done", "failed"):
                    say(f"  {name}: {how_it_ended(plan, name)}")
            tasks = now


def say_why_lost(plan: Plan, tasks: dict[str, Task]) -> None:
    """Says why tasks ended that left their run neither done nor failed. Raises `InputError` if one
    could not see the experiment's folder."""
    end = time.monotonic() + SETTLE_SECONDS
    while lost := [name for name in tasks if read_state(plan.folder(name)).kind == "waiting"]:
        if time.monotonic() > end:
            break
        time.sleep(1)
    for name in lost:
        id_ = tasks[name].id
        output = tasks[name].folder / f"{id_}_0_log.err"
        try:
            state = re.findall(r"JobState=(\S+)", call("scontrol", "show", "job", id_))[0].lower()
        except (InputError, IndexError):  # SLURM forgets a task after some minutes
            state = "ended"
        if not output.exists() and state != "cancelled":
            raise InputError(
                f"{output.parent}: task {id_} ended ({state}) without writing here; does every "
                "node see this folder?"
            )
        say(f"{name}: task {id_} {state}: {last_words(output)}")
    if lost:
        say("The same command submits these runs again.")


def last_words(path: Path) -> str:
    """What SLURM says last in a task's output, or else its last line with an error, or else its
    last line."""
    lines = []
    if path.exists():
        lines = [line.strip() for line in path.read_text(errors="replace").splitlines()]
    for mark in ("***", "error: ", ""):
        for line in reversed(lines):
            if line and mark in line:
                return line[:200]
    return "no output"


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
            runs[name] = read_json(submissions[name], MAX_RECORD_BYTES)["runs"]
        run = runs[name][int(index) if index.isdecimal() else 0]  # a single task has no index
        tasks[run] = Task(
            id_,
            bool(nodes),
            f"SLURM task {id_} {state.lower()}" + (f" on {nodes}" if nodes else f" ({reason})"),
            submissions[name].parent,
        )
    return tasks


def queue_states(out: Path) -> dict[str, str]:
    """The queue state of each queued run; empty where SLURM does not answer."""
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


def wait_for_other(folder: Path) -> None:
    """Waits while another process carries out the run in a folder."""
    said = False
    while (state := read_state(folder)).kind == "running":
        if not said:
            print(f"{folder.name}: waits for {state.text}", flush=True)
            said = True
        time.sleep(POLL_SECONDS)


def work_in_task(out: Path, name: str, flags: list[str]) -> None:
    """A task: carries out one run, after any other process that carries it out has ended.

    That may be a task of the same run on a node that SLURM has lost sight of. SIGTERM saves and
    ends the task; SIGUSR1, which says that its time is nearly over, saves and queues it again.
    """
    import submitit  # only tasks and their submission need it

    warned = []

    def stop_and_requeue(*_) -> None:
        if not warned:
            warned.append(True)
            os.kill(os.getpid(), signal.SIGTERM)

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # submitit ignores it
    signal.signal(signal.SIGUSR1, stop_and_requeue)
    try:
        plan = read_plan(out)
        folder = plan.folder(name)
        while True:
            wait_for_other(folder)
            work(plan, [name], flags, [{}])
            state = read_state(folder)
            if state.kind in ("done", "failed"):
                break
    except KeyboardInterrupt:
        signal.signal(
            signal.SIGTERM, signal.SIG_IGN
        )  # which SLURM sends to a task that is requeued
        if warned:
            # Not $SLURM_JOB_ID, which for one task of an array means the whole array.
            subprocess.run(["scontrol", "requeue", submitit.JobEnvironment().job_id], check=True)
        sys.exit(143)
    except InputError as error:
        sys.exit(f"error: {error}")
    if state.kind == "failed":
        sys.exit(f"error: {name}: {state.text}")
