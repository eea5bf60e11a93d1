"""The files of a test run (docs/design.md, section 7), and its metrics against values computed by
hand."""

import json
import threading
import time

import cv2
import imageio.v2 as imageio
import numpy as np
import pytest
import torch

from baselines.nearest_neighbor import NearestNeighbor
from checkpoints import save_checkpoint
from data_util import write_poses
from dataio import load_scene
from deep_voxels import Architecture, DeepVoxels
from evaluation import output
from evaluation.metrics import image_metrics, load_true_depth, measure_depth, true_image
from evaluation.render import Frame, nearest_neighbors, render_path, view_renderer
from run_deepvoxels import main
from tests.conftest import SMALL
from tests.helpers import (
    GEOMETRY,
    GOLDEN,
    assert_one_line,
    original_checkpoint,
    render_arguments,
)
from util import InputError


def random_model() -> DeepVoxels:
    """A small model with a random volume, and weights so large that views differ."""
    torch.manual_seed(0)
    model = DeepVoxels(Architecture(64, 16, 8, 4, 4), GEOMETRY).eval()
    model.remember(torch.randn_like(model.deepvoxels))
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=2 * parameter[0].numel() ** -0.5)
    return model


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    model = random_model()
    path = tmp_path_factory.mktemp("checkpoint") / "model.pth"
    save_checkpoint(path, {"model": model.state_dict()})
    return path


def run_test(checkpoint, data_root, logs, *more):
    assert main(render_arguments(data_root, logs, checkpoint, *more)) == 0
    (folder,) = logs.glob("test_traj/*/*")
    return folder


def test_outputs_with_true_images(scene, checkpoint, tmp_path):
    folder = run_test(checkpoint, scene / "test", tmp_path / "logs")
    assert sorted(path.name for path in folder.iterdir()) == [
        "comparison.png",
        "depth",
        "depth_metric.npz",
        "img_00000.png",
        "img_00001.png",
        "img_00002.png",
        "metrics.json",
        "options.json",
        "video.mp4",
    ]
    image = cv2.imread(str(folder / "img_00002.png"), cv2.IMREAD_UNCHANGED)
    assert (image.shape, image.dtype) == ((54, 54, 3), np.uint16)

    depth = np.load(folder / "depth_metric.npz")["depth"]
    assert (depth.shape, depth.dtype) == ((3, 16, 16), np.float32)
    pictures = np.stack(
        [
            cv2.imread(str(folder / "depth" / f"img_{i:05d}.png"), cv2.IMREAD_UNCHANGED)
            for i in range(3)
        ]
    )
    assert pictures.dtype == np.uint16
    assert (pictures.min(), pictures.max()) == (0, 65535)
    np.testing.assert_allclose(pictures / 65535, (depth - depth.min()) / np.ptp(depth), atol=1e-4)

    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["psnr"] == pytest.approx(np.mean([frame["psnr"] for frame in metrics["frames"]]))
    assert [frame["name"] for frame in metrics["frames"]] == ["000000", "000001", "000002"]
    assert metrics["protocol"]["border"] == 5
    truth = imageio.imread(scene / "test" / "rgb" / "000002.png")[5:-5, 5:-5] / 255
    expected = image_metrics(
        (image[..., ::-1] / 65535).astype(np.float32), truth.astype(np.float32)
    )
    assert metrics["frames"][2]["psnr"] == pytest.approx(expected["psnr"], abs=1e-3)
    assert metrics["frames"][2]["ssim"] == pytest.approx(expected["ssim"], abs=1e-3)
    assert set(metrics["nearest_neighbor"]) == {"psnr", "ssim", "psnr_full_frame"}

    frames = imageio.mimread(folder / "video.mp4")
    with imageio.get_reader(folder / "video.mp4") as video:
        assert video.get_meta_data()["fps"] == 2  # three views can be looked at
    assert len(frames) == 3
    gray = image.mean(axis=2).ravel()
    likeness = [np.corrcoef(frame.mean(axis=2).ravel(), gray)[0, 1] for frame in frames]
    assert likeness[2] == max(likeness) > 0.8

    comparison = imageio.imread(folder / "comparison.png")
    assert comparison.shape == (24 + 3 * (4 + 4 * 54), 24 + 3 * (4 + 4 * 54), 3)
    shown = comparison[26:-2, 26:-2]  # 4 pixels for one, 4 between pictures
    np.testing.assert_array_equal(
        shown[2 * 220 :: 4, :216:4], np.round(255 * truth).astype(np.uint8)
    )
    assert np.abs(shown[2 * 220 :: 4, 220:436:4].astype(int) - image[..., ::-1] / 257).max() <= 0.5
    error = np.abs(image[..., ::-1] / 65535 - truth).mean(axis=2)
    assert (
        np.abs(shown[2 * 220 :: 4, 440::4, 0] / 255 - (1 - np.minimum(2 * error, 1))).max() < 0.01
    )


