"""The command line: what a user gets wrong ends with exit code 2 and one line that names it, and writes nothing."""
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import imageio.v2 as imageio
import numpy as np
import pytest
import torch

from checkpoints import save_checkpoint
from deep_voxels import Architecture, DeepVoxels
from run_deepvoxels import main, resolve_options
from tests.conftest import SMALL, look_at_origin
from tests.test_checkpoints import GEOMETRY

ROOT = Path(__file__).parent.parent


def run(*arguments) -> int:
    try:
        return main([str(argument) for argument in arguments])
    except SystemExit as end:
        return end.code


@pytest.fixture
def logs(tmp_path):
    return tmp_path / "logs"


@pytest.fixture
def train_arguments(scene, logs):
    return ["--train_test", "train", "--data_root", scene / "train", "--logging_root", logs, *SMALL, "--max_steps", 2]


@pytest.fixture
def checkpoint(tmp_path):
    """The weights of an untrained small model, as the original stores them."""
    path = tmp_path / "model.pth"
    save_checkpoint(path, {"model": DeepVoxels(Architecture(64, 16, 8, 4, 4), GEOMETRY).state_dict()})
    return path


@pytest.fixture
def assert_refused(capfd, logs):
    """Runs the command, which must end with exit code 2 and one line that holds `*words`, having written nothing."""
    def check(arguments, *words):
        assert run(*arguments) == 2
        error = capfd.readouterr().err
        assert error.count("\n") == 1, error
        assert error.startswith("run_deepvoxels.py: error: ") or ": error: " in error
        for word in words:
            assert word in error, error
        assert not logs.exists()

    return check


def turned_away(path: Path):
    pose = look_at_origin([1.5, 0, 0.9])
    pose[:3, :3] = pose[:3, :3] @ np.diag([1, -1, -1])
    path.write_text(" ".join(map(str, pose.ravel())))


@pytest.mark.parametrize(("break_scene", "words"), [
    (lambda root: (root / "rgb" / "000002.png").unlink(), ["rgb holds 7 images", "8 poses"]),
    (lambda root: (root / "pose" / "000002.txt").write_text("1 2 3"), ["000002.txt", "16"]),
    (lambda root: (root / "pose" / "000002.txt").write_text("1 " * 15 + "inf"), ["000002.txt:1", "finite"]),
    (lambda root: (root / "pose" / "000002.txt").write_text("3 0 0 0 0 3 0 0 0 0 3 0 0 0 0 1"),
     ["000002.txt", "not a rigid transform"]),
    (lambda root: (root / "intrinsics.txt").write_text("50 32 32\n0 0 0\n"), ["intrinsics.txt", "line 3"]),
    (lambda root: (root / "intrinsics.txt").write_text("50 32 32\n0 0 0\nnear\n1\n64 64"), ["intrinsics.txt:3: 'near"]),
    (lambda root: (root / "intrinsics.txt").unlink(), ["intrinsics.txt", "no such file"]),
    (lambda root: (root / "rgb" / "000005.png").write_bytes(b"\x89PNG broken"), ["000005.png", "not a readable image"]),
    (lambda root: imageio.imwrite(root / "rgb" / "000005.png", np.zeros((8, 8, 3), np.uint8)), ["000005.png", "8x8"]),
    (lambda root: [turned_away(path) for path in (root / "pose").iterdir()], ["no view sees the grid"]),
    (lambda root: [path.unlink() for path in (root / "pose").iterdir()], ["pose", "no pose files"]),
])
def test_broken_scenes(scene, train_arguments, assert_refused, break_scene, words):
    break_scene(scene / "train")
    assert_refused(train_arguments, *words)


@pytest.mark.parametrize(("flags", "words"), [
    (["--data_root", "nowhere"], ["nowhere", "no such folder"]),
    (["--grid_dim", 7], ["--grid_dim 7"]),
    (["--grid_dim", 0], ["--grid_dim 0"]),
    (["--grid_dim", 10], ["--grid_dim 10", "multiple of 4"]),
    (["--grid_dim", "many"], ["grid_dim", "many"]),
    (["--img_sidelength", 100], ["--img_sidelength 100"]),
    (["--img_sidelength", 2048], ["--img_sidelength 2048"]),
    (["--proj_sidelength", 128], ["--proj_sidelength 128"]),
    (["--sampling_pattern", "every_3"], ["--sampling_pattern every_3", "skip_N"]),
    (["--sampling_pattern", "skip_100"], ["1 views that see"]),
    (["--lr", "nan"], ["lr", "nan"]),
    (["--num_trgt", 0], ["num_trgt"]),
    (["--precision", "tf32"], ["--precision tf32", "--device cpu"]),
    (["--device", "tpu"], ["--device tpu"]),
    (["--device", "cuda:77"], ["--device cuda:77"]),
    (["--no_such_flag"], ["--no_such_flag"]),
    (["--resume", "missing.pth"], ["missing.pth", "no such file"]),
    (["--resume", "a.pth", "--checkpoint", "b.pth"], ["--resume", "--checkpoint"]),
    (["--train_test", "test"], ["--checkpoint"]),
])
def test_wrong_flags(train_arguments, assert_refused, flags, words):
    assert_refused([*train_arguments, *flags], *words)


