"""Carries out the runs of an experiment as tasks of a SLURM cluster, through submitit: `--slurm`.

Each run that is not done and has no task yet becomes one task of an array
(`experiments.slurm_task`). SLURM starts a task again that was requeued, preempted or lost its node;
training resumes where it was saved. Nothing needs SLURM's accounting: the queue says which tasks
there are (`experiments.slurm_queue`), a run's folder how it has ended.
"""

import argparse
import io
import math
import re
import secrets
import shutil
import time
from collections.abc import Sequence
from contextlib import redirect_stderr
from functools import partial
from pathlib import Path

from experiments.execute import ROOT
from experiments.plan import Plan
from experiments.slurm_queue import Task, call, read_queue
from experiments.slurm_task import SAVE_SECONDS, work_in_task
from experiments.status import read_state
from experiments.worker import StepBar, ending, say
from files.folders import Lock
from machine.cli import Parser, number
from util import InputError, write_json

POLL_SECONDS = 10
SETTLE_SECONDS = 15  # until a shared file system shows what another machine wrote
DEFAULTS = {
    "slurm_partition": None,
    "slurm_gpus_per_task": 1,
    "slurm_hours": 24.0,
    "slurm_extra": [],
}
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


def check_slurm(args: argparse.Namespace) -> None:
    """Fills in the defaults. Raises `InputError` for what can be seen to be wrong before anything
    is written."""
    for name, default in DEFAULTS.items():
        if getattr(args, name) is None:
            setattr(args, name, default)
        elif not args.slurm:
            raise InputError(f"--{name}: needs --slurm")
    if not args.slurm:
        return
    if shutil.which("sbatch") is None:
        raise InputError(
            "--slurm: SLURM is not installed here (no sbatch); run this on a machine of the cluster"
        )
    try:
        import submitit  # noqa: F401  only --slurm needs it
    except ImportError:
        raise InputError("--slurm: submitit is not installed; pip install submitit") from None
    partitions = call("sinfo", "--all", "--noheader", "--format=%R").split()
    for name in (args.slurm_partition or "").split(","):
        if name and name not in partitions:
            raise InputError(
                f"--slurm_partition {name}: the cluster has no such partition, only "
                f"{', '.join(sorted(set(partitions)))}"
            )


def run_on_slurm(plan: Plan, names: Sequence[str], args: argparse.Namespace) -> None:
    """Submits the runs that are neither done nor under way, and waits until none of them has a
    task.

    SIGINT, SIGTERM and SIGHUP leave the tasks in the queue. Raises `InputError` if a task ended
    without having seen the experiment's folder.
    """
    tasks = submit_missing(plan, names, args)
    if not tasks:
        return
    try:
        wait_for_tasks(plan, tasks)
    except KeyboardInterrupt:
        submissions = ",".join(sorted({task.folder.name for task in tasks.values()}))
        say(
            "The tasks go on without this command. The same command waits for them again; "
            "--status and --collect show "
            f"what is done; scancel --name={submissions} ends them."
        )
        raise
    explain(plan, tasks)


def submit_missing(plan: Plan, names: Sequence[str], args: argparse.Namespace) -> dict[str, Task]:
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
            tasks |= submit(plan, missing, args, root / f"{plan.experiment}-{secrets.token_hex(4)}")
        say(f"{len(missing)} runs submitted, {len(tasks) - len(missing)} in SLURM's queue before")
    return tasks


def submit(
    plan: Plan, names: Sequence[str], args: argparse.Namespace, folder: Path
) -> dict[str, Task]:
    """Submits an array of one task for each run."""
    import submitit  # only --slurm needs it

    minutes = math.ceil(60 * args.slurm_hours)
    options = {
        "time": minutes,
        "requeue": True,
        "chdir": str(ROOT),
        "ntasks-per-node": 1,
        # To the task's processes, which `work_in_task` expects, so many seconds before its time is
        # over.
        "signal": f"USR1@{min(SAVE_SECONDS, 30 * minutes)}",
    }
    if args.slurm_partition:
        options["partition"] = args.slurm_partition
    if args.slurm_gpus_per_task:
        options["gpus-per-task"] = args.slurm_gpus_per_task
    options |= dict(args.slurm_extra)
    executor = submitit.SlurmExecutor(folder=folder)
    executor.update_parameters(job_name=folder.name, additional_parameters=options)
    work = [partial(work_in_task, plan.out.absolute(), name, args.free_flags) for name in names]
    folder.mkdir(parents=True)
    write_json(folder / "runs.json", {"runs": list(names)})
    try:
        with redirect_stderr(io.StringIO()):  # where submitit repeats what sbatch says
            jobs = executor.submit_array(work)
    except RuntimeError as error:
        shutil.rmtree(folder)
        lines = [line for line in str(error).splitlines() if not line.startswith("Try ")] or [
            "no reason"
        ]
        raise InputError(
            f"--slurm: sbatch refuses: {lines[0].removeprefix('sbatch: ').removeprefix('error: ')}"
        ) from None
    return {
        name: Task(job.job_id, False, "", folder) for name, job in zip(names, jobs, strict=True)
    }


def wait_for_tasks(plan: Plan, tasks: dict[str, Task]) -> None:
    """Shows the progress until no run has a task any more. `tasks`: those now, by run."""
    with StepBar(plan, list(tasks)) as bar:
        while tasks:
            running = sum(task.running for task in tasks.values())
            bar.set_postfix_str(
                f"tasks: {running} running, {len(tasks) - running} waiting", refresh=False
            )
            bar.show()
            time.sleep(POLL_SECONDS)
            try:
                now = {name: task for name, task in read_queue(plan.out).items() if name in tasks}
            except InputError as error:  # SLURM's controller may be down for a while
                say(f"warning: {error}")
                continue
            for name in tasks.keys() - now.keys():
                if read_state(plan.folder(name)).kind in ("done", "failed"):
                    say(f"  {name}: {ending(plan.folder(name))}")
            tasks = now


def explain(plan: Plan, tasks: dict[str, Task]) -> None:
    """Says why tasks ended that left their run neither done nor failed. Raises `InputError` if one
    could not see the experiment's folder."""
    end = time.monotonic() + SETTLE_SECONDS
    while lost := [name for name in tasks if read_state(plan.folder(name)).kind == "waiting"]:
        if time.monotonic() > end:
            break
        time.sleep(1)
    for name in lost:
        id_ = tasks[name].id
        output = tasks[name].folder / f"{tasks[name].id}_0_log.err"
        try:
            state = re.findall(r"JobState=(\S+)", call("scontrol", "show", "job", id_))[0].lower()
        except (InputError, IndexError):  # SLURM forgets a task after some minutes
            state = "ended"
        if not output.exists() and state != "cancelled":
            raise InputError(
                f"{output.parent}: task {id_} ended ({state}) without writing here; does every "
                "node see "
                "this folder?"
            )
        say(f"{name}: task {id_} {state}: {last_words(output)}")
    if lost:
        say("The same command submits these runs again.")


def last_words(path: Path) -> str:
    """What SLURM says last in a task's output, or else its last line with an error, or else its
    last line."""
    lines = (
        [line.strip() for line in path.read_text(errors="replace").splitlines()]
        if path.exists()
        else []
    )
    return next(
        (
            line[:200]
            for mark in ("***", "error: ", "")
            for line in reversed(lines)
            if line and mark in line
        ),
        "no output",
    )
