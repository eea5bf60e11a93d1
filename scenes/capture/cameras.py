"""The cameras of a capture: refused where they are implausible, and undistorted to one pinhole
camera, because a scene folder has a single focal length and no distortion.

    target = shared_pinhole(cameras)
    image = Undistorter(target)(image, camera)

Cameras are COLMAP's, of any model but panoramas; in pixel coordinates the first pixel spans 0 to 1.
OpenCV resamples: pycolmap.undistort_image chooses its own camera for each image, and takes and
gives COLMAP's bitmaps of 8 bits without alpha.
"""

import math

import cv2
import numpy as np
import pycolmap
from jaxtyping import Float, Float32, UInt8

from scenes.capture.listing import warn
from scenes.capture.plausible import require_focal_lengths, require_size
from util import InputError

# Principal point's distance from the image's middle, as a multiple of its size: crops of larger
# photos
MAX_OFFSET = 10
MAX_DISTORTION = 1e4
# Relative difference below which two focal lengths are the same: 0.1 pixels in a thousand
SAME_FOCAL = 1e-4
MAX_PIXEL_STRETCH = 2  # of a fisheye's pixels at the border beside those in the middle
KEPT_OF_FISHEYE = 0.9  # share of a fisheye's width below which a line says what was cut
BORDER_SAMPLES = 64  # points along each side of the image
# Points along each side to which a ray is followed from the principal point, at these shares of it
RAYS = 8
RAY = np.append(np.linspace(0, 1, 32, endpoint=False), [0.999, 1])


def parameter_count(model: str) -> int:
    """The number of parameters of COLMAP's camera model of this name."""
    return len(pycolmap.Camera.create_from_model_name(1, model, 1.0, 1, 1).params)


def plausible_camera(
    subject: str, model: str, width: int, height: int, params: list[float]
) -> pycolmap.Camera:
    """COLMAP's camera with these parameters, in pixels. Raises InputError, which opens with
    `subject`, for a panorama, and for a size, a focal length, a principal point or a distortion
    that cannot be meant."""
    require_size(subject, width, height)
    if len(params) != parameter_count(model):
        raise InputError(
            f"{subject} has {len(params)} parameters; {model} has {parameter_count(model)}"
        )
    if not np.isfinite(params).all():
        raise InputError(f"{subject} has parameters that are not finite")
    camera = pycolmap.Camera(model=model, width=width, height=height, params=params)
    if not camera.is_perspective():
        raise InputError(f"{subject} is of model {model}, which cannot be undistorted here")
    focals = [params[index] for index in camera.focal_length_idxs()]
    require_focal_lengths(subject, width, height, focals)
    for index, size in zip(camera.principal_point_idxs(), (width, height), strict=True):
        if abs(params[index] - size / 2) > MAX_OFFSET * size:
            raise InputError(
                f"{subject} has its principal point at {params[index]:g}, in images of "
                f"{width}x{height}"
            )
    largest = max((abs(params[index]) for index in camera.extra_params_idxs()), default=0.0)
    if not math.isfinite(largest) or largest > MAX_DISTORTION:
        raise InputError(f"{subject} has a distortion coefficient of {largest:g}")
    return camera


def is_pinhole(camera: pycolmap.Camera) -> bool:
    """Whether the camera has no distortion and square pixels."""
    if not (camera.is_perspective_pinhole() and camera.is_undistorted()):
        return False
    focal_x = camera.focal_length_x
    focal_y = camera.focal_length_y
    return abs(focal_x - focal_y) <= SAME_FOCAL * focal_x


def shared_pinhole(cameras: list[pycolmap.Camera]) -> pycolmap.Camera:
    """The pinhole camera with the widest view that every one of `cameras` fills.

    If all of them are the same pinhole camera already, it is that one. Raises InputError for a
    distortion that leaves no view.
    """
    first = cameras[0]
    if all(is_pinhole(camera) and _same(camera, first) for camera in cameras):
        return _simple_pinhole(
            first.focal_length_x,
            first.principal_point_x,
            first.principal_point_y,
            first.width,
            first.height,
        )
    width = min(camera.width for camera in cameras)
    height = min(camera.height for camera in cameras)
    center_x = np.mean([camera.principal_point_x / camera.width for camera in cameras]) * width
    center_y = np.mean([camera.principal_point_y / camera.height for camera in cameras]) * height
    different = list(
        {
            tuple(camera.params) + (camera.width, camera.height, camera.model_name): camera
            for camera in cameras
        }.values()
    )
    mean_focal = float(
        np.mean(
            [
                camera.mean_focal_length() * min(width / camera.width, height / camera.height)
                for camera in different
            ]
        )
    )
    low = 0.3 * mean_focal
    high = 3 * mean_focal
    fisheyes = [camera for camera in different if camera.is_perspective_fisheye()]
    # Bisection: the smallest focal length that leaves no pixel without a source
    for _ in range(30):
        middle = np.sqrt(low * high)
        target = _simple_pinhole(middle, center_x, center_y, width, height)
        if all(_fills(camera, target) for camera in different) and not any(
            _stretches(camera, target) for camera in fisheyes
        ):
            high = middle
        else:
            low = middle
    target = _simple_pinhole(high, center_x, center_y, width, height)
    _warn_of_cut(fisheyes, target)
    for camera in different:
        if not _fills(camera, target):
            raise InputError(
                f"a camera cannot be undistorted: {camera.model_name} with the parameters "
                f"{', '.join(f'{value:.4g}' for value in camera.params)} bends even the middle of "
                "its "
                "image beyond the border"
            )
    return target


