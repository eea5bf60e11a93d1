"""How good frames are: PSNR and SSIM against the true images, errors of depth against the true depth."""
import zipfile
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float

from data_util import center_square, crop_border
from dataio import Scene
from evaluation.render import Neighbors
from foreign import reading
from util import InputError

MAX_DEPTH_BYTES = 1 << 28
MAX_PSNR = 100.0  # dB, for equal images: JSON has no infinity
SSIM = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 1.0}  # Wang et al.


def measure(image: Float[np.ndarray, "h w 3"], truth: Float[np.ndarray, "h w 3"]) -> dict[str, float]:
    """PSNR in dB, at most `MAX_PSNR`, and SSIM of an image in [0, 1]."""
    from skimage.metrics import peak_signal_noise_ratio, structural_similarity  # takes seconds; most runs never measure

    with np.errstate(divide="ignore"):  # equal images
        psnr = float(peak_signal_noise_ratio(truth, image, data_range=1))
    return {"psnr": min(psnr, MAX_PSNR),
            "ssim": float(structural_similarity(truth, image, channel_axis=2, **SSIM))}


def measure_frame(view: int, image: Float[np.ndarray, "h w 3"], scene: Scene, neighbors: Neighbors | None,
                  ) -> tuple[dict[str, str | float], dict[str, float] | None]:
    """The metrics of a frame, and those of the nearest training view in its place."""
    truth = true_image(scene, view)
    return ({"name": scene.names[view], **measure(image, truth)},
            neighbors and measure(true_image(neighbors.views, int(neighbors.nearest[view])), truth))


def mean_metrics(frames: Sequence[dict]) -> dict[str, float]:
    """PSNR and SSIM, each averaged over frames."""
    return {name: float(np.mean([frame[name] for frame in frames])) for name in ("psnr", "ssim")}


def true_image(scene: Scene, view: int) -> Float[np.ndarray, "h w 3"]:
    """A view's image in [0, 1], float32, without the border, as frames are."""
    return crop_border(scene.images[view]).permute(1, 2, 0).numpy().astype(np.float32) / 255


def measure_depth(depth: Float[np.ndarray, "views m m"], truth: Float[np.ndarray, "views m m"], voxel_size: float,
                  ) -> dict[str, float | int] | None:
    """The errors of depth (world units) over the object's pixels, where the truth is finite; None if there are none.
    The depth of the background is undetermined (paper, Figure 5)."""
    on_object = np.isfinite(truth)
    if not on_object.any():
        return None
    error = np.abs(depth[on_object] - truth[on_object])
    return {"mean_absolute_error": float(error.mean()), "within_one_voxel": float((error <= voxel_size).mean()),
            "voxel_size": float(voxel_size), "pixels": int(on_object.sum())}


def load_true_depth(folder: Path, count: int, sidelength: int) -> Float[np.ndarray, "views m m"] | None:
    """Reads `folder/*.npz`, `count` maps of z-depth in world units, and averages them to maps of this sidelength.
    None if there are none.

    A map pixel is infinite unless the object covers all of it: at a silhouette, the mean depth means nothing.
    """
    paths = sorted(folder.glob("*.npz"))
    if not paths:
        return None
    if len(paths) != count:
        raise InputError(f"{folder}: holds {len(paths)} depth maps for {count} poses")
    return np.stack([_shrunk(_load_depth(path), sidelength) for path in paths])


def _load_depth(path: Path) -> Float[np.ndarray, "h w"]:
    with reading(path, "a depth map, an array (height, width) named 'depth'", MAX_DEPTH_BYTES) as limits:
        limits.memory_for(path.stat().st_size)
        with zipfile.ZipFile(path) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > MAX_DEPTH_BYTES:
                raise ValueError(f"it unpacks to more than {MAX_DEPTH_BYTES} bytes")
        with np.load(path) as arrays:
            depth = arrays["depth"]
        if depth.ndim != 2 or not min(depth.shape) or depth.dtype.kind not in "fiu":
            raise ValueError(f"it has the shape {depth.shape} and the type {depth.dtype}")
        with np.errstate(over="ignore"):  # beyond float32 is as good as infinite
            return depth.astype(np.float32)


def _shrunk(depth: Float[np.ndarray, "h w"], sidelength: int) -> Float[np.ndarray, "m m"]:
    top, left, side = center_square(*depth.shape)
    depth = depth[top:top + side, left:left + side]
    covered = np.isfinite(depth)
    share, mean = (cv2.resize(values.astype(np.float32), (sidelength, sidelength), interpolation=cv2.INTER_AREA)
                   for values in (covered, np.where(covered, depth, 0)))
    return np.where(share > 0.999, mean, np.float32(np.inf))