def test_frames_wait_in_bounded_number(tmp_path, monkeypatch):
    """While the writers are slow, rendering waits. Frames are measured in order all the same."""
    monkeypatch.setattr(output, "MAX_WAITING", 2)
    lock = threading.Lock()
    unmeasured = [0]
    most = [0]

    def rendered():
        for view in range(16):
            with lock:
                unmeasured[0] += 1
                most[0] = max(most[0], unmeasured[0])
            yield Frame(view, np.full((64, 64, 3), view / 16, np.float32), None)

    def slow(frame):
        time.sleep(0.02 if frame.view else 0.2)
        with lock:
            unmeasured[0] -= 1
        return frame.view, float(frame.image.max())

    measured, depth = output.write_frames(
        tmp_path, output.RenderedPath(rendered(), 16, (0.0, 1.0)), slow
    )
    assert measured == [(view, view / 16) for view in range(16)]
    assert depth is None
    assert most[0] <= 2 + 1


def test_outputs_of_poses_alone(scene, checkpoint, tmp_path):
    for path in (scene / "test" / "rgb").iterdir():
        path.unlink()
    (scene / "test" / "rgb").rmdir()
    folder = run_test(checkpoint, scene / "test", tmp_path / "logs")
    names = {path.name for path in folder.iterdir()}
    assert not names & {"metrics.json", "comparison.png"}
    assert {"img_00002.png", "video.mp4", "depth_metric.npz"} <= names


def test_nearest_neighbours_come_from_the_train_root(scene, checkpoint, tmp_path):
    folder = run_test(checkpoint, scene / "test", tmp_path / "same", "--train_root", scene / "test")
    assert json.loads((folder / "metrics.json").read_text())["nearest_neighbor"][
        "ssim"
    ] == pytest.approx(1)
    (scene / "train").rename(scene / "elsewhere")
    folder = run_test(checkpoint, scene / "test", tmp_path / "none")
    assert json.loads((folder / "metrics.json").read_text())["nearest_neighbor"] is None


def test_nearest_neighbours_of_the_originals_layout(scene, checkpoint, tmp_path):
    """ROOT/train/NAME are the training views of ROOT/test/NAME."""
    for split in ("train", "test"):
        (tmp_path / "root" / split).mkdir(parents=True)
        (scene / split).rename(tmp_path / "root" / split / "disc")
    folder = run_test(checkpoint, tmp_path / "root" / "test" / "disc", tmp_path / "logs")
    assert json.loads((folder / "metrics.json").read_text())["nearest_neighbor"]["psnr"] > 10


