"""64 runs on 16 workers that fail and die: no run twice at once, none lost. Locks, folders and
processes are real; only what a run does (`carry_out`) is simulated."""

import fcntl
import json
import os
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tqdm import tqdm

from experiments import work
from experiments.plan import Plan
from experiments.status import find_result, read_commands
from util import write_json

RUNS = 64
WORKERS = 16
LINES = {"views": "", "prepare": "", "train": "", "test": ""}
# What befalls a run before it is done: its command fails, or its worker is killed, at once or
# within a command.
troubles = st.dictionaries(
    st.integers(0, RUNS - 1),
    st.lists(st.sampled_from(["fails", "dies", "dies in a command"]), min_size=1, max_size=3),
    max_size=RUNS,
)


def simulate(plan: Plan, befalls: dict[str, list[str]]) -> list[int]:
    """One command's worth of workers, and their exit codes."""

    def carry_out(plan, name, *_):
        folder = plan.folder(name)
        with open(folder / "attempts", "ab") as attempts:
            fcntl.flock(
                attempts, fcntl.LOCK_EX | fcntl.LOCK_NB
            )  # fails if another worker is at this run
            trouble = (befalls.get(name, []) + ["none"])[
                attempts.tell()
            ]  # after its end there must be no attempt
            attempts.write(b".")
            attempts.flush()
            time.sleep(0.001)
            if trouble == "dies":
                os.kill(os.getpid(), signal.SIGKILL)
            entry = {
                "command": "",
                "where": "",
                "log_begin": 0,
                "seconds": None,
                "exit_code": None,
            }
            write_json(folder / "commands.json", {"commands": [*read_commands(folder), entry]})
            if trouble == "dies in a command":
                os.kill(os.getpid(), signal.SIGKILL)
            entry |= {"seconds": 0.0, "exit_code": int(trouble == "fails")}
            write_json(folder / "commands.json", {"commands": [*read_commands(folder)[:-1], entry]})
            if trouble == "none":
                (folder / "test_traj" / "day" / "run").mkdir(parents=True)
                write_json(
                    folder / "test_traj" / "day" / "run" / "metrics.json",
                    {"psnr": 20.0, "ssim": 0.5},
                )

    processes = []
    for _ in range(WORKERS):
        process = os.fork()
        if not process:
            code = 1
            try:
                sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115
                tqdm.set_lock(
                    threading.RLock()
                )  # not the parent's, which a worker that dies would keep for ever
                work.carry_out = carry_out
                work.work(plan, list(plan.runs), [], [{}])
                code = 0
            finally:
                os._exit(code)
        processes.append(process)
    return [os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) for process in processes]


def check(trouble: dict[int, list[str]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        plan = Plan(Path(folder), "table1", 3, [], {}, {f"run{i}": LINES for i in range(RUNS)})
        befalls = {f"run{i}": what for i, what in trouble.items()}

        def attempts() -> dict[str, int]:
            files = {name: plan.folder(name) / "attempts" for name in plan.runs}
            return {
                name: path.stat().st_size if path.exists() else 0 for name, path in files.items()
            }

        left = set(plan.runs)
        while left:
            before = attempts()
            codes = simulate(plan, befalls)
            assert set(codes) <= {0, -signal.SIGKILL}, codes
            after = attempts()
            if 0 in codes:
                assert all(after[name] > before[name] for name in left), "a run was lost"
            left = {name for name in left if not find_result(plan.folder(name))}
        assert attempts() == {name: len(befalls.get(name, [])) + 1 for name in plan.runs}
        assert all(
            json.loads((plan.folder(name) / "commands.json").read_text())["commands"][-1][
                "exit_code"
            ]
            == 0
            for name in plan.runs
        )


def test_no_run_is_lost_or_run_twice():
    endings = (["fails"], ["dies"], ["dies in a command"], ["dies", "fails", "dies in a command"])
    check({run: endings[run % len(endings)] for run in range(0, RUNS, 5)})


@pytest.mark.long
@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(troubles)
def test_no_run_is_lost_or_run_twice_at_length(trouble):
    check(trouble)
