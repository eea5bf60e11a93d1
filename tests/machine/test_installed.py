"""Training, testing and measuring speed run where little is installed."""

import os
import subprocess
import sys
from importlib.metadata import distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.helpers import ROOT, arguments, final_checkpoint, render_arguments

NEEDED = [
    "torch",
    "numpy",
    "opencv-python-headless",
    "tqdm",
    "jaxtyping",
    "scikit-image",
    "filelock",
    "psutil",
]


def with_requirements(packages: list[str]) -> set[str]:
    """The packages, and those that pip installs with them."""
    found = set()
    waiting = list(packages)
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        found.add(name)
        for line in distribution(name).requires or []:
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                waiting.append(requirement.name)
    return found


@pytest.fixture(scope="session")
def few_packages(tmp_path_factory) -> Path:
    """A folder of packages with `NEEDED` alone."""
    folder = tmp_path_factory.mktemp("site-packages")
    for name in with_requirements(NEEDED):
        installed = distribution(name)
        for top in {file.parts[0] for file in installed.files}:
            link = folder / top
            if top != ".." and not link.exists():  # scripts; packages that share a folder
                link.symlink_to(installed.locate_file(top))
    return folder


@pytest.fixture
def run_with_few_packages(few_packages):
    """Runs Python where nothing else is installed, and returns its output."""

    def run(*words) -> str:
        ended = subprocess.run(
            [sys.executable, "-S", *map(str, words)],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(few_packages)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert ended.returncode == 0, ended.stderr
        return ended.stdout

    return run


def test_training_and_testing_need_few_packages(run_with_few_packages, scene, logs):
    """Curves, video and picture are left out, each with a line that says what to install."""
    flags = ["--log_every", 1, "--validate_every", 2]
    words = arguments(scene, logs, "--max_steps", 3, *flags)
    output = run_with_few_packages("run_deepvoxels.py", *words)
    assert "tensorboard: left out, as tensorboardX is not installed (pip install tensorboardX)" in (
        output.splitlines()
    )
    assert "tensorboard.main" not in output
    path, checkpoint = final_checkpoint(logs, 3)
    assert checkpoint["step"] == 3

    words = render_arguments(scene / "test", logs, path)
    output = run_with_few_packages("run_deepvoxels.py", *words)
    for line in [
        "video: left out, as imageio-ffmpeg is not installed (pip install imageio-ffmpeg)",
        "picture: left out, as matplotlib is not installed (pip install matplotlib)",
    ]:
        assert line in output.splitlines()
    (folder,) = logs.glob("test_traj/*/*")
    assert {"img_00002.png", "depth", "depth_metric.npz", "metrics.json"} <= {
        path.name for path in folder.iterdir()
    }
    assert not list(folder.rglob("*video.mp4*"))


def test_measuring_speed_needs_few_packages(run_with_few_packages):
    output = run_with_few_packages(
        "-m", "benchmarks.speed", "--preset", "small", "--device", "cpu", "--repeats", 1
    )
    assert "train_step_s" in output


def test_testing_imports_nothing_that_it_does_not_use(trained, tmp_path):
    """PyTorch's packages for several machines, compilation and symbolic shapes take a second and
    more to import."""
    scene, logs, _ = trained
    path, _ = final_checkpoint(logs, 2)
    words = render_arguments(scene / "train", tmp_path / "logs", path)
    script = (
        "import sys, run_deepvoxels\n"
        f"assert run_deepvoxels.main({words}) == 0\n"
        "print(*sys.modules, sep='\\n')\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    imported = set(ended.stdout.splitlines())
    assert "torch.nn" in imported
    assert not imported & {"torch.distributed.tensor", "torch._dynamo", "sympy"}
