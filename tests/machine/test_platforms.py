"""The commands on other systems than Linux, tried by taking away from real processes what only
Linux has; and what a run does without git and without enough memory."""

import os
import re
import subprocess
import sys
import textwrap

import numpy as np
import pytest

from checkpoints import load_checkpoint
from deep_voxels import SIZES
from files.runs import newest_checkpoint, point_latest_at
from geometry.cameras import hemisphere, look_at
from scenes.synthetic import first_hits, raycast
from scenes.synthetic.objects import OBJECTS
from scenes.synthetic.surface import Surface, fit_unit_cube
from tests.conftest import SMALL
from tests.helpers import (
    ENVIRONMENT,
    ROOT,
    arguments,
    assert_same,
    checkpoints,
    final_checkpoint,
    finish,
    run,
    start,
)
from training.memory import GIB, LIBRARIES, training_needs
from training.options import Learning

resource = pytest.importorskip("resource")  # limits of memory; Windows has none

# Python reads a module of this name at start, in every process.
SITECUSTOMIZE = """
    import ctypes, os, shutil, signal, sys
    import psutil  # asks the system in its own way on each

    for module in ("fcntl", "resource", "termios", "embreex", "pycolmap"):
        sys.modules[module] = None
    del os.sched_getaffinity, os.fork, os.O_DIRECTORY, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2
    shutil._use_fd_functions = False  # as where folders cannot be opened
    system_open, system_cdll = os.open, ctypes.CDLL.__init__

    def symlink(*args, **kwargs):
        raise OSError(1314, "A required privilege is not held by the client")

    def open(path, *args, **kwargs):
        if os.path.isdir(path):
            raise PermissionError(13, "Permission denied", path)
        return system_open(path, *args, **kwargs)

    def cdll(self, name, *args, **kwargs):
        if name is None:
            raise TypeError("argument of type 'NoneType' is not iterable")
        system_cdll(self, name, *args, **kwargs)

    os.symlink, os.open, ctypes.CDLL.__init__ = symlink, open, cdll
"""
COMMANDS = """
    import runpy
    import sys
    from pathlib import Path
    from run_deepvoxels import main
    from scenes.check import main as check
    from scenes.render import main as render
    from scenes.synthetic import first_hits

    root, small = sys.argv[1], sys.argv[2:]
    assert first_hits.EmbreeScene is None
    views = ["--train_views", "6", "--test_views", "2"]
    render(["--out", f"{root}/cube", "--sidelength", "32", *views])
    check([f"{root}/cube"])
    logs = ["--logging_root", f"{root}/logs"]
    train = ["--train_test", "train", "--data_root", f"{root}/cube/train", *logs]
    assert main([*train, *small, "--max_steps", "2"]) == 0
    assert main([*train, "--resume", "latest", "--max_steps", "4"]) == 0
    (latest,) = Path(root).glob("logs/logs/*/*/latest.pth")
    assert main(["--train_test", "test", "--data_root", f"{root}/cube/test", *logs,
                 "--checkpoint", str(latest), "--device", "cpu"]) == 0
    for sys.argv in (
        ["scenes.photos", "--help"],
        ["scenes.photos", "--img_dir", root, "--trgt_dir", f"{root}/scene"],
        ["scenes.transforms_json", "--help"],
        ["scenes.transforms_json", root, f"{root}/scene"],
        ["scenes.nerf_synthetic", "--help"],
    ):
        try:
            runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
        except SystemExit as end:
            print("exit code", end.code or 0)
"""


def test_scenes_training_resuming_and_testing_need_nothing_that_only_linux_has(tmp_path):
    """No fcntl, SIGHUP, SIGUSR1, core count, links, fork, folders as files, C library, Embree or
    pycolmap; nor git. The importers that need pycolmap, which Linux on ARM has not, say so in one
    line."""
    (tmp_path / "sitecustomize.py").write_text(textwrap.dedent(SITECUSTOMIZE))
    ended = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(COMMANDS), tmp_path, *SMALL],
        cwd=ROOT,
        text=True,
        capture_output=True,
        env={**ENVIRONMENT, "PYTHONPATH": str(tmp_path), "PATH": ""},
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert re.findall(r"exit code (\d)", ended.stdout) == ["0", "2", "0", "2", "0"]
    missing = [line for line in ended.stderr.splitlines() if "pycolmap" in line]
    assert len(missing) == 2
    assert all("pycolmap, which is not installed" in line for line in missing)
    logs = tmp_path / "logs"
    path, resumed = final_checkpoint(logs, 4)
    assert '"git_commit": "unknown"' in (path.parent / "options.json").read_text()
    assert not any(file.is_symlink() for file in path.parent.iterdir())
    assert len(checkpoints(logs)) == 2
    assert newest_checkpoint(path.parent) == path
    assert list(logs.glob("test_traj/*/*/metrics.json"))

    assert run(*arguments(tmp_path / "cube", tmp_path / "linux", "--max_steps", 4)) == 0
    assert_same(final_checkpoint(tmp_path / "linux", 4)[1]["model"], resumed["model"])


