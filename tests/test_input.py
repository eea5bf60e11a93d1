"""What a command line and its input files may hold: bad input ends in one line, exit code 2 and
nothing written."""

import shutil
import struct
import zlib
from pathlib import Path

import imageio.v2 as imageio
import numpy as np
import pytest
import torch

from checkpoints import save_checkpoint
from data_util import load_image
from deep_voxels import Architecture, DeepVoxels
from tests.conftest import look_at_origin, write_scene
from tests.helpers import (
    GEOMETRY,
    arguments,
    assert_one_line,
    final_checkpoint,
    options_of,
    render_arguments,
    resume,
    run,
)
from training.options import Learning
from util import InputError

WEIGHT = "rendering_net.net.3.weight"


@pytest.fixture
def untrained(tmp_path):
    """The weights of a small model, as the original stores them."""
    path = tmp_path / "model.pth"
    save_checkpoint(
        path, {"model": DeepVoxels(Architecture(64, 16, 8, 4, 4), GEOMETRY).state_dict()}
    )
    return path


def turned_away(path: Path):
    pose = look_at_origin([1.5, 0, 0.9])
    pose[:3, :3] = pose[:3, :3] @ np.diag([1, -1, -1])
    path.write_text(" ".join(map(str, pose.ravel())))


@pytest.mark.parametrize(
    ("break_scene", "words"),
    [
        (lambda root: (root / "rgb" / "000002.png").unlink(), ["rgb holds 7 images", "8 poses"]),
        (lambda root: (root / "pose" / "000002.txt").write_text("1 2 3"), ["000002.txt", "16"]),
        (
            lambda root: (root / "pose" / "000002.txt").write_text("1 " * 15 + "inf"),
            ["000002.txt:1", "finite"],
        ),
        (
            lambda root: (root / "pose" / "000002.txt").write_text(
                "3 0 0 0 0 3 0 0 0 0 3 0 0 0 0 1"
            ),
            ["000002.txt", "not a rigid transform"],
        ),
        (
            lambda root: (root / "intrinsics.txt").write_text("50 32 32\n0 0 0\n"),
            ["intrinsics.txt", "line 3"],
        ),
        (
            lambda root: (root / "intrinsics.txt").write_text("50 32 32\n0 0 0\nnear\n1\n64 64"),
            ["intrinsics.txt:3: 'near"],
        ),
        (lambda root: (root / "intrinsics.txt").unlink(), ["intrinsics.txt", "no such file"]),
        (
            lambda root: (root / "rgb" / "000005.png").write_bytes(b"\x89PNG broken"),
            ["000005.png", "not a readable image"],
        ),
        (
            lambda root: imageio.imwrite(
                root / "rgb" / "000005.png", np.zeros((8, 8, 3), np.uint8)
            ),
            ["000005.png", "8x8"],
        ),
        (
            lambda root: [turned_away(path) for path in (root / "pose").iterdir()],
            ["no view sees the grid"],
        ),
        (
            lambda root: [path.unlink() for path in (root / "pose").iterdir()],
            ["pose", "no pose files"],
        ),
        (shutil.rmtree, ["train", "no such folder"]),
    ],
)
def test_broken_scenes(scene, train_arguments, assert_refused, break_scene, words):
    break_scene(scene / "train")
    assert_refused(train_arguments, *words)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ("--grid_dim 7", ["--grid_dim 7"]),
        ("--grid_dim 0", ["--grid_dim 0"]),
        ("--grid_dim many", ["grid_dim", "many"]),
        ("--grid_dim 10", ["--grid_dim 10", "multiple of 4"]),
        ("--img_sidelength 100", ["--img_sidelength 100"]),
        ("--img_sidelength 2048", ["--img_sidelength 2048"]),
        ("--proj_sidelength 128", ["--proj_sidelength 128"]),
        ("--sampling_pattern every_3", ["--sampling_pattern every_3", "skip_N"]),
        ("--sampling_pattern skip_100", ["1 views that see"]),
        ("--lr nan", ["lr", "nan"]),
        ("--num_trgt 0", ["num_trgt"]),
        ("--recipe slow", ["recipe", "slow"]),
        ("--lr_decay 1.5", ["lr_decay", "1.5"]),
        ("--lr_decay nan", ["lr_decay"]),
        ("--average 1", ["average", "1"]),
        ("--average=-0.1", ["average", "-0.1"]),
        ("--dropout=-1", ["dropout", "-1"]),
        ("--dropout inf", ["dropout", "inf"]),
        ("--precision tf32", ["--precision tf32", "--device cpu"]),
        ("--device tpu", ["--device tpu"]),
        ("--device cuda:77", ["--device cuda:77"]),
        ("--start_epoch 1e30", ["start_epoch"]),
        (f"--start_epoch {10**30}", ["start_epoch", "1e+09"]),
        ("--resume=", ["--resume", "names no file"]),  # of a variable that is not set
        ("--checkpoint=", ["--checkpoint", "names no file"]),
        ("--no_such_flag", ["--no_such_flag"]),
        ("--resume missing.pth", ["missing.pth", "no such file"]),
        ("--resume a.pth --checkpoint b.pth", ["--resume", "--checkpoint"]),
        ("--train_test test", ["--checkpoint"]),
        pytest.param(
            "--device cuda",
            ["--device cuda", "no CUDA device"],
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="has CUDA"),
        ),
    ],
)
def test_wrong_flags(train_arguments, assert_refused, flags, words):
    assert_refused([*train_arguments, *flags.split()], *words)


