"""Testing: render a camera path from a checkpoint, measure it where its true images are known, write it all down.

    python run_deepvoxels.py --train_test test --data_root SCENE/test --logging_root LOGS --checkpoint CHECKPOINT
"""
import sys
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path

import cv2
import imageio.v2 as imageio
import numpy as np
import torch
from jaxtyping import Float
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from tqdm import tqdm

from checkpoints import load_weights
from data_util import BORDER, color_depth, crop_border, nearest_views
from dataio import Scene, blind_views, load_scene
from deep_voxels import DeepVoxels, architecture_of, describe, scene_geometry
from projection import SceneGeometry
from util import InputError, describe_machine, make_run_folder, write_json

VIEWS_AT_ONCE = 4
VIDEO_SIDELENGTH = 256
FRAMES_PER_SECOND = 25
COMPARED_VIEWS = 5
HIGHEST_PSNR = 100.0  # of equal images, whose infinity would be no JSON
SSIM = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 1.0}  # Wang et al.


def test(opt: Namespace, checkpoint: dict) -> int:
    """Renders every pose of `--data_root` and returns the exit code, 0."""
    device = torch.device(opt.device)
    root = Path(opt.data_root)
    measured = (root / "rgb").is_dir()
    scene = load_scene(root, opt.img_sidelength, background=opt.background, with_images=measured)
    geometry = scene_geometry(scene.intrinsics, architecture_of(opt), opt.near_plane)
    for view in blind_views(scene, geometry, lifting=False):
        raise InputError(f"{root}/pose/{scene.names[view]}.txt: sees nothing of the grid; check origin, scale and near "
                         "plane in intrinsics.txt, and that the poses are camera-to-world")
    training_views = load_training_views(opt, root) if measured else None
    model = DeepVoxels(architecture_of(opt), geometry)
    load_weights(model, checkpoint["model"], Path(opt.checkpoint), describe(model.architecture))
    model.to(device).eval()
    if opt.compile:
        model.render = torch.compile(model.render)
    if opt.dry_run:
        print(f"{root}: {len(scene)} poses, {'with' if measured else 'without'} true images")
        return 0

    (folder,) = make_run_folder(Path(opt.logging_root), "test_traj",
                                name=opt.experiment_name or "_".join(Path(opt.checkpoint).parts[-2:]))
    write_json(folder / "options.json", {"options": vars(opt), "machine": describe_machine(device)})
    metrics = write_test(folder, model, scene, training_views, opt)
    if metrics:
        neighbor = metrics["nearest_neighbor"]
        print(f"PSNR {metrics['psnr']:.2f} dB, SSIM {metrics['ssim']:.3f}" + (
            f"; nearest neighbour: PSNR {neighbor['psnr']:.2f} dB, SSIM {neighbor['ssim']:.3f}" if neighbor else ""))
        print(f"look at {folder / 'comparison.png'}")
    print(f"look at {folder / 'video.mp4'}")
    return 0


def load_training_views(opt: Namespace, test_root: Path) -> Scene | None:
    """The training views for the nearest-neighbour comparison: `--train_root`, or `train` beside the test folder."""
    root = Path(opt.train_root) if opt.train_root else test_root.resolve().parent / "train"
    if not opt.train_root and not root.is_dir():
        print(f"warning: {root} is not there and --train_root is not given; nearest neighbours are not measured",
              file=sys.stderr)
        return None
    return load_scene(root, opt.img_sidelength, background=opt.background)


def render_path(model: DeepVoxels, scene: Scene, precision: str, device: torch.device,
                ) -> Iterator[tuple[int, Float[np.ndarray, "h w 3"], Float[np.ndarray, "m m"] | None]]:
    """Yields (view, image, depth) for every pose: images in [0, 1] with the border cropped, depth in world units.

    The volume is inpainted once; views are rendered in batches.
    """
    with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
        inpainted = model.inpaint(model.deepvoxels)
        for start in range(0, len(scene), VIEWS_AT_ONCE):
            views = range(start, min(start + VIEWS_AT_ONCE, len(scene)))
            rendering = model.render(inpainted, scene.poses(list(views), device))
            images = (crop_border(rendering.images).float() + 0.5).clamp(0, 1).permute(0, 2, 3, 1).cpu().numpy()
            depths = [None] * len(views) if rendering.depth is None else rendering.depth[:, 0].float().cpu().numpy()
            yield from zip(views, images, depths, strict=True)


