"""Output that nobody reads ends nothing, from its first line on: real processes."""

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers import ROOT, arguments, final_checkpoint

# A command that prints on both streams before, while and after it works, and shows its progress.
COMMAND = """
import sys, time
from machine.cli import run
from machine.progress import Progress

def main(argv):
    print("begins")
    print("warning: begins", file=sys.stderr)
    with open(sys.argv[1], "w") as file:
        for number in Progress(range(200), unit="step"):
            print("line", number)
            print("warning: line", number, file=sys.stderr)
            file.write(f"{number}\\n")
            time.sleep(0.002)
    print("ends")

run("thing", main)
"""
LOSSES = {
    "a reader of one line": "{} 2>&1 | head -n 1",
    "a reader of nothing": "{} 2>&1 | true",
    "stdout closed": "{} >&-",
    "stderr closed": "{} 2>&-",
    "both closed": "{} >&- 2>&-",
    "all closed": "{} <&- >&- 2>&-",
    "a full disk": "{} > /dev/full 2>&1",
}


def shell(line: str, command: list, folder: Path, code: Path) -> subprocess.CompletedProcess:
    """Runs a command in a line of the shell, with its exit code in a file."""
    words = " ".join(f"'{word}'" for word in command)
    return subprocess.run(
        ["bash", "-c", line.format(f"{{ {words}; echo $? > '{code}'; }}")],
        cwd=ROOT,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize("line", LOSSES.values(), ids=LOSSES)
def test_a_command_works_to_its_end(tmp_path, line):
    result = tmp_path / "result"
    code = tmp_path / "code"
    ended = shell(line, [sys.executable, "-c", COMMAND, result], tmp_path, code)
    assert "Traceback" not in ended.stdout + ended.stderr
    assert "Exception ignored" not in ended.stdout + ended.stderr
    assert code.read_text() == "0\n", ended.stderr
    # What the command printed did not get into its file either.
    assert result.read_text() == "".join(f"{number}\n" for number in range(200))


def test_a_training_works_to_its_end_without_streams(scene, tmp_path):
    words = [sys.executable, "run_deepvoxels.py", *arguments(scene, tmp_path, "--max_steps", 2)]
    code = tmp_path / "code"
    ended = shell(LOSSES["all closed"], words, tmp_path, code)
    assert code.read_text() == "0\n", ended.stderr
    final_checkpoint(tmp_path, 2)


def test_a_terminal_that_closes_before_the_first_line(tmp_path):
    result = tmp_path / "result"
    terminal, end = pty.openpty()
    code = f"import time; time.sleep(0.5)\n{COMMAND}"
    process = subprocess.Popen(
        [sys.executable, "-c", code, result], cwd=ROOT, stdin=end, stdout=end, stderr=end
    )
    os.close(end)
    os.close(terminal)
    assert process.wait(timeout=60) == 0
    assert len(result.read_text().splitlines()) == 200