def test_a_flag_that_contradicts_the_checkpoint_names_both_values(
    scene, logs, untrained, assert_refused
):
    command = render_arguments(scene / "test", logs, untrained)
    assert_refused([*command, "--grid_dim", 16], "--grid_dim 16", "--grid_dim 8", "model.pth")
    assert_refused([*command, "--no_occlusion_net"], "--no_occlusion_net")


def test_weights_alone_cannot_be_resumed(train_arguments, untrained, assert_refused):
    assert_refused([*train_arguments, "--resume", untrained], "--resume", "--checkpoint")


def test_a_resumed_run_cannot_change_what_it_learns(trained, logs, tmp_path, assert_refused):
    scene, _, checkpoint = trained
    save_checkpoint(tmp_path / "model.pth", checkpoint)
    command = [
        "--train_test",
        "train",
        "--logging_root",
        logs,
        "--resume",
        tmp_path / "model.pth",
        "--max_steps",
        3,
    ]
    for change in (
        "--l1_weight 100",
        "--seed 7",
        "--num_trgt 3",
        "--precision bf16",
        "--grid_dim 16",
        "--deterministic",
        "--recipe fast",
        "--average 0.9",
        "--lr_decay 0.1",
        "--dropout 0.5",
    ):
        assert_refused([*command, *change.split()], change)
    shutil.copytree(scene / "train", tmp_path / "other")
    (tmp_path / "other" / "rgb" / "000000.png").write_bytes(
        (scene / "train" / "rgb" / "000001.png").read_bytes()
    )
    assert_refused([*command, "--data_root", tmp_path / "other"], "not the scene")
    shutil.copytree(scene / "train", tmp_path / "larger")
    lines = (scene / "train" / "intrinsics.txt").read_text().splitlines()
    lines[3] = str(2 * float(lines[3]))  # the grid
    (tmp_path / "larger" / "intrinsics.txt").write_text("\n".join(lines))
    assert_refused([*command, "--data_root", tmp_path / "larger"], "larger/intrinsics.txt")


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"history": 3}'])
def test_a_damaged_record_of_options_is_named(trained, tmp_path, capfd, content):
    shutil.copytree(trained[1], tmp_path / "copy", symlinks=True)
    (options,) = tmp_path.glob("copy/logs/*/*/options.json")
    options.write_text(content)
    assert run(*resume(tmp_path / "copy", "--max_steps", 3)) == 2
    assert_one_line(capfd.readouterr().err, "options.json: is damaged")


def test_a_logging_root_that_cannot_be_made_is_refused(scene, tmp_path, assert_refused):
    (tmp_path / "file").write_text("")
    for root in (tmp_path / "file", tmp_path / "file" / "logs"):
        assert_refused(arguments(scene, root), "--logging_root")


def test_a_test_of_a_camera_that_sees_nothing_is_refused(scene, logs, untrained, assert_refused):
    turned_away(scene / "test" / "pose" / "000001.txt")
    assert_refused(
        render_arguments(scene / "test", logs, untrained), "000001.txt", "nothing of the grid"
    )


def test_training_leaves_a_camera_out_that_sees_nothing(scene, train_arguments, capfd):
    turned_away(scene / "train" / "pose" / "000006.txt")
    assert run(*train_arguments, "--dry_run") == 0
    output = capfd.readouterr()
    assert "000006.txt" in output.err
    assert "7 views" in output.out


