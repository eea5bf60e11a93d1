"""What several test files use: commands in this process and in others, checkpoints and logs of
runs, golden weights."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from tensorboardX.proto.event_pb2 import Event

from machine.ranks import ALONE
from projection import SceneGeometry
from run_deepvoxels import main, resolve_options
from tests.conftest import SMALL
from tests.fork_server import ENVIRONMENT, ROOT, ForkedPython
from tests.golden.case import GOLDEN, synthetic_state
from training.loop import set_up
from training.state import Training

ALEXNET = "alexnet-owt-7be5be79.pth"  # in torchvision's cache
CPU = torch.device("cpu")
# Of scenes.render
TINY_RENDER = [
    *("--sidelength", "8", "--train_views", "3", "--test_views", "1"),
    *("--supersampling", "1", "--workers", "1"),
]
GEOMETRY = SceneGeometry(8, 0.125, (0.0, 0.0, 0.0), 1.0, 16, 17.6, 8.0, 8.0)
STARTED: list[subprocess.Popen] = []


def arguments(scene, logs, *more) -> list[str]:
    """The command line that trains a small model on `scene/train`."""
    return [
        str(word)
        for word in [
            "--train_test",
            "train",
            "--data_root",
            scene / "train",
            "--logging_root",
            logs,
            *SMALL,
            *more,
        ]
    ]


def resume(logs, *more) -> list[str]:
    """The command line that continues the newest run under `logs`."""
    return [
        str(word)
        for word in ["--train_test", "train", "--logging_root", logs, "--resume", "latest", *more]
    ]


def render_arguments(data_root, logs, checkpoint, *more) -> list[str]:
    """The command line that renders the poses of `data_root`."""
    return [
        str(word)
        for word in [
            "--train_test",
            "test",
            "--data_root",
            data_root,
            "--logging_root",
            logs,
            "--checkpoint",
            checkpoint,
            "--device",
            "cpu",
            *more,
        ]
    ]


def run(*words) -> int:
    """The exit code of run_deepvoxels.py in this process."""
    try:
        return main([str(word) for word in words])
    except SystemExit as end:
        return end.code


def options_of(*words):
    """The options of a command line."""
    return resolve_options([str(word) for word in words])[0]


def training_options(*more):
    """The options of a training by flags alone."""
    words = ["--train_test", "train", "--data_root", "a", "--logging_root", "b", "--device", "cpu"]
    return options_of(*words, *more)


def new_training(*words) -> Training:
    """A training that has taken no step yet."""
    return set_up(options_of(*words), None, ALONE)[0]


def start(*words, **kwargs) -> subprocess.Popen:
    """run_deepvoxels.py in a process of its own, as `start_python`."""
    return start_python("run_deepvoxels.py", *words, **kwargs)


def start_python(*words, wrapper=(), **kwargs) -> subprocess.Popen:
    """Python in a process of its own, behind the command `wrapper`. It is killed when the test
    ends. On Linux it has imported PyTorch already, unless something must happen before its
    start."""
    usual = {"cwd": ROOT, "env": ENVIRONMENT, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    settings = {**usual, "text": True, **kwargs}
    words = [str(word) for word in words]
    if sys.platform == "linux" and not wrapper and "preexec_fn" not in kwargs:
        process = ForkedPython(words, **settings)
    else:
        process = subprocess.Popen([*wrapper, sys.executable, *words], **settings)
    STARTED.append(process)
    return process


# Runs each command of a list as `python SCRIPT WORDS` or `python -m MODULE WORDS` does.
RUN_IN_TURN = """
import runpy, sys
for line in {lines}:
    is_module = line[0] == "-m"
    sys.argv = line[is_module:]
    try:
        if is_module:
            runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
        else:
            runpy.run_path(sys.argv[0], run_name="__main__")
    except SystemExit as end:
        if end.code:
            raise
"""


def in_turn(*commands) -> list[str]:
    """Words for Python that runs commands one after the other in one process, which imports once:
    that takes longer than what they do."""
    return ["-c", RUN_IN_TURN.format(lines=[[str(word) for word in line] for line in commands])]


def make(*words, cwd: Path = ROOT) -> subprocess.CompletedProcess:
    """`make` in a folder, as from a shell: nothing of a `make test` around it is handed on."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")
    }
    return subprocess.run(
        ["make", *words], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )


