"""DeepVoxels as a method of NerfBaselines, with that package; without it, most tests are skipped.

pip install --no-deps -r integrations/nerfbaselines/requirements.txt
"""

import json
import shutil
import subprocess
import sys
import tarfile
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import torchvision

from checkpoints import save_checkpoint
from data_util import list_images, load_rgba, write_image
from evaluation.render import with_moved_principal_point
from evaluation.trained import read_checkpoint
from geometry.cameras import opengl2opencv
from integrations.nerfbaselines.run import read_rotation
from machine.installed import is_installed
from tests.conftest import SMALL, hemisphere_poses
from tests.helpers import (
    ALEXNET,
    CPU,
    ENVIRONMENT,
    ROOT,
    arguments,
    assert_one_line,
    assert_same,
    final_checkpoint,
    finish,
    run,
    start_python,
    synthetic_state,
    write_weights,
)
from util import InputError

SPEC = ROOT / "integrations" / "nerfbaselines" / "deepvoxels_spec.py"
SIDE = 64
FOCAL = 70.0
SETTINGS = {
    flag.removeprefix("--"): value for flag, value in zip(SMALL[::2], SMALL[1::2], strict=True)
}
# NerfBaselines' commands one after the other, which takes the seconds of importing once
COMMANDS = """
import json, sys
from nerfbaselines.cli import main
for words in json.loads(sys.argv[1]):
    try:
        main(words, standalone_mode=False)
    except SystemExit as end:
        print("exit code", end.code)
"""

needs_package = pytest.mark.skipif(
    not is_installed("nerfbaselines"), reason="NerfBaselines is not installed"
)


@pytest.mark.parametrize("content", ["{", "[" * 100_000, "{}", '{"rotation": [1]}'])
def test_a_damaged_rotation_is_refused_by_name(content, tmp_path):
    (tmp_path / "scene.json").write_text(content)
    with pytest.raises(InputError, match="scene.json: (is not JSON|holds no rotation)"):
        read_rotation(tmp_path)


def write_data(folder: Path) -> Path:
    """A ball that changes colour with the camera, as NeRF-synthetic's files with alpha, in a world
    whose y axis is up."""
    y_up = np.array([[0, 1, 0, 0], [0, 0, 1, 0], [1, 0, 0, 0], [0, 0, 0, 1.0]])
    row, column = np.mgrid[:SIDE, :SIDE] + 0.5 - SIDE / 2
    ball = np.hypot(row, column) < SIDE / 4
    for split, count in [("train", 8), ("test", 2)]:
        (folder / split).mkdir(parents=True)
        poses = y_up @ hemisphere_poses(count)
        frames = []
        for view, pose in enumerate(opengl2opencv(poses)):
            image = np.zeros((SIDE, SIDE, 4), np.uint8)
            image[ball] = [*(120 + 100 * poses[view, :3, 2]), 255]
            write_image(folder / split / f"r_{view}.png", image)
            frames.append({"file_path": f"{split}/r_{view}", "transform_matrix": pose.tolist()})
        content = {"camera_angle_x": 2 * np.arctan(SIDE / 2 / FOCAL), "w": SIDE, "h": SIDE}
        path = folder / f"transforms_{split}.json"
        path.write_text(json.dumps({**content, "frames": frames}))
    loader = "nerfbaselines.datasets.blender:load_blender_dataset"
    info = {"loader": loader, "evaluation_protocol": "default"}
    (folder / "nb-info.json").write_text(json.dumps(info))
    return folder


@pytest.fixture(scope="module")
def trained_there(tmp_path_factory):
    """The data, and what NerfBaselines' commands leave: `out` (4 steps), `again` (the last two of
    them, from a checkpoint), `rendered`, `evaluated.json`; their output."""
    folder = tmp_path_factory.mktemp("nerfbaselines")
    data = str(write_data(folder / "data"))
    write_weights(folder / "torch" / "hub", ALEXNET, torchvision.models.alexnet)
    settings = [word for name, value in SETTINGS.items() for word in ("--set", f"{name}={value}")]
    train = ["train", "--method", "deepvoxels", "--data", data, "--logger", "none"]
    train += ["--eval-few-iters", "2", "--set", "max_steps=4"]
    last = str(folder / "out" / "checkpoint-4")
    rendered = str(folder / "rendered")
    commands = [
        [*train, "--output", str(folder / "wrong"), "--set", "validate_every=1"],
        [*train, *settings, "--output", str(folder / "out"), "--save-iters", "2"],
        [*train, *settings, "--output", str(folder / "again")]
        + ["--checkpoint", str(folder / "out" / "checkpoint-2"), "--eval-all-iters", "9"],
        ["render", "--checkpoint", last, "--data", data, "--output", rendered],
        ["evaluate", rendered, "--output", str(folder / "evaluated.json")],
    ]
    process = start_python(
        *("-c", COMMANDS, json.dumps(commands)),
        cwd=folder,
        env={
            **ENVIRONMENT,
            "NERFBASELINES_REGISTER": str(SPEC),
            "NERFBASELINES_BACKEND": "python",
            "NERFBASELINES_PREFIX": str(folder / "prefix"),
            "NERFBASELINES_NO_UPDATE_CHECK": "1",
            "TORCH_HOME": str(folder / "torch"),
        },
    )
    code, output, error = finish(process)
    assert code == 0, output + error
    return folder, output + error


