"""Scene folders and command lines at random, most of them wrong: exit code 0 or 2, one line, nothing half-written."""
import contextlib
import io
import os
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from run_deepvoxels import main
from tests.conftest import SMALL, write_scene

numbers = st.one_of(st.floats(width=32), st.floats(-3, 3), st.integers(-5, 500), st.sampled_from([0, 1, 1e30, -1e-30]))
words = st.one_of(numbers.map(str), st.text(max_size=6))
texts = st.one_of(
    st.lists(st.lists(words, max_size=6).map(" ".join), max_size=7).map("\n".join).map(lambda text: text.encode(
        "utf-8", "surrogatepass")),
    st.lists(numbers.map(str), min_size=16, max_size=16).map(" ".join).map(str.encode),
    st.binary(max_size=60), st.just(b"1 " * 2_000_000))


def png(size, mode):
    file = io.BytesIO()
    Image.new(mode, size).save(file, "PNG")
    return file.getvalue()


pictures = st.one_of(
    st.binary(max_size=60), st.just(b""),
    st.builds(png, st.tuples(st.integers(1, 70), st.integers(1, 70)),
              st.sampled_from(["RGB", "RGBA", "L", "P", "1", "I;16"])),
    st.integers(0, 200).map(lambda length: png((64, 64), "RGB")[:length]))
names = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=20)


def spoil_pose(text, view):
    return lambda root: (root / "pose" / f"{view:06d}.txt").write_bytes(text)


def spoil_intrinsics(text):
    return lambda root: (root / "intrinsics.txt").write_bytes(text)


def spoil_image(content, view):
    return lambda root: (root / "rgb" / f"{view:06d}.png").write_bytes(content)


def add_file(folder, name, suffix):
    def add(root):
        with contextlib.suppress(OSError):  # a name that this file system does not take
            (root / folder / f"{name}{suffix}").write_bytes(b"1 0 0 0 0 1 0 0 0 0 1 0 0 0 0 1")
    return add


def replace_with(kind, part):
    def replace(root):
        path = root / part
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        if kind == "file":
            path.write_bytes(b"text")
        elif kind == "folder":
            path.mkdir()
        elif kind == "broken link":
            path.symlink_to("nowhere")
        elif kind == "link to itself":
            path.symlink_to(path)
    return replace


views = st.integers(0, 2)
spoilers = st.one_of(
    st.builds(spoil_pose, texts, views), st.builds(spoil_intrinsics, texts), st.builds(spoil_image, pictures, views),
    st.builds(add_file, st.sampled_from(["pose", "rgb"]), names, st.sampled_from([".txt", ".png"])),
    st.builds(replace_with, st.sampled_from(["nothing", "file", "folder", "broken link", "link to itself"]),
              st.sampled_from(["pose", "rgb", "intrinsics.txt", "pose/000001.txt", "rgb/000001.png"])),
    st.just(lambda root: None))

intrinsics_lines = st.tuples(*(
    st.lists(numbers, min_size=count, max_size=count).map(lambda row: " ".join(map(str, row)))
    for count in (3, 3, 1, 1, 2)))
flags = st.one_of(
    st.tuples(st.sampled_from(["--grid_dim", "--img_sidelength", "--proj_sidelength", "--num_grid_feats", "--nf0"]),
              st.sampled_from(["-1", "0", "1", "2", "3", "4", "7", "8", "12", "1e3", "99999999999", "x", ""])),
    st.tuples(st.sampled_from(["--lr", "--l1_weight", "--near_plane", "--seed", "--num_trgt", "--max_epoch"]),
              st.one_of(st.sampled_from(["0", "1", "-1", "1e-9", "inf", "nan", "x", "", "99999999999999999999"]))),
    st.tuples(st.sampled_from(["--sampling_pattern", "--device", "--precision", "--background", "--train_test",
                               "--data_root", "--checkpoint", "--resume", "--model"]),
              st.one_of(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=12),
                        st.sampled_from(["all", "skip_1", "skip_9", "cpu", "black", "x" * 5000]))),
    st.tuples(names.map(lambda name: f"--{name}")), st.tuples(names), st.just(()))


def check(spoil, more):
    """Runs one training step on a spoilt scene with odd flags."""
    with tempfile.TemporaryDirectory() as folder:
        root, logs = write_scene(Path(folder) / "scene", views=3), Path(folder) / "logs"
        spoil(root)
        output, error, began = io.TextIOWrapper(io.BytesIO(), "utf-8"), io.StringIO(), time.monotonic()
        here = os.getcwd()
        os.chdir(folder)
        try:
            with contextlib.redirect_stdout(output), contextlib.redirect_stderr(error):
                try:
                    code = main(["--train_test", "train", "--data_root", str(root), "--logging_root", str(logs), *SMALL,
                                 "--max_steps", "1", *more])
                except SystemExit as end:
                    code = end.code or 0
        finally:
            os.chdir(here)
        assert time.monotonic() - began < 10
        assert code in (0, 2), error.getvalue()
        if code == 2:
            assert error.getvalue().count("\n") == 1, error.getvalue()
            assert "error: " in error.getvalue()
            assert not logs.exists()
        assert {path.name for path in Path(folder).iterdir()} <= {"scene", "logs"}


def scene_of_any_intrinsics(root, lines):
    (root / "intrinsics.txt").write_text("\n".join(lines))


EXAMPLES = {"deadline": None, "derandomize": True,
            "suppress_health_check": [HealthCheck.too_slow, HealthCheck.data_too_large]}


@settings(max_examples=40, **EXAMPLES)
@given(spoilers, flags)
def test_some_malformed_input(spoil, more):
    check(spoil, more)


@settings(max_examples=25, **EXAMPLES)
@given(intrinsics_lines)
def test_some_intrinsics(lines):
    check(lambda root: scene_of_any_intrinsics(root, lines), [])


@pytest.mark.long
@settings(max_examples=300, **{**EXAMPLES, "derandomize": False})
@given(spoilers, flags)
def test_three_hundred_malformed_inputs(spoil, more):
    check(spoil, more)


@pytest.mark.long
@settings(max_examples=200, **{**EXAMPLES, "derandomize": False})
@given(intrinsics_lines)
def test_two_hundred_intrinsics(lines):
    check(lambda root: scene_of_any_intrinsics(root, lines), [])


def test_written_poses_at_random(tmp_path):
    """Rigid poses anywhere: training begins, or says that no camera sees the grid."""
    rng = np.random.default_rng(0)
    for _ in range(5):
        rotation = np.linalg.qr(rng.standard_normal((3, 3)))[0]
        pose = np.eye(4)
        pose[:3, :3] = rotation * np.linalg.det(rotation)
        pose[:3, 3] = rng.standard_normal(3) * 10 ** rng.uniform(-2, 8)
        check(spoil_pose(" ".join(map(str, pose.ravel())).encode(), 1), [])
