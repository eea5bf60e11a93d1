"""Checkpoints of strangers: each command that reads one ends with exit code 2 and one line, in
seconds and with little memory, whatever the file is or holds."""

import itertools
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from baselines import recorded_model
from checkpoints import load_checkpoint
from tests.helpers import (
    ROOT,
    assert_one_line,
    assert_same,
    final_checkpoint,
    render_arguments,
    resume,
    run,
    start_python,
    wait_for,
)
from tests.hostile_checkpoints import FOR_ALL, FOR_RESUME, changed, save, unsigned, with_optimizer
from util import InputError

SECONDS = 10  # of processor time
MEMORY = 1 << 30


@dataclass(frozen=True)
class Reader:
    """A command that reads a checkpoint: its module, and its words from the checkpoint, the folder
    of the trained scene and an output folder."""

    module: str
    words: Callable[[Path, Path, Path], list]


READERS = {
    "test": Reader(
        "run_deepvoxels", lambda path, scene, out: render_arguments(scene / "train", out, path)
    ),
    "resume": Reader(
        "run_deepvoxels", lambda path, scene, out: resume(out, "--resume", path, "--max_steps", 3)
    ),
    "start": Reader(
        "run_deepvoxels",
        lambda path, scene, out: [
            *("--train_test", "train", "--data_root", scene / "train", "--logging_root", out),
            *("--checkpoint", path, "--max_steps", 1, "--device", "cpu"),
        ],
    ),
    "export": Reader(
        "evaluation.export",
        lambda path, scene, out: ["--checkpoint", path, "--out", out / "points.ply"],
    ),
    "pack": Reader(
        "evaluation.pack",
        lambda path, scene, out: ["--checkpoint", path, "--out", out / "packed.pth"],
    ),
    "viewer": Reader(
        "viewer.__main__",
        lambda path, scene, out: ["--checkpoint", path, "--logging_root", out, "--port", 0],
    ),
}


@pytest.fixture
def refused(worker, trained, tmp_path):
    """Gives a checkpoint to a command: exit code 2 and one line, nothing left."""

    def check(reader: str, path: Path, *words: str) -> None:
        out = tmp_path / "out"
        out.mkdir(exist_ok=True)
        command = READERS[reader]
        ending = worker.run(command.module, command.words(path, trained[0], out))
        assert ending.code == 2, (reader, ending.error)
        assert_one_line(ending.error, *words)
        assert len(ending.error) < 1500
        assert ending.cpu < SECONDS
        assert ending.memory < MEMORY
        assert not ending.programs
        assert not list(out.rglob("*")), reader

    return check


@pytest.mark.parametrize("group", ["pickles", "tensors", "versions", "claims", "states", "options"])
def test_a_strangers_checkpoint_is_refused(refused, trained, tmp_path, group):
    """Each file by the next command in turn."""
    readers = itertools.cycle(READERS)
    for name, write in FOR_ALL.items():
        if name.startswith(group):
            path = tmp_path / "model.pth"
            path.unlink(missing_ok=True)
            write(path, unsigned(trained[2]))
            refused(next(readers), path, "model.pth")


@pytest.mark.long
@pytest.mark.parametrize("reader", READERS)
def test_every_command_refuses_every_strangers_checkpoint(refused, trained, tmp_path, reader):
    for write in FOR_ALL.values():
        path = tmp_path / "model.pth"
        path.unlink(missing_ok=True)
        write(path, unsigned(trained[2]))
        refused(reader, path, "model.pth")


def test_a_strangers_run_is_not_continued(refused, trained, tmp_path):
    for write in FOR_RESUME.values():
        write(tmp_path / "model.pth", unsigned(trained[2]))
        refused("resume", tmp_path / "model.pth")


def test_a_state_of_an_optimizer_brings_no_settings(trained, tmp_path):
    """They would change or end the first step."""

    def change(state):
        state["param_groups"][0].update(
            amsgrad=True, betas="ab", differentiable=True, lr=[], capturable=True, maximize=True
        )

    ends = []
    for name, write in (("good", changed()), ("changed", with_optimizer(change))):
        path = tmp_path / f"{name}.pth"
        write(path, unsigned(trained[2]))
        assert run(*resume(tmp_path / name, "--resume", path, "--max_steps", 3)) == 0
        ends.append(final_checkpoint(tmp_path / name, 3)[1])
    assert_same(ends[0]["model"], ends[1]["model"])


def pipe(path: Path) -> None:
    os.mkfifo(path)


def link_to_zeros(path: Path) -> None:
    path.symlink_to("/dev/zero")


def socket_file(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))


@pytest.mark.parametrize("make", [pipe, link_to_zeros, socket_file, Path.mkdir])
def test_only_regular_files_are_opened(refused, tmp_path, monkeypatch, make):
    monkeypatch.chdir(tmp_path)  # the path of a socket is short
    make(Path("model.pth"))
    for reader in READERS:
        if not (reader == "viewer" and make == Path.mkdir):  # there a folder may be a run's
            refused(reader, tmp_path / "model.pth", "model.pth")
    for reader in READERS:
        if make == link_to_zeros:
            refused(reader, Path("/dev/zero"), "/dev/zero: is not a regular file")


@pytest.mark.parametrize("how", ["with open_file(path): pass", "read_text(path)"])
def test_what_is_opened_is_what_was_checked(tmp_path, how):
    """The file becomes a pipe between the check and the opening."""
    script = f"""if True:
        import os, sys
        from pathlib import Path
        from util import InputError, open_file, read_text
        path = Path(sys.argv[1])
        def swap(event, args):
            if event == "open" and str(args[0]) == str(path) and path.is_file():
                path.unlink()
                os.mkfifo(path)
        sys.addaudithook(swap)
        try:
            {how}
        except InputError as error:
            print(error)"""
    (tmp_path / "file").write_text("text")
    ended = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "file")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.stdout == f"{tmp_path / 'file'}: is not a regular file\n", ended.stderr


def test_a_served_file_that_becomes_a_pipe(trained, tmp_path):
    """The viewer says so, shows what it had, and ends when it is told to."""
    path = tmp_path / "model.pth"
    shutil.copy(final_checkpoint(trained[1], 2)[0], path)
    words = ["--checkpoint", path, "--logging_root", tmp_path / "logs", "--port", 0]
    log = tmp_path / "log.txt"
    with log.open("w") as file:
        viewer = start_python("-m", "viewer", *words, stdout=file, stderr=file)
    wait_for(lambda: "open http" in log.read_text(), viewer, 120)
    path.unlink()
    os.mkfifo(path)
    wait_for(lambda: "model.pth: is not a regular file" in log.read_text(), viewer, 60)
    viewer.send_signal(signal.SIGTERM)
    assert viewer.wait(60) == 0


def test_a_checkpoint_of_the_whole_model_passes(trained, tmp_path):
    """What is refused above is refused for what was changed."""
    save(tmp_path / "model.pth", unsigned(trained[2]))
    checkpoint = load_checkpoint(tmp_path / "model.pth")
    assert recorded_model(checkpoint, tmp_path)["grid_dim"] == 8
    without_model = {**checkpoint, "model": dict(list(checkpoint["model"].items())[1:])}
    with pytest.raises(InputError, match="lacks the tensor|no tensor"):
        recorded_model(without_model, tmp_path)