def model_in(folder: Path) -> dict:
    return torch.load(folder / "model.pth", weights_only=True)


@needs_package
def test_nerfbaselines_trains_what_the_command_trains(trained_there, tmp_path):
    """To the bit, with dropout, although NerfBaselines rendered in between."""
    from nerfbaselines.datasets import load_dataset

    from integrations.nerfbaselines.scene import write_dataset

    folder, _ = trained_there
    dataset = load_dataset(folder / "data", "train")
    write_dataset(dataset, tmp_path)
    command = arguments(tmp_path, tmp_path / "logs", "--max_steps", 4, "--background", "white")
    assert run(*command) == 0
    content = model_in(folder / "out" / "checkpoint-4")
    _, expected = final_checkpoint(tmp_path / "logs", 4)
    for part in ("model", "discriminator", "model_optimizer", "rng", "scene", "intrinsics"):
        assert_same(content[part], expected[part], part)


@needs_package
def test_a_checkpoint_is_continued_exactly(trained_there):
    folder, _ = trained_there
    whole = model_in(folder / "out" / "checkpoint-4")
    assert_same(model_in(folder / "again" / "checkpoint-4"), whole)


@needs_package
def test_a_loaded_checkpoint_renders_and_measures_as_training_did(trained_there):
    folder, _ = trained_there
    with tarfile.open(folder / "out" / "predictions-4.tar.gz") as archive:
        for view in range(2):
            name = f"color/test/r_{view}.png"
            assert archive.extractfile(name).read() == (folder / "rendered" / name).read_bytes()
    measured = [
        json.loads(path.read_text())["metrics"]
        for path in (folder / "out" / "results-4.json", folder / "evaluated.json")
    ]
    assert measured[0] == measured[1]
    assert 0 < measured[0]["psnr"] < 40


@needs_package
def test_a_setting_that_nerfbaselines_decides_is_one_line(trained_there):
    _, output = trained_there
    assert output.count("exit code") == output.count("exit code 1") == 1
    assert output.count("--set validate_every=1: unknown; choose ") == 1
    assert "Traceback" not in output


@pytest.fixture(scope="module")
def loaded(trained_there, tmp_path_factory):
    """The method from a checkpoint with the golden weights, the data's training cameras, and
    the same model and views as the project's own commands load them."""
    from nerfbaselines.datasets import load_dataset

    from integrations.nerfbaselines.method import DeepVoxelsMethod

    folder, _ = trained_there
    path = tmp_path_factory.mktemp("loaded") / "checkpoint"
    shutil.copytree(folder / "out" / "checkpoint-4", path)
    content = model_in(path)
    shapes = {name: {"shape": list(tensor.shape)} for name, tensor in content["model"].items()}
    content["model"] = synthetic_state(shapes)
    save_checkpoint(path / "model.pth", content)
    method = DeepVoxelsMethod(checkpoint=str(path), config_overrides={"device": "cpu"})
    cameras = load_dataset(folder / "data", "train")["cameras"]
    checkpoint = read_checkpoint(path / "model.pth")
    scene = checkpoint.load_poses(path)
    return method, cameras, checkpoint.load_model(scene.intrinsics, CPU), scene.cam2world


def moved_view(model, cam2world, right: int, down: int) -> np.ndarray:
    """What the model renders when its image shows everything so many pixels further."""
    network = with_moved_principal_point(model.network, right, down)
    return replace(model, network=network).render_view(cam2world).whole


@needs_package
def test_a_camera_of_training_sees_what_the_model_renders(loaded):
    """Although the scene's world is turned upright, and without a border that training never
    sees."""
    method, cameras, model, cam2world = loaded
    view = method.render(cameras[3])
    whole = {
        (right, down): moved_view(model, cam2world[3], right, down)
        for right in (-5, 5)
        for down in (-5, 5)
    }
    parts = [
        image[10 + down : 54 + down, 10 + right : 54 + right]
        for (right, down), image in whole.items()
    ]
    np.testing.assert_allclose(view["color"][10:54, 10:54], np.mean(parts, axis=0), atol=1e-5)
    np.testing.assert_allclose(view["color"][:10, :10], whole[5, 5][5:15, 5:15], atol=1e-5)
    other = method.render(cameras[2])
    assert np.abs(view["color"] - other["color"]).max() > 1e-3
    depth = model.render_view(cam2world[3]).depth
    assert view["depth"].shape == (SIDE, SIDE)
    np.testing.assert_allclose(view["depth"].mean(), depth.mean(), rtol=0.02)
    assert method.get_info()["loaded_step"] == 4


