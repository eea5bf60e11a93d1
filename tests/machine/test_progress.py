"""Progress in a log, on a terminal and in a file: real processes."""

import json
import os
import subprocess
import sys

import pytest

from tests.helpers import ROOT, finish, start_python

# 40 steps of 50 ms, with a line every 0.5 s where a log gets one every 30.
SCRIPT = """
import sys, time
from machine import progress
progress.LOG_SECONDS = 0.5
with progress.Progress(total=40, unit="step") as bar:
    for step in range(40):
        time.sleep(0.05)
        bar.update()
        bar.set_postfix(loss=step)
        if step == 20:
            bar.write("a warning", file=sys.stderr)
"""


def test_a_log_gets_few_whole_lines_and_the_last(tmp_path):
    report = tmp_path / "progress.json"
    ended = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        cwd=ROOT,
        env={**os.environ, "DEEPVOXELS_PROGRESS": str(report)},
        capture_output=True,
        check=True,
    )
    text = ended.stderr.decode()
    assert "\r" not in text
    *lines, last = [line for line in text.splitlines() if line != "a warning"]
    assert "a warning" in text.splitlines()
    assert 2 <= len(lines) <= 4  # in 2 s and what starting takes
    assert all("/40 [" in line for line in lines)
    assert "40/40 [" in last and "loss=39" in last
    content = json.loads(report.read_text())
    assert (content["done"], content["total"], content["unit"]) == (40, 40, "step")
    assert 0 < content["per_second"] <= 20


@pytest.mark.skipif(os.name == "nt", reason="needs a pseudo terminal")
def test_a_terminal_sees_the_bar_move():
    import pty
    import termios

    terminal, end = pty.openpty()
    termios.tcsetwinsize(end, (24, 100))
    process = subprocess.Popen([sys.executable, "-c", SCRIPT], cwd=ROOT, stderr=end)
    os.close(end)
    text = b""
    try:
        while data := os.read(terminal, 1 << 16):
            text += data
    except OSError:  # the other end is closed
        pass
    os.close(terminal)
    assert process.wait() == 0
    assert text.count(b"\r") > 10
    assert b"a warning" in text


def test_a_file_that_cannot_be_written_ends_nothing(tmp_path):
    ended = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        cwd=ROOT,
        env={**os.environ, "DEEPVOXELS_PROGRESS": str(tmp_path / "nowhere" / "progress.json")},
        capture_output=True,
        check=False,
    )
    assert ended.returncode == 0
    assert b"40/40 [" in ended.stderr


def test_a_command_writes_few_lines_into_a_log(tmp_path):
    """As all do: their bars are `Progress`."""
    words = ["--out", tmp_path / "cube", "--sidelength", "16", "--train_views", "8"]
    process = start_python("-m", "scenes.render", *words, "--test_views", "4", "--workers", "1")
    code, _, error = finish(process)
    assert code == 0, error
    assert "\r" not in error
    bars = [line for line in error.splitlines() if "%|" in line]
    assert bars
    assert all(line.startswith("render: 100%") for line in bars)
    others = [path for path in ROOT.glob("[!.]*/**/*.py") if path.name != "progress.py"]
    assert not [path for path in others if "tqdm" + "(" in path.read_text(encoding="utf-8")]
