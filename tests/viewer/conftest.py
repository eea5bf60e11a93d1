"""A viewer on a free port, and a trained scene with a viewer of it for a browser."""

import contextlib
import shutil
from types import SimpleNamespace

import pytest

from evaluation.trained import read_checkpoint
from scenes.render import main as render_scene
from tests.helpers import render_arguments, run, running_viewer, start
from viewer.scene import load_scene_in_view
from viewer.session import Address, Session


@pytest.fixture
def serve(viewed, tmp_path):
    """`serve(host, origins)` serves on a free port until the test ends, and returns the session."""
    with contextlib.ExitStack() as stack:

        def begin(host="127.0.0.1", origins=()):
            logs = tmp_path / "logs"
            session = Session(viewed.scene, viewed.model, None, logs, Address(host, 0, origins))
            stack.callback(session.close)
            return session

        yield begin


SIZE = [
    "--img_sidelength",
    64,
    "--proj_sidelength",
    32,
    "--grid_dim",
    16,
    "--num_grid_feats",
    8,
    "--nf0",
    8,
]


@pytest.fixture(scope="session")
def trained_scene(tmp_path_factory):
    """A cube, two checkpoints of a run on it, and what the command line renders of its training
    poses."""
    folder = tmp_path_factory.mktemp("browser")
    scene = folder / "cube"
    logs = folder / "logs"
    render_scene(
        ["--out", str(scene), "--sidelength", "64", "--train_views", "20", "--test_views", "2"]
    )
    process = start(
        "--train_test",
        "train",
        "--data_root",
        scene / "train",
        "--logging_root",
        logs,
        *SIZE,
        "--device",
        "cpu",
        "--max_steps",
        24,
        "--checkpoint_every",
        12,
        "--validate_every",
        12,
    )
    assert process.communicate(timeout=900) and process.returncode == 0
    early, late = (next(logs.glob(f"logs/*/*/model-epoch_*_iter_{step}.pth")) for step in (12, 24))
    frames = folder / "frames"
    assert run(*render_arguments(scene / "train", frames, late)) == 0
    (frames,) = frames.glob("test_traj/*/*")
    view = load_scene_in_view(read_checkpoint(late), None)
    return SimpleNamespace(root=scene, logs=logs, early=early, late=late, frames=frames, view=view)


@pytest.fixture
def viewer(trained_scene, tmp_path):
    """A viewer process on a copy of the checkpoint, and the address that it prints."""
    checkpoint = tmp_path / "model.pth"
    shutil.copy(trained_scene.late, checkpoint)
    logs = tmp_path / "logs"
    with running_viewer("--checkpoint", checkpoint, "--logging_root", logs) as address:
        yield SimpleNamespace(address=address, checkpoint=checkpoint, logs=logs)
