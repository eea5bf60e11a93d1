"""How good frames are: PSNR and SSIM against the true images, errors of depth against the true
depth."""

import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Bool, Float

from data_util import (
    BACKGROUNDS,
    center_square,
    crop_border,
    list_depth_maps,
    list_images,
    list_poses,
    pair_views,
)
from dataio import Scene, load_scene
from evaluation.perceptual import Image, PerceptualDistance
from evaluation.render import Frame, Neighbors
from files.images import may_be_transparent
from files.untrusted import reading
from util import InputError

MAX_DEPTH_BYTES = 1 << 28
MAX_PSNR = 100.0  # dB, for equal images: JSON has no infinity
SSIM = {
    "gaussian_weights": True,
    "sigma": 1.5,
    "use_sample_covariance": False,
    "data_range": 1.0,
}  # Wang et al.


@dataclass(frozen=True)
class FrameMetrics:
    """Measures frames of a path against the true images of its views.

    neighbors: if given, the nearest training view is measured too, as if it were the frame.
    objects: the pixels of each view that show the object. perceptual: the distances of
    `evaluation.perceptual` to measure, by name.
    """

    views: Scene
    neighbors: Neighbors | None = None
    objects: Bool[np.ndarray, "views s s"] | None = None
    perceptual: Mapping[str, PerceptualDistance] = field(default_factory=dict)

    def __call__(self, frame: Frame) -> tuple[dict[str, str | float], dict[str, float] | None]:
        """The metrics of a frame, and those of the nearest training view in its place."""
        name = {"name": self.views.names[frame.view]}
        neighbor = None
        if self.neighbors:
            neighbor = self._compare(
                true_image_with_border(
                    self.neighbors.views, int(self.neighbors.nearest[frame.view])
                ),
                frame,
            )
        return {**name, **self._compare(frame.whole, frame)}, neighbor

    def _compare(self, whole: Image, frame: Frame) -> dict[str, float]:
        """PSNR and SSIM without the border, as in the paper; PSNR with it; both over the object, if
        it is known."""
        true_whole = true_image_with_border(self.views, frame.view)
        image = crop_border(whole, channels_last=True)
        truth = crop_border(true_whole, channels_last=True)
        metrics = {**image_metrics(image, truth), "psnr_full_frame": psnr(whole, true_whole)}
        if self.objects is not None:
            on_object = crop_border(self.objects[frame.view])
            if on_object.any():
                metrics |= {
                    f"{name}_object": value
                    for name, value in image_metrics(image, truth, on_object).items()
                }
        for name, distance in self.perceptual.items():
            metrics[name] = distance(image, truth)
        return metrics


def image_metrics(
    image: Image, truth: Image, where: Bool[np.ndarray, "h w"] | None = None
) -> dict[str, float]:
    """PSNR in dB, at most `MAX_PSNR`, and SSIM of an image, over all pixels or the mean over those
    `where` true."""
    from skimage.metrics import structural_similarity  # takes seconds; most runs never measure

    ssim, per_pixel = structural_similarity(truth, image, channel_axis=2, full=True, **SSIM)
    if where is None:
        return {"psnr": psnr(image, truth), "ssim": float(ssim)}
    return {"psnr": psnr(image[where], truth[where]), "ssim": float(per_pixel[where].mean())}


def psnr(image: Float[np.ndarray, "*n 3"], truth: Float[np.ndarray, "*n 3"]) -> float:
    """PSNR in dB, at most `MAX_PSNR`, of values in [0, 1]."""
    # As scikit-image does, whose own takes a second to import: it comes with scipy.stats.
    mse = np.square(image - truth).mean(dtype=np.float64)
    with np.errstate(divide="ignore"):  # equal images
        return min(float(-10 * np.log10(mse)), MAX_PSNR)


def mean_metrics(frames: Sequence[dict]) -> dict[str, float]:
    """Each metric averaged over the frames that have it."""
    names = dict.fromkeys(name for frame in frames for name in frame if name != "name")
    return {
        name: float(np.mean([frame[name] for frame in frames if name in frame])) for name in names
    }


def true_image_with_border(scene: Scene, view: int) -> Image:
    """A view's image in [0, 1], float32."""
    return scene.images[view].permute(1, 2, 0).numpy().astype(np.float32) / 255