class Undistorter:
    """Resamples images of any camera as images of the target camera; the target's own images pass
    unchanged."""

    def __init__(self, target: pycolmap.Camera):
        self.target = target
        self._maps = {}

    def __call__(
        self,
        image: UInt8[np.ndarray, "_ _ *c"] | Float32[np.ndarray, "_ _ *c"],
        camera: pycolmap.Camera,
    ) -> UInt8[np.ndarray, "h w *c"] | Float32[np.ndarray, "h w *c"]:
        if is_pinhole(camera) and _same(camera, self.target):
            return image
        key = (camera.model_name, camera.width, camera.height, tuple(camera.params))
        if key not in self._maps:
            # Only the last camera's map is kept, to save memory.
            self._maps = {key: self._source_pixels(camera)}
        return cv2.remap(
            image, self._maps[key], None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )

    def _source_pixels(self, camera: pycolmap.Camera) -> Float[np.ndarray, "h w 2"]:
        """For each pixel of the target its position in the camera's image, with OpenCV's integer
        pixel centers."""
        x, y = np.meshgrid(np.arange(self.target.width) + 0.5, np.arange(self.target.height) + 0.5)
        pixels = _transfer(self.target, camera, np.stack([x.reshape(-1), y.reshape(-1)], axis=1))
        return (pixels - 0.5).astype(np.float32).reshape(self.target.height, self.target.width, 2)


def _transfer(
    target: pycolmap.Camera,
    camera: pycolmap.Camera,
    pixels: Float[np.ndarray, "points 2"],
) -> Float[np.ndarray, "points 2"]:
    """The pixels of `camera` that see along the same rays as these pixels of `target`."""
    principal_point = target.principal_point_x, target.principal_point_y
    rays = np.concatenate(
        [(pixels - principal_point) / target.focal_length_x, np.ones((len(pixels), 1))], axis=1
    )
    return np.asarray(camera.img_from_cam(rays))


def _fills(camera: pycolmap.Camera, target: pycolmap.Camera) -> bool:
    """Whether the camera's image has a source for every border pixel of the target's, and for all
    within.

    A polynomial of distortion may turn back at some angle: what it gives beyond lies in the image
    again, but mirrored.
    """
    pixels = _transfer(target, camera, _border(target, BORDER_SAMPLES))
    return bool(
        np.isfinite(pixels).all()
        and (pixels >= -0.5).all()
        and (pixels <= [camera.width + 0.5, camera.height + 0.5]).all()
        and not _turns_back(camera, target)
    )


def _turns_back(camera: pycolmap.Camera, target: pycolmap.Camera) -> bool:
    """Whether the source of a pixel comes nearer to the principal point as the pixel moves outwards
    in the target."""
    center = np.array([target.principal_point_x, target.principal_point_y])
    pixels = center + RAY[:, None, None] * (_border(target, RAYS) - center)
    sources = _transfer(target, camera, pixels.reshape(-1, 2)).reshape(pixels.shape)
    distances = np.linalg.norm(
        sources - [camera.principal_point_x, camera.principal_point_y], axis=2
    )
    return not (np.diff(distances, axis=0) >= 0).all()


def _stretches(camera: pycolmap.Camera, target: pycolmap.Camera) -> bool:
    """Whether a pixel of a fisheye becomes more than `MAX_PIXEL_STRETCH` times as long in the
    target, beside what one in the middle becomes."""
    border = _border(target, RAYS)
    center = np.array([target.principal_point_x, target.principal_point_y])

    def source_length(share: float) -> Float[np.ndarray, "points"]:
        ends = [center + (share + step) * (border - center) for step in (-0.001, 0.001)]
        first, second = (_transfer(target, camera, pixels) for pixels in ends)
        return np.linalg.norm(second - first, axis=1)

    middle = source_length(0.001)
    return bool((middle > MAX_PIXEL_STRETCH * source_length(0.999)).any())


def _warn_of_cut(fisheyes: list[pycolmap.Camera], target: pycolmap.Camera) -> None:
    """A line on how much of the fisheye images is left out, if it is much."""
    for camera in fisheyes[:1]:
        sources = _transfer(target, camera, _border(target, RAYS))
        kept = np.ptp(sources, axis=0) / [camera.width, camera.height]
        if kept.min() < KEPT_OF_FISHEYE:
            angle = 2 * np.degrees(np.arctan(target.width / 2 / target.focal_length_x))
            warn(
                f"fisheye images are cut to {angle:.0f} degrees, {kept[0]:.0%} of their width and "
                f"{kept[1]:.0%} of their height: beyond, a pinhole image stretches pixels more "
                f"than {MAX_PIXEL_STRETCH:g} times"
            )


def _border(target: pycolmap.Camera, samples: int) -> Float[np.ndarray, "points 2"]:
    """Points along the four sides of the target's image, corners included, so many for each."""
    share = np.linspace(0, 1, samples)
    sides = [(share, 0 * share), (share, 0 * share + 1), (0 * share, share), (0 * share + 1, share)]
    return np.concatenate([np.stack(side, axis=1) for side in sides]) * [
        target.width,
        target.height,
    ]


def _same(one: pycolmap.Camera, other: pycolmap.Camera) -> bool:
    return (one.width, one.height) == (other.width, other.height) and np.allclose(
        [one.focal_length_x, one.principal_point_x, one.principal_point_y],
        [other.focal_length_x, other.principal_point_x, other.principal_point_y],
        rtol=SAME_FOCAL,
        atol=0,
    )


def _simple_pinhole(focal: float, cx: float, cy: float, width: int, height: int) -> pycolmap.Camera:
    return pycolmap.Camera(
        model="SIMPLE_PINHOLE", width=width, height=height, params=[focal, cx, cy]
    )
