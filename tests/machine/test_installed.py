"""Training, testing and measuring speed run where little is installed."""

import os
import subprocess
import sys
from importlib.metadata import distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.helpers import ROOT, arguments, final_checkpoint, in_turn, render_arguments

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


def test_training_testing_and_measuring_speed_need_few_packages(few_packages, scene, logs):
    """Curves, video and picture are left out, each with a line that says what to install."""
    flags = ["--log_every", 1, "--validate_every", 2]
    commands = in_turn(
        ["run_deepvoxels.py", *arguments(scene, logs, "--max_steps", 3, *flags)],
        ["run_deepvoxels.py", *render_arguments(scene / "test", logs, "latest")],
        ["-m", "benchmarks.speed", "--preset", "small", "--device", "cpu", "--repeats", 1],
    )
    ended = subprocess.run(
        [sys.executable, "-S", *commands],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(few_packages)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    for line in [
        "tensorboard: left out, as tensorboardX is not installed (pip install tensorboardX)",
        "video: left out, as imageio-ffmpeg is not installed (pip install imageio-ffmpeg)",
        "picture: left out, as matplotlib is not installed (pip install matplotlib)",
    ]:
        assert line in ended.stdout.splitlines()
    assert "tensorboard.main" not in ended.stdout
    assert "train_step_s" in ended.stdout
    _, checkpoint = final_checkpoint(logs, 3)
    assert checkpoint["step"] == 3
    (folder,) = logs.glob("test_traj/*/*")
    assert {"img_00002.png", "depth", "depth_metric.npz", "metrics.json"} <= {
        path.name for path in folder.iterdir()
    }
    assert not list(folder.rglob("*video.mp4*"))


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