def finish(process) -> tuple[int, str, str]:
    """The exit code and the outputs of a process, once it ends, without a traceback."""
    output, error = process.communicate(timeout=120)
    assert "Traceback" not in error, error
    return process.returncode, output, error


@contextmanager
def running_viewer(*words, end=signal.SIGINT) -> Iterator[str]:
    """Runs `python -m viewer` on a free port and yields the address that it prints. It must print
    nothing else, and end with exit code 0 at the signal `end`."""
    process = start_python("-m", "viewer", *words, "--port", 0, "--device", "cpu")
    try:
        line = process.stdout.readline()
        address = re.search(r"open (http://127\.0\.0\.1:\d+)\n", line)
        assert address, line + process.stderr.read()
        yield address[1]
        process.send_signal(end)
        code, output, _ = finish(process)
        assert code == 0
        assert output == ""
    finally:
        process.kill()


def wait_for(condition, process, seconds=120) -> None:
    """Waits until the condition holds; fails if the process ends before."""
    end = time.time() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.time() < end
        time.sleep(0.01)


def copy_of_the_code(folder) -> Path:
    """A copy of what runs, which a test may edit: `folder`, which it makes."""
    folder.mkdir()
    for entry in ROOT.iterdir():
        if entry.suffix == ".py":
            shutil.copy(entry, folder)
        elif (entry / "__init__.py").exists() and entry.name not in ("tests", "docs"):
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(entry, folder / entry.name, ignore=ignored)
    return folder


def checkpoints(logs) -> list[Path]:
    """The checkpoints of all runs under a logging root."""
    return list(logs.glob("logs/*/*/model-*.pth"))


def final_checkpoint(logs, step) -> tuple[Path, dict]:
    """The only checkpoint of a step, and its content."""
    (path,) = logs.glob(f"logs/*/*/model-epoch_*_iter_{step}.pth")
    return path, torch.load(path, weights_only=True)


def tensorboard_events(path) -> list[Event]:
    """The events of a file; a last one that was cut off is left out."""
    content = path.read_bytes()
    position = 0
    events = []
    while position + 12 <= len(content):
        end = position + 12 + int.from_bytes(content[position : position + 8], "little")
        if end + 4 <= len(content):
            events.append(Event.FromString(content[position + 12 : end]))
        position = end + 4
    return events


def assert_one_line(error: str, *words: str) -> None:
    """What a command that refuses its input prints: one line, that holds all words."""
    assert error.count("\n") == 1, error
    assert ": error: " in error, error
    for word in words:
        assert word in error, error


def assert_same(a, b, where="") -> None:
    """Nested dicts, lists, tensors and values that are equal to the bit, but for the `seconds` that
    a run took."""
    assert type(a) is type(b), where
    if isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a.keys() - {"seconds"}:
            assert_same(a[key], b[key], f"{where}.{key}")
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b), where
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_same(x, y, f"{where}[{i}]")
    elif isinstance(a, torch.Tensor):
        assert torch.equal(a, b), where
    else:
        assert a == b, where


def original_checkpoint(name: str) -> dict[str, dict[str, torch.Tensor]]:
    """A golden folder's weights as the original stores them: many convolutions under two names."""
    shapes = json.loads((GOLDEN / name / "state_dict.json").read_text())
    states = {part: synthetic_state(entries) for part, entries in shapes.items()}
    return {
        part: {key: states[part][entry.get("alias_of", key)] for key, entry in entries.items()}
        for part, entries in shapes.items()
    }


def write_weights(hub: Path, name: str, network: Callable[[], torch.nn.Module]) -> None:
    """Writes random weights of a network of torchvision to its cache, under this name. Those of the
    classifier, which LPIPS does not use, are 0."""
    torch.manual_seed(0)
    with torch.device("meta"):
        shapes = {key: tensor.shape for key, tensor in network().state_dict().items()}
    weights = {
        key: torch.randn(shape) * shape[1:].numel() ** -0.5
        if key.startswith("features")
        else torch.zeros(()).expand(shape)
        for key, shape in shapes.items()
    }
    (hub / "checkpoints").mkdir(parents=True, exist_ok=True)
    torch.save(weights, hub / "checkpoints" / name)
