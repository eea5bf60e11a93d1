"""Spoilt scenes and odd flags at random: training begins, or says in one line why not."""

import contextlib
import io
import os
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from tests.conftest import SMALL, write_scene
from tests.helpers import assert_one_line, run
from tests.malformed import flags, intrinsics, spoil_pose, spoilers


def check_malformed(spoil, more):
    """One training step on a spoilt scene with odd flags: exit code 0 or 2, one line, nothing
    half-written."""
    with tempfile.TemporaryDirectory() as folder:
        root = write_scene(Path(folder) / "scene", views=3)
        logs = Path(folder) / "logs"
        spoil(root)
        output = io.TextIOWrapper(io.BytesIO(), "utf-8")
        error = io.StringIO()
        began = time.monotonic()
        here = os.getcwd()
        os.chdir(folder)
        try:
            with contextlib.redirect_stdout(output), contextlib.redirect_stderr(error):
                code = (
                    run(
                        "--train_test",
                        "train",
                        "--data_root",
                        root,
                        "--logging_root",
                        logs,
                        *SMALL,
                        "--max_steps",
                        1,
                        *more,
                    )
                    or 0
                )
        finally:
            os.chdir(here)
        assert time.monotonic() - began < 10
        assert code in (0, 2), error.getvalue()
        if code == 2:
            assert_one_line(error.getvalue())
            assert not logs.exists()
        assert {path.name for path in Path(folder).iterdir()} <= {"scene", "logs"}


LONG = {
    "deadline": None,
    "suppress_health_check": [HealthCheck.too_slow, HealthCheck.data_too_large],
}


@pytest.mark.long
@settings(max_examples=300, **LONG)
@given(spoilers, flags)
def test_three_hundred_malformed_inputs(spoil, more):
    check_malformed(spoil, more)


@pytest.mark.long
@settings(max_examples=200, **LONG)
@given(intrinsics)
def test_two_hundred_intrinsics(spoil):
    check_malformed(spoil, [])


def test_rigid_poses_anywhere():
    """Training begins, or says that no camera sees the grid."""
    rng = np.random.default_rng(0)
    for _ in range(5):
        rotation = np.linalg.qr(rng.standard_normal((3, 3)))[0]
        pose = np.eye(4)
        pose[:3, :3] = rotation * np.linalg.det(rotation)
        pose[:3, 3] = rng.standard_normal(3) * 10 ** rng.uniform(-2, 8)
        check_malformed(spoil_pose(" ".join(map(str, pose.ravel())).encode(), 1), [])