@pytest.mark.skipif(torch.cuda.is_available(), reason="has CUDA")
def test_cuda_without_cuda(train_arguments, assert_refused):
    assert_refused([*train_arguments, "--device", "cuda"], "--device cuda", "no CUDA device")


def test_a_flag_that_contradicts_the_checkpoint_names_both_values(scene, logs, checkpoint, assert_refused):
    test = ["--train_test", "test", "--data_root", scene / "test", "--logging_root", logs, "--checkpoint", checkpoint]
    assert_refused([*test, "--grid_dim", 16], "--grid_dim 16", "--grid_dim 8", "model.pth")
    assert_refused([*test, "--no_occlusion_net"], "--no_occlusion_net")
    checkpoint.write_bytes(checkpoint.read_bytes()[:1000])
    assert_refused(test, "model.pth")


def test_weights_alone_cannot_be_resumed(train_arguments, checkpoint, assert_refused):
    assert_refused([*train_arguments, "--resume", checkpoint], "--resume", "--checkpoint")


def test_a_test_camera_that_sees_nothing_is_named(scene, logs, checkpoint, assert_refused):
    turned_away(scene / "test" / "pose" / "000001.txt")
    assert_refused(["--train_test", "test", "--data_root", scene / "test", "--logging_root", logs,
                    "--checkpoint", checkpoint], "000001.txt", "nothing of the grid")


def test_a_training_camera_that_sees_nothing_is_left_out_with_a_warning(scene, train_arguments, capfd):
    turned_away(scene / "train" / "pose" / "000006.txt")
    assert run(*train_arguments, "--dry_run") == 0
    output = capfd.readouterr()
    assert "000006.txt" in output.err
    assert "7 views" in output.out


def test_dry_run_writes_nothing(scene, train_arguments, logs, checkpoint):
    assert run(*train_arguments, "--dry_run") == 0
    assert run("--train_test", "test", "--data_root", scene / "test", "--logging_root", logs, "--checkpoint",
               checkpoint, "--device", "cpu", "--dry_run") == 0
    assert not logs.exists()


def test_the_originals_defaults():
    opt, _ = resolve_options(["--train_test", "train", "--data_root", "a", "--logging_root", "b", "--device", "cpu"])
    expected = {"max_epoch": 400, "lr": 0.0004, "l1_weight": 200, "sampling_pattern": "all", "img_sidelength": 512,
                "no_occlusion_net": False, "num_trgt": 2, "checkpoint": None, "start_epoch": 0, "grid_dim": 32,
                "num_grid_feats": 64, "nf0": 64, "near_plane": 3 ** 0.5 / 2, "experiment_name": ""}
    assert {name: getattr(opt, name) for name in expected} == expected


def test_the_architecture_comes_from_the_checkpoint(checkpoint):
    opt, _ = resolve_options(["--train_test", "test", "--data_root", "a", "--logging_root", "b", "--device", "cpu",
                              "--checkpoint", str(checkpoint)])
    assert (opt.img_sidelength, opt.proj_sidelength, opt.grid_dim, opt.num_grid_feats, opt.nf0) == (64, 16, 8, 4, 4)


def test_ctrl_c_saves_and_ends_cleanly(train_arguments, logs):
    arguments = [str(argument) for argument in train_arguments[:-1]] + ["100000"]
    process = subprocess.Popen([sys.executable, "run_deepvoxels.py", *arguments], cwd=ROOT, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    deadline = time.time() + 100
    while not list(logs.glob("runs/*/*/events*")) and time.time() < deadline:
        time.sleep(0.1)
    time.sleep(1.5)
    process.send_signal(signal.SIGINT)
    output, error = process.communicate(timeout=60)
    assert process.returncode == 130, error
    assert "Traceback" not in error
    (saved,) = logs.glob("logs/*/*/model-*.pth")
    assert str(saved) in output
    assert torch.load(saved, weights_only=True)["step"] > 0
