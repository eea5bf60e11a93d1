"""New folders: whole or not at all, whatever ends the process that makes them, and one process at a
time."""

import os
import shutil
import signal
import subprocess
from pathlib import Path

import numpy as np
import pytest

import colmap_wrapper
from files.folders import new_folder
from scenes import path, render
from tests import foreign_pictures
from tests.conftest import write_scene
from tests.helpers import ENVIRONMENT, TINY_RENDER, run, start_python, wait_for
from util import InputError


def start_render(folder, *more):
    words = ["--out", folder / "cube", "--sidelength", 128, "--train_views", 2000, *more]
    return start_python("-m", "scenes.render", *words)


def test_two_renders_into_one_folder(tmp_path):
    """The second one says who is there, also by another name of the folder; after a kill the folder
    is free."""
    (tmp_path / "link").symlink_to("cube")
    first = start_render(tmp_path)
    try:
        wait_for(lambda: list(tmp_path.glob("cube.partial/train/rgb/*.png")), first)
        with pytest.raises(
            InputError, match=rf"another process is writing here \(process {first.pid} on"
        ):
            render.main(["--out", str(tmp_path / "link"), *TINY_RENDER])
        assert first.poll() is None
    finally:
        first.kill()
        first.communicate()
    shutil.rmtree(tmp_path / "cube.partial")
    render.main(["--out", str(tmp_path / "link"), *TINY_RENDER])
    assert {path.name for path in tmp_path.iterdir()} == {"cube", "link"}
    assert (tmp_path / "link").is_symlink() and (tmp_path / "cube" / "train").is_dir()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_an_import_holds_its_target_and_the_next_one_removes_what_a_killed_one_leaves(
    tmp_path, number
):
    (tmp_path / "temporary").mkdir()
    photos = tmp_path / "photos"
    photos.mkdir()
    rng = np.random.default_rng(0)
    for index in range(3):
        (photos / f"{index}.jpg").write_bytes(
            foreign_pictures.encoded(rng.integers(0, 255, (400, 400, 3), np.uint8))
        )
    words = ["--img_dir", str(photos), "--trgt_dir", str(tmp_path / "mine")]
    temporary = {**ENVIRONMENT, "TMPDIR": str(tmp_path / "temporary")}
    process = start_python("colmap_wrapper.py", *words, env=temporary)
    wait_for(lambda: list(tmp_path.glob(".mine.partial/*")), process)
    os.kill(process.pid, signal.SIGSTOP)
    write_scene(tmp_path / "scene" / "train", views=3)
    with pytest.raises(
        InputError, match=rf"another process is writing here \(process {process.pid} on"
    ):
        path.main(["orbit", "--scene", str(tmp_path / "scene"), "--out", str(tmp_path / "mine")])
    os.kill(process.pid, number)
    os.kill(process.pid, signal.SIGCONT)
    process.communicate()
    assert not list((tmp_path / "temporary").iterdir())
    with pytest.raises(InputError, match="could be related"):  # noise cannot be matched
        colmap_wrapper.main(words)
    assert {path.name for path in tmp_path.iterdir()} == {"photos", "temporary", "scene"}


@pytest.mark.parametrize("exists", [True, False])
def test_a_new_folder_lands_where_a_link_leads(tmp_path, exists):
    if exists:
        (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to("elsewhere")
    with new_folder(tmp_path / "link") as folder:
        (folder / "a").touch()
    assert (tmp_path / "link").is_symlink() and (tmp_path / "elsewhere" / "a").exists()
    assert {entry.name for entry in tmp_path.iterdir()} == {"link", "elsewhere"}


def refused_at_once(target, match):
    with pytest.raises(InputError, match=match), new_folder(target):
        pytest.fail("the work began")


def test_an_empty_folder_that_cannot_be_replaced_is_refused_at_once(tmp_path, monkeypatch):
    """The current folder, a mount point, a loop of links."""
    empty = tmp_path / "empty"
    empty.mkdir()
    monkeypatch.chdir(empty)
    refused_at_once(
        Path(), r"^\.: is the current folder, which cannot be replaced; choose a folder in it"
    )
    refused_at_once(empty, "empty: is the current folder")
    monkeypatch.undo()
    (tmp_path / "loop").symlink_to("loop")
    refused_at_once(tmp_path / "loop", "loop: already exists")
    if subprocess.run(["mount", "-t", "tmpfs", "tmpfs", empty], capture_output=True).returncode:
        pytest.skip("this user may mount nothing")
    try:
        refused_at_once(
            empty, "empty: is a mount point, which cannot be replaced; choose a folder in it"
        )
    finally:
        subprocess.run(["umount", "--lazy", empty], check=True)
    assert {entry.name for entry in tmp_path.iterdir()} == {"empty", "loop"}


def test_a_name_too_long_for_a_folder(train_arguments, assert_refused, logs):
    for name in ("x" * 300, "é" * 150):
        assert_refused(
            [*train_arguments, "--experiment_name", name],
            "--experiment_name",
            "too long for a folder",
        )
    assert run(*train_arguments, "--max_steps", 1, "--experiment_name", "é" * 100) == 0
