"""Files from elsewhere, damaged and hostile ones: a command takes them or says in one line what is
wrong.

In at most 10 seconds and 1 GiB, without reading anything outside the folder that it was given,
without starting another program, and with nothing left behind but the whole target.
"""

import contextlib
import tempfile
from functools import partial
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from checkpoints import save_checkpoint
from deep_voxels import Architecture, DeepVoxels
from tests import foreign_files, foreign_meshes, foreign_pictures
from tests.conftest import write_scene
from tests.helpers import (
    GEOMETRY,
    TINY_RENDER,
    assert_one_line,
    render_arguments,
)

pytestmark = pytest.mark.long  # test_hostile.py holds the same promises on files made by hand
MAY_BE_READ = {"source", "target", ".target.partial", "target.partial", ".target.partial.lock"}
SECONDS = 10
MEMORY = 1 << 30
LONG = settings(
    max_examples=500,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "model.pth"
    save_checkpoint(
        path, {"model": DeepVoxels(Architecture(64, 16, 8, 4, 4), GEOMETRY).state_dict()}
    )
    return path


@contextlib.contextmanager
def source_folder(write):
    """A folder `source` with files in it, beside a picture that nothing may read."""
    with tempfile.TemporaryDirectory() as name:
        source = Path(name) / "source"
        source.mkdir()
        (Path(name) / foreign_files.SECRET).write_bytes(foreign_files.picture())
        write(source)
        yield source


def check(worker, source, module, argv, codes=(0, 2), target=None):
    """Runs a command on files in `source` that makes `target`, and checks everything that is
    promised."""
    root = source.parent
    before = {path for path in root.rglob("*") if path != target}
    ending = worker.run(module, argv)
    assert ending.code in codes, ending.error
    assert "Traceback" not in ending.error, ending.error
    if ending.code == 2:
        assert_one_line(ending.error)
    assert ending.cpu < SECONDS
    assert ending.memory < MEMORY
    assert not ending.programs
    outside = [
        path
        for path in ending.opened
        if path == "/etc/passwd"
        or (
            Path(path).is_relative_to(root)
            and Path(path).relative_to(root).parts[0] not in MAY_BE_READ
        )
    ]
    assert not outside
    assert not list(worker.folder.iterdir())
    left = {
        path for path in root.rglob("*") if target is None or not path.is_relative_to(target)
    } - before
    assert {path for path in left if path.name != "check.png"} == set()
    if target is not None:
        assert target.exists() == (ending.code == 0)
    return ending


def check_import(worker, write, module, *flags):
    with source_folder(write) as source:
        target = source.parent / "target"
        check(worker, source, module, [source, target, *flags], target=target)


def check_mesh(worker, write):
    with source_folder(write) as source:
        target = source.parent / "target"
        (mesh,) = source.glob("mesh.*")
        words = ["--mesh", mesh, "--out", target, *TINY_RENDER]
        check(worker, source, "scenes.render", words, target=target)


def check_depth(worker, weights, content):
    def write(source):
        write_scene(source / "test", views=1)
        (source / "test" / "depth").mkdir()
        (source / "test" / "depth" / "000000.npz").write_bytes(content)

    with source_folder(write) as source:
        check(
            worker,
            source,
            "run_deepvoxels",
            render_arguments(
                source / "test",
                source / "logs",
                weights,
                "--train_root",
                source / "test",
                "--dry_run",
            ),
        )


def check_image(worker, name, content, command):
    def write(source):
        if command == "scenes.check":
            write_scene(source / "scene", views=3, sidelength=8)
            (source / "scene" / "rgb" / "000000.png").unlink()
            foreign_pictures.write_image_file(
                source / "scene" / "rgb" / f"000000.{name.rpartition('.')[2]}", content
            )
        else:
            text = foreign_files.transforms_text([(("frames", 0, "file_path"), name)], None)
            foreign_files.write_transforms(text, foreign_files.points_ply("binary"))(source)
            foreign_pictures.write_image_file(source / name, content)

    if command == "scenes.check":
        with source_folder(write) as source:
            check(worker, source, command, [source / "scene"], codes=(0, 1, 2))
    else:
        check_import(worker, write, command)


importers = st.sampled_from(
    ["scenes.transforms_json", "scenes.transforms_json", "scenes.nerf_synthetic"]
)
checks = st.sampled_from(["scenes.transforms_json"] * 7 + ["scenes.check"])


@LONG
@given(foreign_files.transforms_files, importers)
def test_five_hundred_transforms(worker, write, command):
    check_import(worker, write, command)


@LONG
@given(foreign_files.colmap_models)
@example(
    foreign_files.write_colmap(
        ".bin",
        [("images", partial(foreign_files.change_bytes, change=("flip", 0.041015625, b"\x00`")))],
    )
)  # a quaternion whose square overflows
def test_five_hundred_colmap_models(worker, write):
    check_import(worker, write, "scenes.colmap")


@LONG
@given(foreign_meshes.mesh_writers)
def test_five_hundred_meshes(worker, write):
    check_mesh(worker, write)


@LONG
@given(foreign_pictures.depth_contents)
def test_five_hundred_depth_maps(worker, weights, content):
    check_depth(worker, weights, content)


@LONG
@given(foreign_pictures.image_names, foreign_pictures.picture_contents, checks)
def test_five_hundred_images(worker, name, content, command):
    check_image(worker, name, content, command)