def true_image(scene: Scene, view: int) -> Image:
    """A view's image in [0, 1], float32, without the border, as frames are written."""
    return crop_border(true_image_with_border(scene, view), channels_last=True)


def load_object_masks(scene: Scene, background: str) -> Bool[np.ndarray, "views s s"] | None:
    """Where the images of a scene, loaded over `background`, show an object: opaque pixels, which
    look the same over another background. None if no image is transparent anywhere."""
    if not any(map(may_be_transparent, list_images(scene.root / "rgb"))):
        return None  # most scenes: their images are not read a second time
    other = next(name for name in BACKGROUNDS if name != background)
    over_other = load_scene(scene.root, scene.images.shape[-1], background=other).images
    difference = np.abs(scene.images.numpy().astype(np.int16) - over_other.numpy()).max(axis=1)
    opaque = difference < 128  # the colours of the backgrounds are 255 apart
    return None if opaque.all() else opaque


def measure_depth(
    depth: Float[np.ndarray, "views m m"],
    truth: Float[np.ndarray, "views m m"],
    voxel_size: float,
) -> dict[str, float | int] | None:
    """The errors of depth (world units) over the object's pixels, where the truth is finite; None
    if there are none. The depth of the background is undetermined (paper, Figure 5)."""
    on_object = np.isfinite(truth)
    if not on_object.any():
        return None
    error = np.abs(depth[on_object] - truth[on_object])
    return {
        "mean_absolute_error": float(error.mean()),
        "within_one_voxel": float((error <= voxel_size).mean()),
        "voxel_size": float(voxel_size),
        "pixels": int(on_object.sum()),
    }


def load_true_depth(
    folder: Path, count: int, sidelength: int
) -> Float[np.ndarray, "views m m"] | None:
    """Reads the true depth of a scene folder's `count` poses from its folder `depth`, maps of
    z-depth in world units, and averages them to feature maps of this sidelength. None if there are
    none. Maps pair with poses as images do (`data_util.pair_views`).

    A map pixel is infinite unless the object covers all of it: at a silhouette, the mean depth
    means nothing.
    """
    paths = list_depth_maps(folder)
    if not paths:
        return None
    if len(paths) != count:
        raise InputError(f"{folder}: holds {len(paths)} depth maps for {count} poses")
    root = folder.parent
    paths = pair_views(root, paths, list_poses(root / "pose"), folder.name, "npz file")
    return np.stack([_on_feature_map(_load_depth(path), sidelength) for path in paths])


def _load_depth(path: Path) -> Float[np.ndarray, "h w"]:
    with reading(
        path, "a depth map, an array (height, width) named 'depth'", MAX_DEPTH_BYTES
    ) as limits:
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


def _on_feature_map(depth: Float[np.ndarray, "h w"], sidelength: int) -> Float[np.ndarray, "m m"]:
    """The mean depth around each pixel of a feature map; infinite unless the object covers all of
    it."""
    top, left, side = center_square(*depth.shape)
    depth = depth[top : top + side, left : left + side]
    covered = np.isfinite(depth)
    share = mean_around_corners(covered.astype(np.float32), sidelength)
    mean = mean_around_corners(np.where(covered, depth, 0).astype(np.float32), sidelength)
    return np.where(share > 0.999, mean, np.float32(np.inf))


def mean_around_corners(
    image: Float[np.ndarray, "s s *c"], sidelength: int, outside: str = "constant"
) -> Float[np.ndarray, "m m *c"]:
    """An image averaged around each pixel of a feature map of this sidelength.

    A map pixel's ray goes through integer coordinates, the upper left corners of the image's areas
    (docs/design.md, section 3), so that the pixels at the top and left edges reach beyond the
    image. outside: what is there, `numpy.pad`'s mode: "constant" for 0, or "edge".
    """
    shrinks = len(image) > 2 * sidelength
    interpolation = cv2.INTER_AREA if shrinks else cv2.INTER_NEAREST
    quarters = cv2.resize(image, (2 * sidelength, 2 * sidelength), interpolation=interpolation)
    widths = [(1, 0), (1, 0), (0, 0)][: image.ndim]
    shifted = np.pad(quarters[:-1, :-1], widths, mode=outside)
    return cv2.resize(shifted, (sidelength, sidelength), interpolation=cv2.INTER_AREA)