@needs_package
def test_a_part_of_the_image_and_a_smaller_one(loaded):
    method, cameras, model, cam2world = loaded
    focal, _, cx, cy = cameras[3].intrinsics
    part = cameras[3].replace(
        intrinsics=np.array([focal, focal, cx - 16, cy - 24]), image_sizes=np.array([32, 20])
    )
    expected = model.render_view(cam2world[3]).whole[24:44, 16:48]
    np.testing.assert_allclose(method.render(part)["color"], expected, atol=1e-5)
    small = cameras[3].replace(
        intrinsics=cameras[3].intrinsics / 2, image_sizes=np.array([SIDE, SIDE]) // 2
    )
    whole = method.render(cameras[3])["color"]
    expected = cv2.resize(whole, (SIDE // 2, SIDE // 2), interpolation=cv2.INTER_AREA)
    np.testing.assert_allclose(method.render(small)["color"], expected, atol=1e-5)


@needs_package
def test_a_wider_image_is_rendered_in_several_windows(loaded):
    """18 pixels more at the left and at the right, which the model's own image does not show."""
    method, cameras, model, cam2world = loaded
    focal, _, cx, cy = cameras[3].intrinsics
    wide = cameras[3].replace(
        intrinsics=np.array([focal, focal, cx + 18, cy]), image_sizes=np.array([SIDE + 36, SIDE])
    )
    view = method.render(wide)
    left = moved_view(model, cam2world[3], 23, 5)
    np.testing.assert_allclose(view["color"][:10, :36], left[5:15, 5:41], atol=1e-5)
    right = moved_view(model, cam2world[3], -23, 5)
    np.testing.assert_allclose(view["color"][:10, -36:], right[5:15, 23:59], atol=1e-5)
    assert view["depth"].shape == (SIDE, SIDE + 36)


@needs_package
def test_masks_and_cameras_of_several_sizes_become_one_scene(trained_there, tmp_path):
    from nerfbaselines import new_dataset
    from nerfbaselines.datasets import load_dataset

    from integrations.nerfbaselines.scene import write_dataset

    folder, _ = trained_there
    cameras = load_dataset(folder / "data", "train", load_features=False)["cameras"][:4]
    cameras.image_sizes[1] = [48, 32]
    cameras.intrinsics[1] = [70, 70, 24, 16]
    masks = np.zeros((4, SIDE, SIDE), bool)  # padded, as the images are
    masks[:, 8:24, 16:32] = True
    dataset = new_dataset(
        cameras=cameras,
        images=np.full((4, SIDE, SIDE, 3), 200, np.uint8),
        image_paths=[f"/photos/{view}.jpg" for view in range(4)],
        masks=masks,
        metadata={"color_space": "srgb"},
    )
    write_dataset(dataset, tmp_path)
    images = [load_rgba(path) for path in list_images(tmp_path / "train" / "rgb")]
    assert [image.shape for image in images] == [(32, 48, 4)] * 4
    for image in images:
        assert image[..., 3].min() == 0
        assert (image[image[..., 3] == 255] == 200)[:, :3].all()
        assert image[..., 3].max() == 255


@needs_package
def test_what_no_scene_can_be_made_of_is_named(trained_there, tmp_path):
    from nerfbaselines.datasets import load_dataset

    from integrations.nerfbaselines.method import DeepVoxelsMethod
    from integrations.nerfbaselines.scene import write_dataset

    folder, _ = trained_there
    dataset = load_dataset(folder / "data", "train")
    gray = {**dataset["metadata"], "background_color": np.array([90, 90, 90], np.uint8)}
    with pytest.raises(InputError, match=r"background colour \[90, 90, 90\]; .* white and black"):
        DeepVoxelsMethod(train_dataset={**dataset, "metadata": gray})
    linear = {**dataset["metadata"], "color_space": "linear"}
    with pytest.raises(InputError, match="colours are linear"):
        write_dataset({**dataset, "metadata": linear}, tmp_path)
    with pytest.raises(InputError, match=r"model\.pth: no such file"):
        DeepVoxelsMethod(checkpoint=str(tmp_path))


def test_a_spec_without_its_package_is_one_line():
    """In a Python that finds no installed packages."""
    ended = subprocess.run(
        [sys.executable, "-I", "-S", SPEC], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 2
    assert ended.stdout == ""
    assert_one_line(ended.stderr, "nerfbaselines is not installed", "pip install --no-deps -r")
