"""The models and scenes that the viewer can show."""

import os
import shutil
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from baselines import build_model
from dataio import scene_geometry
from deep_voxels import Architecture
from evaluation.render import nearest_neighbors, render_path
from evaluation.trained import Checkpoint
from tests.helpers import CPU, ROOT
from util import InputError
from viewer.picture_choices import BESIDE_PHOTO, COLOR, DEPTH, choices
from viewer.scene import farthest_orbit, load_scene_in_view, load_viewed_model

ARCHITECTURE = Architecture(64, 16, 8, 4, 4)
PATH = Path("model.pth")


def checkpoint_of(name, scene, architecture=ARCHITECTURE) -> Checkpoint:
    """A checkpoint of an untrained model."""
    torch.manual_seed(0)
    geometry = scene_geometry(
        scene.intrinsics, architecture.grid_dim, architecture.proj_sidelength, 1.0
    )
    model = build_model(name, architecture, geometry)
    content = {
        "model": model.state_dict(),
        "average": {},
        "discriminator": {},
        "step": 5,
        "options": {"model": name, "data_root": str(scene.root), **asdict(architecture)},
    }
    return Checkpoint.of(content, PATH)


@pytest.mark.parametrize("name", ["deepvoxels", "pix2pix", "tatarchenko", "worrall"])
def test_every_model_is_shown_as_the_command_line_renders_it(viewed, name):
    views = viewed.scene.views
    checkpoint = checkpoint_of(name, views)
    scene = load_scene_in_view(checkpoint, None)
    model = load_viewed_model(checkpoint, scene, CPU)
    poses = views.cam2world[[2, 5]]
    neighbors = nearest_neighbors(views, poses)
    expected = render_path(model.network, views.poses(CPU)[[2, 5]], neighbors, "fp32")
    for pose, frame in zip(poses, list(expected), strict=True):
        shown = model.render_view(pose)
        np.testing.assert_allclose(shown.image, frame.image, atol=1e-4)  # a 40th of an 8-bit level
        assert (shown.depth is None) == (frame.depth is None) == (not model.learns_depth)
        if model.learns_depth:
            np.testing.assert_allclose(shown.depth, frame.depth, atol=1e-5)
    assert (DEPTH in choices(model.learns_depth, True)) == (name == "deepvoxels")
    assert COLOR in choices(model.learns_depth, False)
    assert BESIDE_PHOTO not in choices(model.learns_depth, False)


def test_model_without_an_occlusion_net_has_no_depth(viewed):
    checkpoint = checkpoint_of(
        "deepvoxels", viewed.scene.views, replace(ARCHITECTURE, no_occlusion_net=True)
    )
    model = load_viewed_model(checkpoint, viewed.scene, CPU)
    assert not model.learns_depth
    assert model.render_view(viewed.scene.views.cam2world[0]).depth is None


def test_scene_without_photos_is_enough_unless_the_model_renders_from_them(viewed, tmp_path):
    shutil.copytree(viewed.scene.root / "pose", tmp_path / "pose")
    shutil.copy(viewed.scene.root / "intrinsics.txt", tmp_path)
    checkpoint = checkpoint_of("deepvoxels", viewed.scene.views)
    scene = load_scene_in_view(checkpoint, tmp_path)
    assert scene.views.images is None
    assert load_viewed_model(checkpoint, scene, CPU).render_view(
        scene.views.cam2world[0]
    ).image.shape == (
        54,
        54,
        3,
    )
    with pytest.raises(InputError, match="training views"):
        load_viewed_model(checkpoint_of("worrall", viewed.scene.views), scene, CPU)


def test_cameras_may_go_as_far_as_the_model_sees_the_grid(viewed):
    """The planes end at near plane + 2 * scale; the grid of scale 1 reaches half of it beyond its
    center."""
    assert farthest_orbit(viewed.model, viewed.scene) == pytest.approx(1.0 + 2 * 1.0 - 0.5)


def test_threads_that_wait_leave_the_processor_to_others():
    """Awake they make a frame beside a training many times slower. OpenMP itself tells what it goes
    by."""
    spins = []
    for imported in ("torch", "viewer.__main__"):
        environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("OMP", "GOMP"))
        }
        shown = subprocess.run(
            [sys.executable, "-c", f"import {imported}"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            env={**environment, "OMP_DISPLAY_ENV": "VERBOSE"},
            check=True,
        ).stderr
        spins += [
            line.split("=")[1].strip(" '")
            for line in shown.splitlines()
            if "GOMP_SPINCOUNT" in line
        ]
    if not spins:
        pytest.skip("this PyTorch has another OpenMP")
    assert spins[0] != "0" and spins[1] == "0"