def test_a_latest_checkpoint_is_found_with_links_and_without(trained, tmp_path, monkeypatch):
    source, checkpoint = final_checkpoint(trained[1], 2)
    for index in range(2):
        path = tmp_path / f"model-epoch_0_iter_{index}.pth"
        path.write_bytes(source.read_bytes())
        point_latest_at(path)
        assert newest_checkpoint(tmp_path) == path
        assert (tmp_path / "latest.pth").is_symlink() == (index == 0)
        assert_same(load_checkpoint(tmp_path / "latest.pth")["model"], dict(checkpoint["model"]))
        monkeypatch.delattr(os, "symlink")
        monkeypatch.setattr(
            os, "symlink", lambda *_: (_ for _ in ()).throw(OSError(95, "no links")), raising=False
        )
    path.unlink()
    assert newest_checkpoint(tmp_path) is None


@pytest.mark.parametrize("name", ["cube", "vase"])
def test_both_ray_engines_draw_the_same_picture(name, monkeypatch):
    """But for pixels on a seam of the texture, where a ray meets two triangles' edge."""
    pytest.importorskip("embreex")
    surface = Surface.from_meshes(fit_unit_cube(OBJECTS[name]()))
    (pose,) = look_at(hemisphere(1, 2.0, 0), target=np.zeros(3), up=np.array([0.0, 0.0, 1.0]))
    matrix = np.array([[32.0, 0, 16], [0, 32, 16], [0, 0, 1]])
    pictures = []
    depths = []
    for caster in (first_hits.EmbreeCaster, first_hits.ZBufferCaster):
        monkeypatch.setattr(raycast, "Caster", caster)
        engine = raycast.RayCaster(surface)
        pictures.append(engine.render(pose, matrix, 32, 2).astype(int))
        depths.append(engine.depth(pose, matrix, 32))
    assert (np.abs(pictures[0] - pictures[1]) > 1).mean() < 0.005
    assert 0.1 < np.isfinite(depths[0]).mean() < 0.9
    assert (np.isclose(*depths, atol=1e-4)).mean() > 0.998


def test_a_start_that_cannot_be_recorded_leaves_no_folder(scene, tmp_path, worker):
    command = arguments(scene, tmp_path / "logs", "--max_steps", 1)
    ending = worker.run("run_deepvoxels", command, largest_file=100)
    assert ending.code == 2
    assert ending.error.count("error: ") == 1
    assert not list((tmp_path / "logs").glob("*/*/*"))


@pytest.mark.parametrize(
    ("size", "gib"),
    [("small", 0.93), ("medium", 1.33), ("large", 3.85), ("paper", 6.67)],
)
def test_the_estimate_is_near_what_was_measured(size, gib):
    """Peak resident memory of training steps on the CPU, of which the program holds 0.6 GiB when it
    estimates."""
    needs = training_needs(SIZES[size], Learning())
    assert (0.6 * GIB + LIBRARIES + needs.state + needs.step) / GIB == pytest.approx(gib, rel=0.2)


def test_the_estimate_counts_the_loss_of_structure():
    """At 512 pixels, without the border, it keeps at least 10 maps of two images for the backward
    pass."""
    without, with_it = (
        training_needs(SIZES["large"], Learning(ssim_weight=weight)) for weight in (0.0, 20.0)
    )
    assert with_it.step - without.step > 10 * 2 * 3 * 502 * 502 * 4
    assert with_it.state == without.state


def test_a_run_says_what_it_needs_before_it_takes_it(scene, tmp_path):
    """A grid of 512 voxels a side needs hundreds of GiB: the estimate comes first, then one line
    says that it failed."""
    begin = arguments(scene, tmp_path / "logs", "--grid_dim", 512, "--num_grid_feats", 64)
    limit = (24 << 30, 24 << 30)
    process = start(*begin, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, limit))
    code, output, error = finish(process)
    assert code == 1
    assert "memory: about " in output
    warning, *_, line = error.splitlines()
    assert warning.startswith("warning: training needs about ")
    assert "it needs less with a smaller --size or --precision bf16; " in warning
    assert line.startswith("run_deepvoxels.py: error: out of memory: ")
    assert not (tmp_path / "logs").exists()
