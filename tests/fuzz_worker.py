"""Runs commands one after the other in a process of its own, which may crash or hang, and says how
each ended.

    ending = Worker(folder).run("scenes.colmap", [model, target])
"""

import contextlib
import importlib
import io
import json
import os
import resource
import select
import subprocess
import sys
import time
import traceback
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
SECONDS = 60  # of a command, until it counts as hanging
STARTS_PROGRAMS = {
    "subprocess.Popen",
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "os.fork",
    "os.startfile",
}


@dataclass(frozen=True)
class Ending:
    """How a command ended. code: None after an exception, which `error` then holds. cpu: seconds.
    memory: the most that it took beside what the process had, in bytes. opened: the files opened
    for reading. programs: those started.
    """

    code: int | None
    output: str
    error: str
    cpu: float
    memory: int
    opened: list[str]
    programs: list[str]


class Worker:
    """A process that runs commands; a new one takes over after one that crashed or hung. `folder`:
    for its temporary files."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._process = None

    def run(self, module: str, argv: list, largest_file: int = resource.RLIM_INFINITY) -> Ending:
        """Runs `main(argv)` of a module. Fails if it crashes or hangs the process.

        largest_file: bytes beyond which no file can grow, as on a full disk.
        """
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.fuzz_worker"],
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env={
                    **os.environ,
                    "TMPDIR": str(self.folder),
                    "TQDM_DISABLE": "1",
                    "OMP_NUM_THREADS": "1",
                },
            )
            assert self._answer() == {}, "the worker did not start"
        self._process.stdin.write(
            json.dumps([module, list(map(str, argv)), largest_file]).encode() + b"\n"
        )
        self._process.stdin.flush()
        return Ending(**self._answer())

    def _answer(self) -> dict:
        ready, _, _ = select.select([self._process.stdout], [], [], SECONDS)
        answer = self._process.stdout.readline() if ready else b""
        if not answer:
            code = self.stop()
            raise AssertionError(
                f"the command crashed (exit code {code})" if ready else "the command hangs"
            )
        return json.loads(answer)

    def stop(self) -> int | None:
        """Ends the process, and returns its exit code if it had ended before."""
        if self._process is None:
            return None
        try:
            code = self._process.wait(timeout=1)
        except subprocess.TimeoutExpired:
            code = None
            self._process.kill()
            self._process.wait()
        self._process.stdin.close()
        self._process.stdout.close()
        self._process = None
        return code


def serve() -> None:
    """Answers each line of stdin, a module and its arguments, with one line on stdout."""
    import tests.conftest  # noqa: F401, which checks shape annotations
    from machine.cli import exit_code

    opened = []
    programs = []

    def watch(event, args):
        if (
            event == "open"
            and isinstance(args[0], (str, bytes))
            and not (args[2] or 0) & (os.O_WRONLY | os.O_CREAT)
        ):
            opened.append(os.path.abspath(os.fsdecode(args[0])))
        elif event in STARTS_PROGRAMS:
            programs.append(str(args)[:200])

    sys.addaudithook(watch)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints must not be taken for an answer
    print(json.dumps({}), file=answers, flush=True)
    for line in sys.stdin:
        module, argv, largest_file = json.loads(line)
        opened.clear(), programs.clear()
        output = io.TextIOWrapper(io.BytesIO(), "utf-8")
        error = io.StringIO()
        code = None
        before = reset_memory()
        began = time.process_time()
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(error):
            resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, resource.RLIM_INFINITY))
            try:
                main = importlib.import_module(module).main
                code = exit_code(module, lambda: main(argv))  # noqa: B023, called at once
            except SystemExit as end:
                code = end.code
            except BaseException:
                traceback.print_exc()
            resource.setrlimit(
                resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
            )
        output.flush()
        ending = Ending(
            code,
            output.buffer.getvalue().decode(errors="replace"),
            error.getvalue(),
            time.process_time() - began,
            peak_memory() - before,
            [path for path in opened if not path.startswith((sys.prefix, str(ROOT), "/proc"))],
            programs[:],
        )
        print(json.dumps(vars(ending)), file=answers, flush=True)


def reset_memory() -> int:
    """Forgets the largest memory so far; returns what there is now, in bytes."""
    Path("/proc/self/clear_refs").write_text("5")
    return peak_memory()


def peak_memory() -> int:
    """The largest resident memory, in bytes, since `reset_memory`."""
    (line,) = (
        line
        for line in Path("/proc/self/status").read_text().splitlines()
        if line.startswith("VmHWM")
    )
    return int(line.split()[1]) * 1024


if __name__ == "__main__":
    serve()
