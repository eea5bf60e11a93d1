"""The commands to run after a training, which its last lines on the terminal show to be pasted."""

from itertools import count
from pathlib import Path

from baselines import NEEDS_SOURCE_VIEW
from dataio import find_split
from evaluation.output import MAX_VIDEO_SIDELENGTH
from machine.installed import is_installed
from machine.options import Run
from machine.pasted import REPOSITORY, command, shown_path


def next_commands(run: Run, model: str, checkpoint: Path) -> str:
    """Commands, one a line, below what they do: look at the scene, make a video of an orbit, render
    the scene's test views if it has any, and show the curves. What is not installed is left out."""
    root = run.logging_root
    lines = []
    if is_installed("viser") and is_installed("tensorboard"):
        words = ["--checkpoint", shown_path(checkpoint), "--logging_root", shown_path(root)]
        lines += ["to look around in a browser:", command("-m", "viewer", *words)]

    orbit = unused(root / "orbit")
    words = ["orbit", "--scene", shown_path(run.data_root), "--out", shown_path(orbit)]
    lines += ["to make a video of an orbit:", command("-m", "scenes.path", *words)]
    test = test_command(orbit, run, model, checkpoint)
    lines.append(command(*test, "--video_sidelength", str(MAX_VIDEO_SIDELENGTH)))

    if views := find_split(run.data_root, "test"):
        what = "measure the held-out" if (views / "rgb").is_dir() else "render the test"
        test = test_command(views, run, model, checkpoint)
        lines += [f"to {what} views:", command(*test)]

    if is_installed("tensorboard") and is_installed("tensorboardX"):
        words = ["-m", "tensorboard.main", "--logdir", shown_path(root / "runs")]
        lines += ["to see the curves:", command(*words)]
    return "\n".join(lines)


def resume_command(run: Run, max_steps: int | None, checkpoint: Path) -> str:
    """A line that says what it does, and one that takes the steps which a run still lacks."""
    words = [shown_path(REPOSITORY / "run_deepvoxels.py"), "--train_test", "train"]
    words += ["--logging_root", shown_path(run.logging_root), "--resume", shown_path(checkpoint)]
    if max_steps is not None:
        words += ["--max_steps", str(max_steps)]
    return "\n".join(["to go on with the training:", command(*words)])


def test_command(views: Path, run: Run, model: str, checkpoint: Path) -> list[str]:
    """The words, after `python`, that render the poses of the folder `views`."""
    words = [
        shown_path(REPOSITORY / "run_deepvoxels.py"),
        "--train_test",
        "test",
        "--data_root",
        shown_path(views),
        "--logging_root",
        shown_path(run.logging_root),
        "--checkpoint",
        shown_path(checkpoint),
    ]
    if model in NEEDS_SOURCE_VIEW and find_split(views, "train") is None:
        words += ["--train_root", shown_path(run.data_root)]
    return words


def unused(path: Path) -> Path:
    """The path, with a number if there is something under its name."""
    candidate = path
    for number in count(2):
        if not candidate.exists():
            break
        candidate = path.with_name(f"{path.name}_{number}")
    return candidate
