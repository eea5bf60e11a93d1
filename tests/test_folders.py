"""New folders: whole or not at all, whatever ends the process that makes them, and one process at a time."""
import os
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest

from scenes import render
from tests import foreign_files
from tests.conftest import write_scene
from tests.fuzz_worker import ROOT
from tests.helpers import ENVIRONMENT, run, wait_for
from util import InputError

TINY = ["--sidelength", "8", "--train_views", "3", "--test_views", "1", "--supersampling", "1", "--workers", "1"]


@pytest.mark.parametrize(("module", "command"), [
    ("scenes.render", ["--out", "{target}", *TINY, "--sidelength", 64]),
    ("scenes.noise", ["--scene", "{scene}", "--out", "{target}", "--degrees", 1]),
    ("scenes.path", ["orbit", "--scene", "{scene}", "--out", "{target}"]),
    ("scenes.check", ["{scene}"]), ("scenes.transforms_json", ["{source}", "{target}"]),
    ("scenes.colmap", ["{source}", "{target}"]), ("scenes.nerf_synthetic", ["{source}", "{target}"])])
def test_a_full_disk_is_named_and_the_next_try_works(worker, tmp_path, module, command):
    source = tmp_path / "source"
    source.mkdir()
    write_scene(tmp_path / "scene" / "train", views=3)
    foreign_files.write_transforms(foreign_files.transforms_text([], None), foreign_files.points_ply("binary"))(source)
    shutil.rmtree(source / "images", ignore_errors=True)
    for name, content in foreign_files.colmap_files().items():
        (source / name).write_bytes(content)
    (source / "images").symlink_to(".")
    places = {"{target}": tmp_path / "target", "{scene}": tmp_path / "scene", "{source}": source}
    argv = [places.get(word, word) for word in command]
    before = set(tmp_path.rglob("*"))
    ending = worker.run(module, argv, largest_file=60)
    assert ending.code == 2, ending.error
    assert ending.error.count("\n") == 1, ending.error
    assert str(tmp_path) in ending.error
    left = set(tmp_path.rglob("*")) - before
    assert all((tmp_path / "target.partial") in (path, *path.parents) for path in left)
    assert not list(worker.folder.iterdir())
    assert worker.run(module, argv).code == 0
    assert not list(tmp_path.glob("*.partial")) and not list(tmp_path.glob(".*"))


def start_render(folder, *more):
    return subprocess.Popen([sys.executable, "-m", "scenes.render", "--out", folder / "cube", "--sidelength", "128",
                             "--train_views", "2000", *map(str, more)], cwd=ROOT, env=ENVIRONMENT, text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def test_two_renders_into_one_folder(tmp_path):
    """The second one says who is there; after a kill the folder is free."""
    first = start_render(tmp_path)
    try:
        wait_for(lambda: list(tmp_path.glob("cube.partial/train/rgb/*.png")), first)
        with pytest.raises(InputError, match=rf"another process is writing here \(process {first.pid} on"):
            render.main(["--out", str(tmp_path / "cube"), *TINY])
        assert first.poll() is None
    finally:
        first.kill()
        first.communicate()
    shutil.rmtree(tmp_path / "cube.partial")
    render.main(["--out", str(tmp_path / "cube"), *TINY])
    assert {path.name for path in tmp_path.iterdir()} == {"cube"}


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_import_leaves_nothing_that_the_next_one_does_not_remove(tmp_path, number):
    (tmp_path / "temporary").mkdir()
    photos = tmp_path / "photos"
    photos.mkdir()
    rng = np.random.default_rng(0)
    for index in range(3):
        (photos / f"{index}.jpg").write_bytes(foreign_files.encoded(rng.integers(0, 255, (400, 400, 3), np.uint8)))
    command = [sys.executable, "colmap_wrapper.py", "--img_dir", photos, "--trgt_dir", tmp_path / "mine"]
    kwargs = {"cwd": ROOT, "env": {**ENVIRONMENT, "TMPDIR": str(tmp_path / "temporary")}, "text": True}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **kwargs)
    wait_for(lambda: list(tmp_path.glob(".mine.photos/*")) or list((tmp_path / "temporary").iterdir()), process)
    os.kill(process.pid, number)
    process.communicate()
    assert not list((tmp_path / "temporary").iterdir())
    assert subprocess.run(command, capture_output=True, **kwargs).returncode == 2  # noise cannot be matched
    assert {path.name for path in tmp_path.iterdir()} == {"photos", "temporary"}


def test_a_name_too_long_for_a_folder(train_arguments, assert_refused, logs):
    for name in ("x" * 300, "é" * 150):
        assert_refused([*train_arguments, "--experiment_name", name], "--experiment_name", "too long for a folder")
    assert run(*train_arguments, "--max_steps", 1, "--experiment_name", "é" * 100) == 0
