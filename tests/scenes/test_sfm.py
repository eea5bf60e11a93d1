"""Photos to a scene folder: cameras and grid on renders with known cameras, and photos that cannot
be related."""

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pillow_heif
import pytest
import trimesh
from PIL import Image
from trimesh.visual import TextureVisuals
from trimesh.visual.material import PBRMaterial

import colmap_wrapper
from data_util import list_images, list_poses, load_image, load_intrinsics, load_pose, write_image
from geometry.cameras import look_at
from scenes import check
from scenes.capture.sfm import image_pairs
from scenes.synthetic.objects import OBJECTS
from scenes.synthetic.raycast import RayCaster
from scenes.synthetic.surface import Surface
from scenes.synthetic.textures import letter_panel, noise
from tests.helpers import ROOT, STARTED, wait_for
from util import InputError

SIZE = 320
FOCAL = 400.0
RADIUS = 2.0


def photographs(folder, count, size=SIZE, focal=FOCAL):
    """Renders of the lettered cube on a patterned floor, along an arc; returns the camera-to-world
    poses.

    The first photo is HEIC. Beside `folder` its `masks` of the cube.
    """
    pattern = np.stack([noise((512, 512), seed, finest=0.004) for seed in range(3)], axis=2)
    floor = np.clip(120 + 60 * pattern, 0, 255).astype(np.uint8)
    floor[64:192, 64:192] = cv2.resize(letter_panel("F", (90, 60, 60), 512, 1), (128, 128))
    corners = np.array([[-3, -3, -0.5], [3, -3, -0.5], [3, 3, -0.5], [-3, 3, -0.5]])
    material = PBRMaterial(baseColorTexture=Image.fromarray(floor))
    visual = TextureVisuals(uv=np.array([[0, 0], [1, 0], [1, 1], [0, 1]]), material=material)
    ground = trimesh.Trimesh(corners, [[0, 1, 2], [0, 2, 3]], visual=visual, process=False)
    cube = RayCaster(Surface.from_meshes(OBJECTS["cube"]()))
    caster = RayCaster(Surface.from_meshes([*OBJECTS["cube"](), ground]))
    angles = np.linspace(0, np.radians(9) * count, count)
    height = np.full(count, np.sqrt(1 - 0.85**2))
    centers = RADIUS * np.stack([np.cos(angles) * 0.85, np.sin(angles) * 0.85, height], axis=1)
    centers *= 1 + 0.05 * np.sin(5 * angles)[:, None]
    cam2world = look_at(centers, np.zeros(3), np.array([0.0, 0.0, 1.0]))
    matrix = np.array([[focal, 0, size / 2], [0, focal, size / 2], [0, 0, 1]])
    masks = folder.with_name("masks")
    folder.mkdir()
    masks.mkdir()
    pillow_heif.register_heif_opener()
    for index, pose in enumerate(cam2world):
        photo = Image.fromarray(caster.render(pose, matrix, size, 2))
        photo.save(folder / f"shot {index}.{'png' if index else 'heic'}", quality=95)
        Image.fromarray(np.isfinite(cube.depth(pose, matrix, size))).save(
            masks / f"shot {index}.png"
        )
    return cam2world


def align(estimated, true):
    """Distances between centers after the best similarity transform (Umeyama 1991), and its
    rotation."""
    a = estimated - estimated.mean(0)
    b = true - true.mean(0)
    left, sizes, right = np.linalg.svd(b.T @ a)
    flip = np.diag([1, 1, np.sign(np.linalg.det(left @ right))])
    scale = (sizes * np.diag(flip)).sum() / (a**2).sum()
    rotation = left @ flip @ right
    return np.linalg.norm(scale * a @ rotation.T - b, axis=1), rotation