def test_frames_do_not_depend_on_their_batch(scene, checkpoint, tmp_path):
    """The last of five poses is rendered in a batch of its own."""
    pose = scene / "test" / "pose"
    for i in (3, 4):
        (pose / f"{i:06d}.txt").write_text((pose / "000000.txt").read_text())
        (scene / "test" / "rgb" / f"{i:06d}.png").write_bytes(
            (scene / "test" / "rgb" / "000000.png").read_bytes()
        )
    folder = run_test(checkpoint, scene / "test", tmp_path / "logs")
    first, last = (
        cv2.imread(str(folder / f"img_0000{i}.png"), cv2.IMREAD_UNCHANGED).astype(int)
        for i in (0, 4)
    )
    assert np.abs(first - last).max() <= 16  # of 65535


def test_single_views_are_those_of_the_path(scene):
    """A viewer renders one pose at a time, with the same pieces."""
    model = random_model()
    cpu = torch.device("cpu")
    poses = load_scene(scene / "test", 64).poses(cpu)
    frames = list(render_path(model, poses, None, "fp32"))
    assert [frame.view for frame in frames] == [0, 1, 2]
    with torch.inference_mode():
        rendering = view_renderer(model, None, cpu)(poses[1:2])
    single = (rendering.images[0].permute(1, 2, 0).numpy() + 0.5).clip(0, 1)
    np.testing.assert_allclose(frames[1].whole, single, atol=1e-5)
    np.testing.assert_array_equal(frames[1].image, frames[1].whole[5:-5, 5:-5])
    np.testing.assert_allclose(frames[1].depth, rendering.depth[0, 0], atol=1e-5)
    assert np.abs(frames[0].image - frames[1].image).max() > 0.1


def test_baselines_render_from_the_nearest_training_view(scene):
    """Test view 0 has the pose of training view 0 and is the same picture."""
    training_views = load_scene(scene / "train", 64)
    views = load_scene(scene / "test", 64)
    neighbors = nearest_neighbors(training_views, views.cam2world)
    model = NearestNeighbor(Architecture(), GEOMETRY)
    frames = list(render_path(model, views.poses(torch.device("cpu")), neighbors, "fp32"))
    for frame, nearest in zip(frames, neighbors.nearest, strict=True):
        np.testing.assert_allclose(frame.image, true_image(training_views, int(nearest)), atol=1e-6)
        assert frame.depth is None
    np.testing.assert_allclose(frames[0].image, true_image(views, 0), atol=1e-6)
    assert neighbors.nearest[0] == 0


def test_psnr_and_ssim_by_hand():
    truth = np.full((20, 20, 3), 0.5, np.float32)
    metrics = image_metrics(truth + np.float32(0.1), truth)
    assert metrics["psnr"] == pytest.approx(20, abs=1e-4)
    c1 = 0.01**2
    assert metrics["ssim"] == pytest.approx((2 * 0.5 * 0.6 + c1) / (0.25 + 0.36 + c1), abs=1e-4)


def test_ssim_uses_an_11_tap_gaussian_and_population_covariance():
    rng = np.random.default_rng(0)
    a = rng.random((11, 11))
    b = rng.random((11, 11))
    taps = np.exp(-(np.arange(-5, 6) ** 2) / (2 * 1.5**2))
    window = np.outer(taps, taps) / taps.sum() ** 2
    mean_a = (window * a).sum()
    mean_b = (window * b).sum()
    var_a = (window * a * a).sum() - mean_a**2
    var_b = (window * b * b).sum() - mean_b**2
    cov = (window * a * b).sum() - mean_a * mean_b
    c1 = 0.01**2
    c2 = 0.03**2
    center = (
        (2 * mean_a * mean_b + c1)
        * (2 * cov + c2)
        / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))
    )
    # scikit-image averages over the pixels whose window lies inside: here the center alone
    three = [np.repeat(x[..., None], 3, axis=2).astype(np.float32) for x in (a, b)]
    assert image_metrics(*three)["ssim"] == pytest.approx(center, abs=1e-5)


def test_the_border_is_cropped(scene):
    assert true_image(load_scene(scene / "test", 64), 0).shape == (54, 54, 3)