def test_dry_run_writes_nothing(scene, train_arguments, logs, untrained):
    assert run(*train_arguments, "--dry_run") == 0
    assert run(*render_arguments(scene / "test", logs, untrained), "--dry_run") == 0
    assert not logs.exists()


def test_training_says_how_often_it_goes_through_the_views(scene, logs, capfd):
    assert run(*arguments(scene, logs, "--sampling_pattern", "skip_1", "--dry_run")) == 0
    assert "steps 0 to 1600, 400.0 passes over the views" in capfd.readouterr().out


def test_the_originals_defaults():
    options = options_of(
        "--train_test", "train", "--data_root", "a", "--logging_root", "b", "--device", "cpu"
    )
    expected = {
        "max_epoch": 400,
        "lr": 0.0004,
        "l1_weight": 200,
        "sampling_pattern": "all",
        "img_sidelength": 512,
        "no_occlusion_net": False,
        "num_trgt": 2,
        "checkpoint": None,
        "start_epoch": 0,
        "grid_dim": 32,
        "num_grid_feats": 64,
        "nf0": 64,
        "near_plane": 3**0.5 / 2,
        "experiment_name": "",
    }
    assert {name: options.flags[name] for name in expected} == expected
    assert options.architecture == Architecture()
    assert options.learning == Learning()


def test_the_architecture_comes_from_the_checkpoint(untrained):
    options = options_of(*render_arguments("a", "b", untrained))
    assert options.architecture == Architecture(64, 16, 8, 4, 4)


@pytest.mark.parametrize("depth", [8, 16])
def test_a_picture_is_not_decoded_before_its_size_is_known(tmp_path, depth):
    """A PNG of 70 bytes that claims to be 100000x100000."""

    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", 100000, 100000, depth, 2, 0, 0, 0)
    (tmp_path / "huge.png").write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")
    )
    with pytest.raises(InputError, match="huge.png"):
        load_image(tmp_path / "huge.png")


@pytest.mark.parametrize(
    "name", ["..png", "a\nb", "été \u202e", "-rf", "$(touch x)", "'; --", "a" * 200]
)
def test_odd_names_are_read_and_nothing_is_written_outside_the_logging_root(tmp_path, logs, name):
    root = write_scene(tmp_path / "scene" / name, views=3)
    (root / "rgb" / "000000.png").rename(root / "rgb" / f"0{name}.png")
    (root / "pose" / "000000.txt").rename(root / "pose" / f"0{name}.txt")
    shutil.move(root / "rgb" / "000001.png", tmp_path / "elsewhere.png")
    (root / "rgb" / "000001.png").symlink_to("../../../elsewhere.png")
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert run(*arguments(tmp_path, logs, "--max_steps", 1), "--data_root", root) == 0
    path, _ = final_checkpoint(logs, 1)
    assert run(*render_arguments(root, logs, path), f"--experiment_name={name}") == 0
    after = {
        path: path.stat().st_mtime_ns
        for path in tmp_path.rglob("*")
        if not path.is_relative_to(logs)
    }
    assert before == after
    assert {path.name for path in logs.iterdir()} == {"logs", "runs", "test_traj"}


@pytest.mark.parametrize(
    "content",
    [
        {"model": {"deepvoxels": torch.zeros(1).expand(1, 1000, 1000, 1000, 1000)}},
        {"model": {"deepvoxels": torch.zeros(3)}},
        {"model": {1: torch.zeros(3)}},
        {"model": [], "discriminator": 3},
        {"model": {"deepvoxels": "text"}},
    ],
)
def test_tensors_that_are_not_what_they_should_be(tmp_path, logs, assert_refused, content):
    torch.save(content, tmp_path / "odd.pth")
    assert_refused(render_arguments("x", logs, tmp_path / "odd.pth"), "odd.pth")


@pytest.mark.parametrize(
    "spoil",
    [
        lambda weight: weight.fill_(float("nan")),
        lambda weight: weight.double(),
        lambda weight: weight[:1],
    ],
)
def test_weights_that_are_not_finite_or_of_another_type_are_refused(
    trained, tmp_path, logs, assert_refused, spoil
):
    scene, _, checkpoint = trained
    model = {name: value.clone() for name, value in checkpoint["model"].items()}
    model[WEIGHT] = spoil(model[WEIGHT])
    torch.save({"model": model}, tmp_path / "spoiled.pth")
    assert_refused(
        [
            "--train_test",
            "train",
            "--data_root",
            scene / "train",
            "--logging_root",
            logs,
            "--checkpoint",
            tmp_path / "spoiled.pth",
        ],
        WEIGHT,
    )