def write_test(folder: Path, model: DeepVoxels, scene: Scene, training_views: Scene | None, opt: Namespace,
               ) -> dict | None:
    """Writes frames, depth, video and, where the scene has images, `metrics.json` and `comparison.png`.

    Returns the metrics.
    """
    measured = scene.images is not None
    depths, frames, neighbors, rows = [], [], [], []
    compared = set(np.linspace(0, len(scene) - 1, min(COMPARED_VIEWS, len(scene))).round().astype(int).tolist())
    nearest = None if training_views is None else nearest_views(scene.cam2world, training_views.cam2world, 1)[:, 0]
    with imageio.get_writer(folder / "video.mp4", fps=FRAMES_PER_SECOND, macro_block_size=2,
                            ffmpeg_log_level="error") as video:
        path = render_path(model, scene, opt.precision, torch.device(opt.device))
        for view, image, depth in tqdm(path, total=len(scene), unit="frame", dynamic_ncols=True):
            write_png16(folder / f"img_{view:05d}.png", image)
            if depth is not None:
                depths.append(depth)
            video.append_data(video_frame(image, depth, model.geometry))
            if measured:
                truth = cropped_view(scene, view)
                frames.append({"name": scene.names[view], **measure(image, truth)})
                if nearest is not None:
                    neighbors.append(measure(cropped_view(training_views, int(nearest[view])), truth))
                if view in compared:
                    rows.append((scene.names[view], truth, image))
    if depths:
        write_depth(folder, np.stack(depths))
    if not measured:
        return None
    write_comparison(folder / "comparison.png", rows)
    metrics = {**mean_of(frames), "nearest_neighbor": mean_of(neighbors) if neighbors else None,
               "protocol": {"border": BORDER, "background": opt.background, "sidelength": opt.img_sidelength,
                            "ssim": {**SSIM, "window": 11}, "psnr": "per frame on [0, 1] images, then averaged"},
               "frames": frames}
    write_json(folder / "metrics.json", metrics)
    return metrics


def measure(image: Float[np.ndarray, "h w 3"], truth: Float[np.ndarray, "h w 3"]) -> dict[str, float]:
    """PSNR in dB, at most `HIGHEST_PSNR`, and SSIM of an image in [0, 1]."""
    with np.errstate(divide="ignore"):  # equal images
        psnr = float(peak_signal_noise_ratio(truth, image, data_range=1))
    return {"psnr": min(psnr, HIGHEST_PSNR),
            "ssim": float(structural_similarity(truth, image, channel_axis=2, **SSIM))}


def mean_of(frames: list[dict]) -> dict[str, float]:
    """The metrics averaged over frames."""
    return {name: float(np.mean([frame[name] for frame in frames])) for name in ("psnr", "ssim")}


def cropped_view(scene: Scene, view: int) -> Float[np.ndarray, "h w 3"]:
    """A view's image in [0, 1], float32, its border cropped as that of the frames."""
    return crop_border(scene.images[view]).permute(1, 2, 0).numpy().astype(np.float32) / 255


def write_png16(path: Path, image: Float[np.ndarray, "h w *c"]) -> None:
    """Writes an image in [0, 1], RGB or gray, as 16 bit PNG."""
    levels = np.round(image * 65535).astype(np.uint16)
    if not cv2.imwrite(str(path), levels[..., ::-1] if levels.ndim == 3 else levels):
        raise OSError(f"{path}: could not be written")


def write_depth(folder: Path, depth: Float[np.ndarray, "frames m m"]) -> None:
    """Writes depth in world units as `depth_metric.npz`, and as 16 bit pictures normalised over the whole run."""
    np.savez_compressed(folder / "depth_metric.npz", depth=depth.astype(np.float32))
    (folder / "depth").mkdir()
    for view, picture in enumerate((depth - depth.min()) / max(np.ptp(depth), 1e-12)):
        write_png16(folder / "depth" / f"img_{view:05d}.png", picture)


def video_frame(image: Float[np.ndarray, "h w 3"], depth: Float[np.ndarray, "m m"] | None, geometry: SceneGeometry):
    """The image and, beside it, its depth in colours, scaled so that the frustum's planes span the colours."""
    side = max(VIDEO_SIDELENGTH, image.shape[0] + image.shape[0] % 2)
    pictures = [np.round(image * 255).astype(np.uint8)]
    if depth is not None:
        farthest = geometry.near_plane + 2 * geometry.grid_dim * geometry.voxel_size
        pictures.append(color_depth(depth, geometry.near_plane, farthest))
    return np.concatenate([enlarge(picture, side) for picture in pictures], axis=1)


def write_comparison(path: Path, rows: list[tuple[str, np.ndarray, np.ndarray]]) -> None:
    """Writes a picture with a row a view: truth, render, and the error (white to black: 0 to 0.5 or more)."""
    pictures = []
    for name, truth, image in rows:
        error = 1 - np.clip(np.abs(image - truth).mean(axis=2, keepdims=True) * 2, 0, 1).repeat(3, axis=2)
        row = [enlarge(np.round(picture * 255).astype(np.uint8), VIDEO_SIDELENGTH) for picture in (truth, image, error)]
        caption = np.full((28, sum(picture.shape[1] for picture in row), 3), 255, np.uint8)
        for column, title in enumerate((f"truth {name}", "render", "error")):
            cv2.putText(caption, title, (column * row[0].shape[1] + 6, 20), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (0, 0, 0), 1,
                        cv2.LINE_AA)
        pictures += [caption, np.concatenate(row, axis=1)]
    imageio.imwrite(path, np.concatenate(pictures))


def enlarge(picture: np.ndarray, side: int) -> np.ndarray:
    """A square picture at least `side` pixels a side."""
    if picture.shape[0] >= side:
        return picture
    return cv2.resize(picture, (side, side), interpolation=cv2.INTER_NEAREST)
