"""Testing: render a camera path from a checkpoint, measure it where its true images are known, write it all down.

    python run_deepvoxels.py --train_test test --data_root SCENE/test --logging_root LOGS --checkpoint CHECKPOINT
"""
import sys
import zipfile
import zlib
from argparse import Namespace
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import imageio.v2 as imageio
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from tqdm import tqdm

from baselines import FROM_SOURCE, build_model
from baselines.width import count_parameters
from checkpoints import load_weights, tested_weights
from cpu_kernels import accelerate_, prepare_for_frames_
from data_util import BORDER, color_depth, crop_border, nearest_views
from dataio import Scene, blind_views, load_scene
from deep_voxels import DeepVoxels, Rendering, architecture_of, describe, scene_geometry
from projection import SceneGeometry
from runtime import autocast, channels_last_, describe_machine, set_arithmetic
from util import InputError, make_run_folder, write_json

VIEWS_AT_ONCE = 4
WRITERS = 4  # threads that write and measure frames while the next ones are rendered
MOST_WAITING = 16  # frames that wait for them, so that memory stays bounded
VIDEO_SIDELENGTH = 256
FRAMES_PER_SECOND = 25
COMPARED_VIEWS = 5
HIGHEST_PSNR = 100.0  # of equal images, whose infinity would be no JSON
SSIM = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 1.0}  # Wang et al.


def test(opt: Namespace, checkpoint: dict | None) -> int:
    """Renders every pose of `--data_root` and returns the exit code, 0."""
    device = torch.device(opt.device)
    set_arithmetic(opt.precision, device, opt.deterministic)
    root = Path(opt.data_root)
    measured = (root / "rgb").is_dir()
    scene = load_scene(root, opt.img_sidelength, background=opt.background, with_images=measured)
    geometry = scene_geometry(scene.intrinsics, architecture_of(opt), opt.near_plane)
    for view in blind_views(scene, geometry, lifting=False):
        raise InputError(f"{root}/pose/{scene.names[view]}.txt: sees nothing of the grid; check origin, scale and near "
                         "plane in intrinsics.txt, and that the poses are camera-to-world")
    training_views = load_training_views(opt, root) if measured or opt.model in FROM_SOURCE else None
    if training_views is None and opt.model in FROM_SOURCE:
        raise InputError(f"--train_root is required to test --model {opt.model}, which renders from training views")
    true_depth = load_true_depth(root, scene, opt.proj_sidelength) if measured else None
    model = build_model(opt.model, architecture_of(opt), geometry)
    if checkpoint:
        load_weights(model, tested_weights(checkpoint), Path(opt.checkpoint), describe(architecture_of(opt)))
    channels_last_(model.to(device).eval())
    if opt.kernels == "auto" and device.type == "cpu" and not opt.compile:
        accelerate_(model)
        prepare_for_frames_(model)
    if opt.compile:
        model.compile()
        if isinstance(model, DeepVoxels):
            model.render = torch.compile(model.render)
    if opt.dry_run:
        print(f"{root}: {len(scene)} poses, {'with' if measured else 'without'} true images")
        return 0

    (folder,) = make_run_folder(Path(opt.logging_root), "test_traj",
                                name=opt.experiment_name or "_".join(Path(opt.checkpoint or opt.model).parts[-2:]))
    write_json(folder / "options.json", {"options": vars(opt), "machine": describe_machine(device)})
    metrics = write_test(folder, model, geometry, scene, training_views, true_depth, opt)
    if metrics:
        neighbor = metrics["nearest_neighbor"]
        print(f"PSNR {metrics['psnr']:.2f} dB, SSIM {metrics['ssim']:.3f}" + (
            f"; nearest neighbour: PSNR {neighbor['psnr']:.2f} dB, SSIM {neighbor['ssim']:.3f}" if neighbor else ""))
        if metrics["depth"]:
            print(f"depth: mean error {metrics['depth']['mean_absolute_error']:.4f} world units, "
                  f"{100 * metrics['depth']['within_one_voxel']:.1f} % of the object within one voxel")
        print(f"look at {folder / 'comparison.png'}")
    print(f"look at {folder / 'video.mp4'}")
    return 0


