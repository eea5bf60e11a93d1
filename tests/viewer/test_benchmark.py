"""The viewer's benchmark, in a real browser."""

import re
import subprocess
import sys

import pytest

from benchmarks.viewer import main as benchmark_viewer
from tests.helpers import ENVIRONMENT, ROOT
from util import InputError

pytestmark = pytest.mark.browser


def test_benchmark_of_the_viewer_counts_what_the_browser_shows(trained_scene):
    benchmark = subprocess.run(
        [
            sys.executable,
            "-m",
            "benchmarks.viewer",
            "--checkpoint",
            str(trained_scene.late),
            "--logging_root",
            str(trained_scene.logs),
            "--window",
            "500",
            "400",
            "--seconds",
            "3",
        ],
        cwd=ROOT,
        env=ENVIRONMENT,
        text=True,
        stdout=subprocess.PIPE,
        timeout=600,
    )
    assert benchmark.returncode == 0
    delay = re.search(r"mouse to picture: median (\d+) ms", benchmark.stdout)
    rate = re.search(r"dragging for 3 s: ([\d.]+) pictures/s", benchmark.stdout)
    assert 0 < float(delay[1]) < 60_000
    assert float(rate[1]) > 0


def test_benchmark_of_a_run_without_a_checkpoint_says_what_the_viewer_waits_for(tmp_path):
    (tmp_path / "options.json").write_text("{}")
    with pytest.raises(InputError, match=f"{tmp_path}: waiting for its first checkpoint"):
        benchmark_viewer(["--checkpoint", str(tmp_path), "--logging_root", str(tmp_path)])
