"""Out of memory is one line, whichever library notices it first: real limits in real processes."""

import os
import platform
import re
import resource
import signal
import subprocess
import sys

import pytest

from tests.helpers import ROOT

# Forks a process for each number of MiB that it may take besides what it has, up to one that is
# enough, and prints their exit codes and what they print.
SCRIPT = """
import os, resource, sys, tempfile
import torch
from machine.cli import exit_code

def taken():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[0]) * resource.getpagesize()

def train():
    convs = torch.nn.Sequential(*[torch.nn.Conv3d(16, 16, 3, padding=1) for _ in range(3)])
    convs(torch.rand(1, 16, 64, 64, 64, requires_grad=True)).square().sum().backward()

for more in (0, 1, 4, 12, 16, 20, 24, 40, 80, 160, 1000):
    with tempfile.TemporaryFile() as output:
        child = os.fork()
        if not child:
            os.dup2(output.fileno(), 2)
            limit = taken() + (more << 20)
            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
            code = 99
            try:
                code = exit_code("thing", train)
            finally:
                os._exit(code)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        output.seek(0)
        print(code, repr(output.read().decode()))
"""


@pytest.mark.skipif(platform.system() != "Linux", reason="reads /proc")
def test_every_lack_of_memory_is_one_line():
    ended = subprocess.run(
        [sys.executable, "-c", SCRIPT], cwd=ROOT, capture_output=True, text=True, check=True
    )
    first, *between, enough = ended.stdout.splitlines()
    assert enough == "0 ''"
    for line in [first, *(line for line in between if line != enough)]:
        code, output = line.split(" ", 1)
        assert code == "1", line
        assert re.fullmatch(r"""['"]thing: error: out of memory: [^\\]+\\n['"]""", output), line


@pytest.mark.skipif(platform.system() != "Linux", reason="elsewhere libraries load all the same")
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("run_deepvoxels.py", ["run_deepvoxels.py"]),
        ("colmap_wrapper.py", ["colmap_wrapper.py"]),
        ("viewer", ["-m", "viewer"]),
        ("evaluation.export", ["-m", "evaluation.export"]),
        ("scenes.check", ["-m", "scenes.check"]),
        ("experiments.table1", ["-m", "experiments.table1"]),
        ("benchmarks.speed", ["-m", "benchmarks.speed"]),
    ],
)
def test_a_lack_of_memory_is_one_line_while_a_command_imports(name, words):
    limit = 130 << 20  # Python starts, PyTorch and OpenCV do not
    ended = subprocess.run(
        [sys.executable, *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)),
    )
    assert re.fullmatch(f"{re.escape(name)}: error: out of memory: [^\n]+\n", ended.stderr), ended
    assert ended.returncode == 1


@pytest.mark.parametrize("words", [["run_deepvoxels.py"], ["-m", "viewer"]])
def test_ctrl_c_ends_a_command_that_still_imports(tmp_path, words):
    """At once and without a word, whatever the packages that it imports do about exceptions."""
    (tmp_path / "torch.py").write_text(
        """
import time
print("imports", flush=True)
try:
    time.sleep(60)
except BaseException as error:
    print(repr(error))
"""
    )
    process = subprocess.Popen(
        [sys.executable, *words],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "imports\n"
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=60) == ("", "")
    assert process.returncode == -signal.SIGINT  # 130 in a shell


def test_ctrl_c_is_an_exception_where_somebody_elses_program_imports_packages():
    code = "import signal, evaluation; print(signal.getsignal(2) is signal.default_int_handler)"
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert ended.stdout == "True\n"
