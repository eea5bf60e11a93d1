"""What a test measures besides PSNR and SSIM without the border: the whole frame, the object alone,
LPIPS."""

import json

import cv2
import imageio.v2 as imageio
import numpy as np
import pytest
import torch

from checkpoints import save_checkpoint
from dataio import load_scene
from deep_voxels import Architecture, DeepVoxels
from evaluation.metrics import FrameMetrics, load_object_masks
from evaluation.perceptual import load_lpips
from evaluation.render import Frame, nearest_neighbors
from run_deepvoxels import main
from tests.helpers import ALEXNET, GEOMETRY, render_arguments, write_weights


@pytest.fixture
def see_through(scene):
    """The test scene with images that are transparent but for a square of the object."""
    for path in (scene / "test" / "rgb").iterdir():
        image = imageio.imread(path)
        alpha = np.zeros_like(image[..., 0])
        alpha[20:40, 20:60] = 255
        imageio.imwrite(path, np.dstack([image, alpha]))
    return scene


def test_the_border_counts_in_the_full_frame_only(scene):
    views = load_scene(scene / "test", 64)
    image = views.images[0].permute(1, 2, 0).numpy() / np.float32(255)
    image[:5] = 1 - image[:5]
    metrics, neighbor = FrameMetrics(views)(Frame(0, image, None))
    assert (metrics["psnr"], metrics["ssim"], neighbor) == (100, pytest.approx(1), None)
    error = np.square(1 - views.images[0, :, :5].numpy() / 127.5).mean() * 5 / 64
    assert metrics["psnr_full_frame"] == pytest.approx(-10 * np.log10(error), abs=1e-3)


@pytest.mark.parametrize("background", ["white", "black"])
def test_the_object_is_what_is_opaque(see_through, background):
    views = load_scene(see_through / "test", 64, background=background)
    masks = load_object_masks(views, background)
    assert masks.shape == (3, 64, 64)
    assert masks[:, 20:40, 20:60].all()
    assert masks.sum() == 3 * 20 * 40
    image = views.images[0].permute(1, 2, 0).numpy() / np.float32(255)
    image[:20] = 1 - image[:20]  # the background alone is wrong
    metrics, _ = FrameMetrics(views, objects=masks)(Frame(0, image, None))
    assert metrics["psnr_object"] == 100
    assert metrics["psnr"] < 15
    assert (
        metrics["ssim"] < metrics["ssim_object"] < 1
    )  # its window reaches 5 pixels into the background
    image[30, 30] += 0.5
    metrics, _ = FrameMetrics(views, objects=masks)(Frame(0, image, None))
    assert metrics["psnr_object"] == pytest.approx(-10 * np.log10(0.25 / (20 * 39)), abs=1e-3)


def test_without_transparent_pixels_there_is_no_object(scene):
    assert load_object_masks(load_scene(scene / "test", 64), "white") is None


def test_a_test_measures_the_object_and_its_nearest_neighbour(see_through, tmp_path, capsys):
    checkpoint = tiny_checkpoint(tmp_path)
    metrics = run_test(checkpoint, see_through, tmp_path / "logs")
    for part in (metrics, metrics["nearest_neighbor"]):
        assert {"psnr_full_frame", "psnr_object", "ssim_object"} < set(part)
    assert metrics["psnr_object"] == pytest.approx(
        np.mean([frame["psnr_object"] for frame in metrics["frames"]])
    )
    assert f"over the object: PSNR {metrics['psnr_object']:.2f} dB" in capsys.readouterr().out


def test_lpips_is_that_of_the_features_of_a_network(scene, tmp_path, monkeypatch, capsys):
    """AlexNet's or VGG16's, with weights made on the spot, where torchvision keeps those that it
    downloaded."""
    import torchvision  # here, because it takes long

    hub = tmp_path / "hub"
    monkeypatch.setattr(torch.hub, "_hub_dir", str(hub))
    write_weights(hub, ALEXNET, torchvision.models.alexnet)
    write_weights(hub, "vgg16-397923af.pth", torchvision.models.vgg16)
    metrics = run_test(
        tiny_checkpoint(tmp_path), scene, tmp_path / "logs", "--lpips", "--lpips_vgg"
    )
    for name in ("lpips", "lpips_vgg"):
        assert metrics[name] == pytest.approx(np.mean([frame[name] for frame in metrics["frames"]]))
        assert metrics[name] > 0
    assert metrics["lpips"] != pytest.approx(metrics["lpips_vgg"])
    views = load_scene(scene / "test", 64)
    neighbors = nearest_neighbors(load_scene(scene / "train", 64), views.cam2world)
    assert neighbors.nearest[0] == 0  # the same picture
    assert metrics["nearest_neighbor"]["lpips"] > 0

    figures = f"LPIPS {metrics['lpips']:.3f}, LPIPS (VGG) {metrics['lpips_vgg']:.3f}"
    assert figures in capsys.readouterr().out

    distance = load_lpips("lpips")
    truth = views.images[0].permute(1, 2, 0).numpy() / np.float32(255)
    assert distance(truth, truth) == 0
    slightly, badly = (cv2.GaussianBlur(truth, (0, 0), sigma) for sigma in (0.5, 3))
    assert 0 < distance(slightly, truth) < distance(badly, truth)


@pytest.mark.parametrize(
    ("flag", "network", "damage"),
    [
        ("--lpips", "AlexNet", None),
        ("--lpips", "AlexNet", b"not a checkpoint"),
        ("--lpips_vgg", "VGG16", None),
    ],
)
def test_lpips_without_weights_is_refused(
    scene, tmp_path, monkeypatch, flag, network, damage, capsys
):
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path / "hub"))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # no way to the network
    if damage:
        (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
        (tmp_path / "hub" / "checkpoints" / ALEXNET).write_bytes(damage)
    checkpoint = tiny_checkpoint(tmp_path)
    assert main(render_arguments(scene / "test", tmp_path / "logs", checkpoint, flag)) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()[-1:]
    assert line.startswith(
        f"run_deepvoxels.py: error: {flag}: the weights of {network} cannot be had"
    )
    assert not (tmp_path / "logs").exists()


def test_lpips_needs_true_images(scene, tmp_path, capsys):
    checkpoint = tiny_checkpoint(tmp_path)
    for image in (scene / "test" / "rgb").iterdir():
        image.unlink()
    (scene / "test" / "rgb").rmdir()
    words = render_arguments(scene / "test", tmp_path / "logs", checkpoint, "--lpips")
    assert main(words) == 2
    assert "has no true images" in capsys.readouterr().err


def tiny_checkpoint(folder):
    torch.manual_seed(0)
    save_checkpoint(
        folder / "model.pth",
        {"model": DeepVoxels(Architecture(64, 16, 8, 4, 4), GEOMETRY).state_dict()},
    )
    return folder / "model.pth"


def run_test(checkpoint, scene, logs, *more) -> dict:
    assert main(render_arguments(scene / "test", logs, checkpoint, *more)) == 0
    (path,) = logs.glob("test_traj/*/*/metrics.json")
    return json.loads(path.read_text())
