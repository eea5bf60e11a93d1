"""Python processes that have imported PyTorch already, for tests that need a process of its own but
not its start, which takes a second or two of a processor.

    process = ForkedPython(["-m", "scenes.render", "--out", "cube"], cwd=ROOT, env=environment)

A server, which the first of them starts, has imported `PACKAGES` and nothing of the project, since
a test may run an edited copy of it. It forks a process that takes over the words, folder,
environment and streams, and runs them as `python WORDS` does. A child's child becomes this
process's own child once its parent has ended, so waiting, signals and exit codes are real.
"""

import atexit
import ctypes
import functools
import gc
import importlib
import json
import os
import runpy
import socket
import subprocess
import sys
import tempfile
import types
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

ROOT = Path(__file__).parent.parent
# A progress bar that nobody reads must not fill its pipe, or the process would wait for ever.
ENVIRONMENT = {**os.environ, "TQDM_MININTERVAL": "1"}
# What commands import and what PyTorch's optimizers do. Not pycolmap: it handles signals.
PACKAGES = [
    *("torch", "torch._dynamo", "cv2", "embreex", "filelock", "imageio.v2", "jaxtyping"),
    *("psutil", "scipy.spatial.transform", "tensorboardX", "tqdm", "trimesh"),
]
PR_SET_CHILD_SUBREAPER = 36  # of Linux's prctl.h
LONGEST_REQUEST = 1 << 17  # bytes
LONGEST_ANSWER = 100


class ForkedPython(subprocess.Popen):
    """`subprocess.Popen` of Python, given the words that follow `python`. On Linux alone.

    What Python and the packages read when they start (`PYTHON...`, `OMP_NUM_THREADS`, limits) they
    have read in the server. Of Popen's arguments only the streams, `cwd`, `env`, `text` and
    `start_new_session` have an effect; `cwd` and `env` must be given.
    """

    def _execute_child(
        self,
        args,
        executable,
        preexec_fn,
        close_fds,
        pass_fds,
        cwd,
        env,
        startupinfo,
        creationflags,
        shell,
        p2cread,
        p2cwrite,
        c2pread,
        c2pwrite,
        errread,
        errwrite,
        restore_signals,
        gid,
        gids,
        uid,
        umask,
        start_new_session,
        process_group,
    ):
        """Popen calls this to start the process, once its pipes are there."""
        streams = [p2cread, c2pwrite, errwrite]
        inherited = [number if stream == -1 else stream for number, stream in enumerate(streams)]
        request = [list(args), os.fspath(cwd), dict(env), start_new_session]
        with adopting_orphans():
            socket.send_fds(server(), [json.dumps(request).encode()], inherited)
            self.pid = int(server().recv(LONGEST_ANSWER))
            server().recv(LONGEST_ANSWER)  # it is an orphan now
        self._child_created = True
        self._close_pipe_fds(p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite)


@contextmanager
def adopting_orphans() -> Iterator[None]:
    """Within it, descendants of this process whose parent ends become its children."""
    libc = ctypes.CDLL(None)
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        yield
    finally:
        libc.prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


@functools.cache
def server() -> socket.socket:
    """Requests and answers of a server that runs as long as this process."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.fork_server", str(theirs.fileno())],
        cwd=ROOT,
        env=ENVIRONMENT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        pass_fds=[theirs.fileno()],
    )
    theirs.close()

    def stop():
        ours.close()
        process.wait()

    atexit.register(stop)
    return ours


def serve(requests: socket.socket) -> list[str]:
    """Forks a process for each request until this process's parent closes its end. Returns in each
    of them: the words to run."""
    for name in PACKAGES:
        with suppress(ImportError):  # who runs a command without it must see its own error
            importlib.import_module(name)
    assert len(os.listdir("/proc/self/task")) == 1, "a thread would not be there in a child"
    gc.freeze()
    while True:
        request, streams, _, _ = socket.recv_fds(requests, LONGEST_REQUEST, 3)
        if not request:
            sys.exit()
        between = os.fork()
        if not between:
            child = os.fork()
            if not child:
                return take_over(json.loads(request), streams, requests)
            requests.send(str(child).encode())
            os._exit(0)
        os.waitpid(between, 0)
        requests.send(b"an orphan now")
        for stream in streams:
            os.close(stream)


def take_over(request: list, streams: list[int], requests: socket.socket) -> list[str]:
    """Makes this process what was asked for; returns the words to run."""
    words, folder, environment, start_new_session = request
    requests.close()
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    if start_new_session:
        os.setsid()
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    tempfile.tempdir = None  # some package has asked for it, and TMPDIR may be another now
    # Python's own know whether the server's were terminals, or could be sought in.
    sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115  open until Python ends
    sys.stderr = open(2, "w", 1, errors="backslashreplace", closefd=False)  # noqa: SIM115
    return words


def run(words: list[str]) -> None:
    """Runs `python WORDS` in this process: `-c CODE`, `-m MODULE` or a script."""
    sys.modules["__main__"] = types.ModuleType("__main__")
    sys.argv = words
    if words[0] == "-m":
        sys.argv = ["-m", *words[2:]]
        sys.path[0] = os.getcwd()
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    elif words[0] == "-c":
        sys.argv = ["-c", *words[2:]]
        sys.path[0] = ""
        exec(compile(words[1], "<string>", "exec"), vars(sys.modules["__main__"]))
    else:
        sys.path[0] = os.path.dirname(os.path.abspath(words[0]))
        runpy.run_path(words[0], run_name="__main__")


def leave_modules_as_they_are(exit_code: list[int]) -> None:
    """Ends the process in the last of Python's steps before it takes modules apart, which takes
    half a second with those of the server. If there is no exit code, something was raised: then
    Python goes on."""
    if exit_code:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(exit_code[0])


def main() -> None:
    """Serves, and then runs in each child what it is asked for."""
    exit_code = []
    atexit.register(leave_modules_as_they_are, exit_code)  # the first is called last
    try:
        run(serve(socket.socket(fileno=int(sys.argv[1]))))
        exit_code.append(0)
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            exit_code.append(end.code or 0)
        raise


if __name__ == "__main__":
    main()