def load_training_views(opt: Namespace, test_root: Path) -> Scene | None:
    """The training views that a test compares with and baselines render from: `--train_root`, or `train` beside the
    test folder, of these what `--sampling_pattern` keeps."""
    root = Path(opt.train_root) if opt.train_root else test_root.resolve().parent / "train"
    if not opt.train_root and not root.is_dir():
        print(f"warning: {root} is not there and --train_root is not given; nearest neighbours are not measured",
              file=sys.stderr)
        return None
    return load_scene(root, opt.img_sidelength, opt.sampling_pattern, opt.background)


def load_true_depth(root: Path, scene: Scene, sidelength: int) -> Float[np.ndarray, "views m m"] | None:
    """The z-depth of `root/depth/*.npz` in world units, on maps of this sidelength; None where there is none.

    A map's pixel has the mean of the depths that it covers. It is infinite where not all of these are the object's:
    at a silhouette, depth has no mean.
    """
    paths = sorted((root / "depth").glob("*.npz"))
    if not paths:
        return None
    if len(paths) != len(scene):
        raise InputError(f"{root / 'depth'}: holds {len(paths)} depth maps for {len(scene)} poses")
    maps = []
    for path in paths:
        try:
            depth = np.load(path)["depth"].astype(np.float32)
            height, width = depth.shape
        except (OSError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile, zlib.error) as error:
            raise InputError(f"{path}: is not a depth map, an array (height, width) named 'depth' ({error})") from None
        square = min(height, width)
        top, left = (height - square) // 2, (width - square) // 2
        depth = depth[top:top + square, left:left + square]
        covered = np.isfinite(depth)
        share, mean = (cv2.resize(values.astype(np.float32), (sidelength, sidelength), interpolation=cv2.INTER_AREA)
                       for values in (covered, np.where(covered, depth, 0)))
        maps.append(np.where(share > 0.999, mean, np.float32(np.inf)))
    return np.stack(maps)


def view_renderer(model: nn.Module, scene: Scene, training_views: Scene | None, device: torch.device,
                  ) -> Callable[[slice], Rendering]:
    """What renders a slice of a scene's views.

    DeepVoxels renders its volume, inpainted once. A baseline is given the training view nearest in viewing direction
    to each view (paper, section 4: the top-1 neighbour).
    """
    poses = scene.poses(device)
    if isinstance(model, DeepVoxels):
        inpainted = model.inpaint(model.deepvoxels)
        return lambda views: model.render(inpainted, poses[views])
    if training_views is None:
        return lambda views: model(None, None, poses[views])[0]
    nearest, sources = nearest_views(scene.cam2world, training_views.cam2world, 1)[:, 0], training_views.on(device)
    return lambda views: model(sources.pixels(nearest[views]), sources.poses(nearest[views]), poses[views])[0]


def render_path(model: nn.Module, scene: Scene, training_views: Scene | None, precision: str, device: torch.device,
                ) -> Iterator[tuple[int, Float[np.ndarray, "h w 3"], Float[np.ndarray, "m m"] | None]]:
    """Yields (view, image, depth) for every pose: images in [0, 1] with the border cropped, depth in world units.

    Views are rendered in batches. A batch is handed out after the next one is begun, so that a GPU always has work.
    """
    behind = None
    with torch.inference_mode(), autocast(precision, device):
        render = view_renderer(model, scene, training_views, device)
        for start in range(0, len(scene), VIEWS_AT_ONCE):
            views = range(start, min(start + VIEWS_AT_ONCE, len(scene)))
            rendering = render(slice(views.start, views.stop))
            images = to_host((crop_border(rendering.images).float() + 0.5).clamp(0, 1).permute(0, 2, 3, 1))
            depths = None if rendering.depth is None else to_host(rendering.depth[:, 0].float())
            if behind:
                yield from arrived(*behind)
            behind = views, images, depths
        yield from arrived(*behind)


def to_host(values: Tensor) -> Callable[[], np.ndarray]:
    """Starts a copy to the host. What is returned waits for it, but not for what the device is given to do after."""
    copy = values.to("cpu", non_blocking=True)
    event = torch.cuda.current_stream(values.device).record_event() if values.is_cuda else None

    def wait() -> np.ndarray:
        if event:
            event.synchronize()
        return copy.numpy()

    return wait


def arrived(views: range, images: Callable[[], np.ndarray], depths: Callable[[], np.ndarray] | None) -> Iterator[tuple]:
    """A batch's views, images and depths, once they are on the host."""
    return zip(views, images(), [None] * len(views) if depths is None else depths(), strict=True)