def test_photos_become_an_upright_scene_around_the_masked_object(tmp_path, capsys):
    true = photographs(tmp_path / "photos", 8)
    colmap_wrapper.main(
        [
            "--img_dir",
            str(tmp_path / "photos"),
            "--trgt_dir",
            str(tmp_path / "scene"),
            "--masks",
            str(tmp_path / "masks"),
            "--test_every",
            "0",
        ]
    )
    train = tmp_path / "scene" / "train"
    poses = np.stack([load_pose(path) for path in list_poses(train / "pose")])
    assert len(poses) == len(list_images(train / "rgb")) == len(true)
    errors, scene2truth = align(poses[:, :3, 3], true[:, :3, 3])
    assert errors.max() < 0.005 * RADIUS
    assert scene2truth[2, 2] > np.cos(np.radians(2))  # z is the floor's normal
    intrinsics = load_intrinsics(train / "intrinsics.txt")
    assert intrinsics.focal == pytest.approx(FOCAL, rel=0.02)
    assert (tmp_path / "scene" / "points.ply").exists()
    out = capsys.readouterr().out
    assert "cameras found for 8 of 8 photos\n  warning: that is few; 30 photos or more" in out
    words = shlex.split(out.splitlines()[-1])[1:]
    assert words[:2] == ["-m", "scenes.check"]
    check.main(words[2:])
    assert (tmp_path / "scene" / "check.png").is_file()
    # with masks the grid holds the cube, whose side is 1, and little more: not the floor
    distances = np.linalg.norm(poses[:, :3, 3] - intrinsics.grid_origin, axis=1)
    scene2true_scale = np.median(np.linalg.norm(true[:, :3, 3], axis=1) / distances)
    assert 1 < intrinsics.scale * scene2true_scale < 1.25
    cut_out = load_image(list_images(train / "rgb")[0])
    mask = load_image(tmp_path / "masks" / "shot 0.png") == 255
    assert (cut_out == 255).all(axis=2).mean() == pytest.approx(1 - mask[..., 0].mean(), abs=0.02)
    assert cut_out[SIZE // 2, SIZE // 2].max() < 250


def test_pairs_to_match():
    names = [f"{index:03d}" for index in range(400)]
    assert len(image_pairs(names[:20], "exhaustive")) == 190
    pairs = image_pairs(names, "sequential")
    assert len(set(pairs)) == len(pairs) < 400 * 20
    assert {("000", "001"), ("010", "022"), ("005", "197")} <= set(pairs) and all(
        a < b for a, b in pairs
    )


def refused(tmp_path, match):
    before = sorted(tmp_path.iterdir())
    with pytest.raises(InputError, match=match) as error:
        colmap_wrapper.main(
            ["--img_dir", str(tmp_path / "photos"), "--trgt_dir", str(tmp_path / "scene")]
        )
    assert "\n" not in str(error.value)
    assert sorted(tmp_path.iterdir()) == before


def test_textureless_photos_end_in_advice(tmp_path):
    (tmp_path / "photos").mkdir()
    for index in range(4):
        write_image(
            tmp_path / "photos" / f"{index}.png", np.full((96, 96, 3), 60 * index, np.uint8)
        )
    refused(tmp_path, "could be related to each other.*texture")


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_sigterm_prints_no_stack_trace_while_pycolmap_is_imported(tmp_path):
    (tmp_path / "photos").mkdir()
    words = ["--img_dir", tmp_path / "photos", "--trgt_dir", tmp_path / "out"]
    process = subprocess.Popen(
        [sys.executable, "colmap_wrapper.py", *words], cwd=ROOT, stderr=subprocess.PIPE, text=True
    )
    STARTED.append(process)
    status = Path(f"/proc/{process.pid}/status")

    def handles_sigterm() -> bool:
        caught = int(re.search(r"SigCgt:\s*(\w+)", status.read_text())[1], 16)
        return bool(caught >> (signal.SIGTERM - 1) & 1)

    while not handles_sigterm():
        time.sleep(0.01)
        if process.poll() is not None:
            pytest.skip("this machine is too busy to look at the right moment")
    process.terminate()
    assert process.communicate(timeout=60)[1] == ""
    assert process.returncode == -signal.SIGTERM


def test_sigterm_ends_it_without_a_stack_trace(tmp_path):
    """pycolmap would print one."""
    photos = tmp_path / "photos"
    photos.mkdir()
    random = np.random.default_rng(0)
    for index in range(24):
        coarse = random.integers(0, 256, (60, 80, 3), np.uint8)
        write_image(photos / f"{index:02d}.png", cv2.resize(coarse, (640, 480)))
    report = tmp_path / "progress.json"
    process = subprocess.Popen(
        [sys.executable, "colmap_wrapper.py", "--img_dir", photos, "--trgt_dir", tmp_path / "out"],
        cwd=ROOT,
        env={**os.environ, "DEEPVOXELS_PROGRESS": str(report)},
        stderr=subprocess.PIPE,
        text=True,
    )
    STARTED.append(process)
    wait_for(lambda: report.exists() and '"pair"' in report.read_text(), process, seconds=120)
    process.terminate()
    _, error = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGTERM
    assert len([line for line in error.splitlines() if "%|" not in line]) <= 1, error
    assert not (tmp_path / "out").exists()