def test_a_baseline_without_training_views_is_refused_in_one_line(scene, tmp_path, capfd):
    (scene / "test").rename(tmp_path / "alone")
    words = ["--train_test", "test", "--data_root", tmp_path / "alone", "--logging_root"]
    words += [tmp_path / "logs", "--model", "nearest_neighbor", *SMALL]
    assert main([str(word) for word in words]) == 2
    assert_one_line(capfd.readouterr().err, "--train_root")
    assert not (tmp_path / "logs").exists()


def write_depths(scene, depths):
    (scene / "test" / "depth").mkdir()
    for i, depth in enumerate(depths):
        np.savez_compressed(
            scene / "test" / "depth" / f"{i:06d}.npz", depth=np.asarray(depth, np.float32)
        )


def test_true_depth_is_averaged_over_map_pixels_that_lie_wholly_on_the_object(scene):
    depth = np.full((64, 96), np.inf)  # the crop to a square leaves columns 16 to 79
    depth[:, :16] = 7
    depth[6:14, 18:30] = (
        np.arange(12) % 4 + 1
    )  # what lies around the rays of rows 2 and 3, columns 1 to 3 of the map
    depth[6:14, 29] = np.inf
    write_depths(scene, [depth] * 3)
    maps = load_true_depth(scene / "test" / "depth", 3, 16)
    assert maps.shape == (3, 16, 16)
    finite = np.isfinite(maps[0])
    assert finite.sum() == 2 * 2
    assert finite[2:4, 1:3].all()
    np.testing.assert_allclose(maps[0][finite], 2.5)


def test_true_depth_is_paired_with_poses_as_images_are(tmp_path):
    """By name, else by number; hidden files, such as macOS's, are passed over."""
    write_poses(tmp_path, np.tile(np.eye(4), (11, 1, 1)))
    folder = tmp_path / "depth"
    folder.mkdir()
    for view in range(11):
        np.savez(folder / f"{view}.npz", depth=np.full((8, 8), view + 1.0))
    (folder / "._0.npz").write_bytes(b"of macOS")
    maps = load_true_depth(folder, 11, 4)
    np.testing.assert_allclose(maps[:, 2, 2], np.arange(11) + 1)
    (folder / "10.npz").rename(folder / "11.npz")
    with pytest.raises(InputError, match="10 of 11 poses have an npz file of their name or number"):
        load_true_depth(folder, 11, 4)


@pytest.mark.parametrize("side, map_side", [(64, 16), (100, 16), (32, 16), (16, 16)])
def test_true_depth_is_that_of_the_rays_through_integer_coordinates_of_the_map(
    tmp_path, side, map_side
):
    """docs/design.md, section 3: a plane, whose inverse depth is linear in the pixels of image and
    map."""

    def plane(u, v):
        return 1 / (0.5 + 0.2 * u + 0.1 * v)  # u, v: shares of the image's side

    middles = (np.arange(side) + 0.5) / side
    rays = np.arange(map_side) / map_side
    write_poses(tmp_path, np.eye(4)[None])
    (tmp_path / "depth").mkdir()
    np.savez(tmp_path / "depth" / "0.npz", depth=plane(middles, middles[:, None]))
    (depth,) = load_true_depth(tmp_path / "depth", 1, map_side)
    assert np.isinf(depth[0]).all() and np.isinf(depth[:, 0]).all()  # these reach beyond the image
    np.testing.assert_allclose(depth[1:, 1:], plane(rays, rays[:, None])[1:, 1:], rtol=1e-3)


def test_depth_errors_by_hand():
    """Only the object's pixels count: the background's depth is undetermined (paper, Figure 5)."""
    truth = np.array([[[1.0, 2.0], [3.0, np.inf]]], np.float32)
    depth = np.array([[[1.1, 1.5], [3.0, 9.0]]], np.float32)
    errors = measure_depth(depth, truth, voxel_size=0.25)
    assert errors["mean_absolute_error"] == pytest.approx(0.2)
    assert errors["within_one_voxel"] == pytest.approx(2 / 3)
    assert errors["pixels"] == 3
    assert measure_depth(depth, np.full_like(truth, np.inf), voxel_size=0.25) is None


