"""What a task of a SLURM cluster does for an experiment: it carries out one run."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from experiments.plan import read_plan
from experiments.status import read_state
from experiments.worker import work
from util import InputError

SAVE_SECONDS = 180  # before its time is over, a task is warned so that it saves
POLL_SECONDS = 10


def wait_for_other(folder: Path) -> None:
    """Waits while another process carries out the run in a folder."""
    said = False
    while (state := read_state(folder)).kind == "running":
        if not said:
            print(f"{folder.name}: waits for {state.text}", flush=True)
            said = True
        time.sleep(POLL_SECONDS)


def work_in_task(out: Path, name: str, flags: list[str]) -> None:
    """What a task does: carries out one run, after any other process that carries it out has ended.

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