def write_test(folder: Path, model: nn.Module, geometry: SceneGeometry, scene: Scene, training_views: Scene | None,
               true_depth: Float[np.ndarray, "views m m"] | None, opt: Namespace) -> dict | None:
    """Writes frames, depth, video and, where the scene has images, `metrics.json` and `comparison.png`.

    Returns the metrics.
    """
    measured = scene.images is not None
    depths, written, waiting, rows = [], [], deque(), []
    compared = set(np.linspace(0, len(scene) - 1, min(COMPARED_VIEWS, len(scene))).round().astype(int).tolist())
    nearest = None if training_views is None else nearest_views(scene.cam2world, training_views.cam2world, 1)[:, 0]

    def write_frame(view: int, image: Float[np.ndarray, "h w 3"]) -> tuple[dict | None, dict | None]:
        """Writes a frame and returns its metrics and those of the nearest training view."""
        write_png16(folder / f"img_{view:05d}.png", image)
        if not measured:
            return None, None
        truth = cropped_view(scene, view)
        return ({"name": scene.names[view], **measure(image, truth)},
                None if nearest is None else measure(cropped_view(training_views, int(nearest[view])), truth))

    with (ThreadPoolExecutor(WRITERS) as writers,
          imageio.get_writer(folder / "video.mp4", fps=FRAMES_PER_SECOND, macro_block_size=2,
                             ffmpeg_log_level="error") as video):
        path = render_path(model, scene, training_views, opt.precision, torch.device(opt.device))
        for view, image, depth in tqdm(path, total=len(scene), unit="frame", dynamic_ncols=True):
            waiting.append(writers.submit(write_frame, view, image))
            if len(waiting) > MOST_WAITING:
                written.append(waiting.popleft().result())
            if depth is not None:
                depths.append(depth)
            video.append_data(video_frame(image, depth, geometry))
            if measured and view in compared:
                rows.append((scene.names[view], cropped_view(scene, view), image))
        written += [frame.result() for frame in waiting]
    if depths:
        write_depth(folder, np.stack(depths))
    if not measured:
        return None
    write_comparison(folder / "comparison.png", rows)
    frames, neighbors = zip(*written, strict=True)
    metrics = {**mean_of(frames), "nearest_neighbor": None if nearest is None else mean_of(neighbors),
               "depth": None if true_depth is None or not depths else
               measure_depth(np.stack(depths), true_depth, geometry.voxel_size),
               "model": opt.model, "parameters": count_parameters(model),
               "protocol": {"border": BORDER, "background": opt.background, "sidelength": opt.img_sidelength,
                            "ssim": {**SSIM, "window": 11}, "psnr": "per frame on [0, 1] images, then averaged",
                            "depth": "along z, over map pixels that lie wholly on the object"},
               "frames": frames}
    write_json(folder / "metrics.json", metrics)
    return metrics


def measure(image: Float[np.ndarray, "h w 3"], truth: Float[np.ndarray, "h w 3"]) -> dict[str, float]:
    """PSNR in dB, at most `HIGHEST_PSNR`, and SSIM of an image in [0, 1]."""
    from skimage.metrics import peak_signal_noise_ratio, structural_similarity  # seconds, which training need not wait

    with np.errstate(divide="ignore"):  # equal images
        psnr = float(peak_signal_noise_ratio(truth, image, data_range=1))
    return {"psnr": min(psnr, HIGHEST_PSNR),
            "ssim": float(structural_similarity(truth, image, channel_axis=2, **SSIM))}


def measure_depth(depth: Float[np.ndarray, "views m m"], truth: Float[np.ndarray, "views m m"], voxel_size: float,
                  ) -> dict[str, float | int] | None:
    """The errors of depth (world units) over the object's pixels, where the truth is finite; None without any."""
    on_object = np.isfinite(truth)
    if not on_object.any():
        return None
    error = np.abs(depth[on_object] - truth[on_object])
    return {"mean_absolute_error": float(error.mean()), "within_one_voxel": float((error <= voxel_size).mean()),
            "voxel_size": float(voxel_size), "pixels": int(on_object.sum())}


def mean_of(frames: Sequence[dict]) -> dict[str, float]:
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