def test_depth_is_measured_where_it_is_known(scene, checkpoint, tmp_path):
    folder = run_test(checkpoint, scene / "test", tmp_path / "unknown")
    assert json.loads((folder / "metrics.json").read_text())["depth"] is None
    write_depths(scene, [np.full((64, 64), 1.5)] * 3)
    folder = run_test(checkpoint, scene / "test", tmp_path / "known")
    depth = np.load(folder / "depth_metric.npz")["depth"][
        :, 1:, 1:
    ]  # around the others there is no truth
    errors = json.loads((folder / "metrics.json").read_text())["depth"]
    assert errors["mean_absolute_error"] == pytest.approx(np.abs(depth - 1.5).mean(), rel=1e-5)
    assert errors["within_one_voxel"] == pytest.approx((np.abs(depth - 1.5) <= 0.125).mean())
    assert (errors["voxel_size"], errors["pixels"]) == (0.125, 3 * 15 * 15)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda file: file.unlink(),
        lambda file: file.write_bytes(b"PK broken"),
        lambda file: file.write_bytes(b""),
        lambda file: np.savez(file, z=np.ones((64, 64))),
        lambda file: np.savez(file, depth=np.ones(64)),
    ],
)
def test_broken_depth_maps_are_named(scene, checkpoint, tmp_path, capfd, spoil):
    write_depths(scene, [np.ones((64, 64))] * 3)
    file = scene / "test" / "depth" / "000001.npz"
    spoil(file)
    assert main(render_arguments(scene / "test", tmp_path / "logs", checkpoint)) == 2
    named = "000001.npz" if file.exists() else "2 depth maps for 3 poses"
    assert_one_line(capfd.readouterr().err, named)
    assert not (tmp_path / "logs").exists()


@pytest.mark.parametrize("name", ["occlusion", "no_occlusion"])
def test_an_original_checkpoint_renders_the_goldens_from_the_command_line(tmp_path, name):
    """The golden folders are test folders: frames and metric depth equal the original's."""
    torch.save(original_checkpoint(name), tmp_path / "original.pth")
    folder = run_test(tmp_path / "original.pth", GOLDEN / name, tmp_path / "logs")
    golden = np.load(GOLDEN / name / "golden.npz")
    for i, expected in enumerate(golden["test_images"]):
        frame = (
            cv2.imread(str(folder / f"img_{i:05d}.png"), cv2.IMREAD_UNCHANGED)[..., ::-1] / 65535
        )
        np.testing.assert_allclose(
            frame, expected[:, 5:-5, 5:-5].transpose(1, 2, 0) + 0.5, atol=3e-5
        )
    if name == "occlusion":
        depth = np.load(folder / "depth_metric.npz")["depth"]
        np.testing.assert_allclose(
            depth, (golden["test_depth_coords"][:, 0] + 0.5) * 2 + 0.95, atol=1e-5
        )
    else:
        assert not (folder / "depth").exists()


def test_an_original_checkpoint_starts_training(scene, tmp_path):
    model = DeepVoxels(Architecture(64, 16, 8, 4, 4), GEOMETRY)
    torch.save(
        {"model": model.state_dict()}, tmp_path / "original.pth"
    )  # as the original, without a discriminator
    assert (
        main(
            [
                "--train_test",
                "train",
                "--data_root",
                str(scene / "train"),
                "--logging_root",
                str(tmp_path / "logs"),
                "--checkpoint",
                str(tmp_path / "original.pth"),
                "--device",
                "cpu",
                "--max_steps",
                "1",
            ]
        )
        == 0
    )
