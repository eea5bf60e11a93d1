"""The commands to run after a training, which its last lines on the terminal show to be pasted."""

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from baselines import NEEDS_SOURCE_VIEW
from dataio import find_split
from machine.installed import is_installed
from machine.options import Run

REPOSITORY = Path(__file__).parent.parent


def next_commands(run: Run, model: str, checkpoint: Path) -> str:
    """Commands, one a line, that show the curves, if tensorboard is installed, and render the
    scene's test views or, if it has none, a path around it."""
    root = run.logging_root
    commands = []
    title = "to render new views:"
    if is_installed("tensorboard") and is_installed("tensorboardX"):
        commands.append(["-m", "tensorboard.main", "--logdir", shown_path(root / "runs")])
        title = "to see its curves, and to render new views:"
    views = find_split(run.data_root, "test")
    if views is None:
        views = root / "orbit"
        commands.append(
            [
                "-m",
                "scenes.path",
                "orbit",
                "--scene",
                shown_path(run.data_root),
                "--out",
                shown_path(views),
            ]
        )
    test = [
        shown_path(REPOSITORY / "run_deepvoxels.py"),
        "--train_test",
        "test",
        "--data_root",
        shown_path(views),
        "--logging_root",
        shown_path(root),
        "--checkpoint",
        shown_path(checkpoint),
    ]
    if model in NEEDS_SOURCE_VIEW and find_split(views, "train") is None:
        test += ["--train_root", shown_path(run.data_root)]
    python = (
        "python" if shutil.which("python") == sys.executable else shown_path(Path(sys.executable))
    )
    join = subprocess.list2cmdline if os.name == "nt" else shlex.join
    return "\n".join(
        [
            title,
            *(f"  {join([python, *command])}" for command in [*commands, test]),
        ]
    )


def shown_path(path: Path) -> str:
    """The path from the current folder if it lies in it, else in full."""
    path = path.absolute()
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)
