"""The files of a test run: 16-bit frames, depth, the video and the comparison (docs/design.md,
section 7)."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from data_util import load_image, write_image
from dataio import Scene
from evaluation.metrics import true_image
from evaluation.picture_grid import depth_pictures, evenly_spread, picture_grid, to_uint8
from evaluation.render import VIEWS_AT_ONCE, Frame
from evaluation.video_writer import FRAMES_PER_SECOND, VideoWriter
from machine.installed import is_installed
from machine.progress import Progress
from machine.ranks import ALONE, Ranks
from util import new_file

WRITERS = 4  # threads that write and measure frames while the next ones are rendered
MAX_WAITING = 16  # frames that wait for them, which bounds memory
MAX_VIDEO_SIDELENGTH = 720  # to which a video may be enlarged
MIN_FRAMES_PER_SECOND = 2.0
VIDEO_SECONDS = 8  # of a path of few views, which are shown for longer
COMPARED_VIEWS = 5


class VideoLook(NamedTuple):
    """How a video looks. sidelength: pixels to which images are smoothly enlarged, an even number;
    None for the frames' own size. depth: whether depth stands beside the image, in colours."""

    sidelength: int | None = None
    depth: bool = False
    frames_per_second: float = FRAMES_PER_SECOND


PLAIN = VideoLook()


class RenderedPath(NamedTuple):
    """The frames of a path, rendered as they are taken, how many they are, and the depths (world
    units) that the video's colours span."""

    frames: Iterable[Frame]
    count: int
    depth_range: tuple[float, float]


def write_frames(
    folder: Path,
    path: RenderedPath,
    measure: Callable[[Frame], object] | None = None,
    ranks: Ranks = ALONE,
    look: VideoLook = PLAIN,
) -> tuple[list, Float[np.ndarray, "views m m"] | None]:
    """Writes `img_%05d.png`, `depth/` and `depth_metric.npz` where frames have depth, and
    `video.mp4`, which appears last, when all else is written; it is left out where imageio-ffmpeg
    is not installed. Every file is whole or not there.

    Threads write and measure frames while the next ones are rendered. Returns `measure(frame)` of
    each frame, in order, and the depth of all frames, if any. Of several ranks, each writes the
    frames that it renders (see `render_path`); the first does the rest.
    """

    def write_frame(frame: Frame):
        write_png16(frame_path(folder, frame.view), frame.image)
        return measure and measure(frame)

    def handed_to_writers() -> Iterator[
        tuple[UInt8[np.ndarray, "h w 3"], Float[np.ndarray, "m m"] | None]
    ]:
        for frame in path.frames:
            waiting.append(writers.submit(write_frame, frame))
            if len(waiting) > MAX_WAITING:
                measured.append(waiting.popleft().result())
            yield video_picture(frame, path.depth_range, look), frame.depth

    depths = []
    measured = []
    waiting = deque()
    video = None
    if is_installed("imageio_ffmpeg"):
        video = VideoWriter(folder / "video.mp4", look.frames_per_second)
    with video or nullcontext(), ThreadPoolExecutor(WRITERS) as writers:
        for picture, depth in Progress(
            ranks.gather_in_order(handed_to_writers(), path.count, VIEWS_AT_ONCE),
            total=path.count,
            unit="frame",
        ):
            if depth is not None:
                depths.append(depth)
            if video:
                video.add(picture)
        measured += [result.result() for result in waiting]
        measured = list(ranks.gather_in_order(iter(measured), path.count, VIEWS_AT_ONCE))
        depth = np.stack(depths) if depths else None
        if depth is not None:
            write_depth(folder, depth)
    return measured, depth


def frames_per_second(count: int) -> float:
    """The rate at which a video shows a path of `count` views, so that it can be watched."""
    return min(FRAMES_PER_SECOND, max(MIN_FRAMES_PER_SECOND, count / VIDEO_SECONDS))


def video_picture(
    frame: Frame, depth_range: tuple[float, float], look: VideoLook
) -> UInt8[np.ndarray, "h w 3"]:
    """The image as a video shows it, perhaps with its depth beside it: whose pixels stay squares,
    as depth between two surfaces would be that of none."""
    image = frame.image
    sidelength = look.sidelength or len(image)
    size = (sidelength, sidelength)
    if sidelength != len(image):
        image = cv2.resize(image, size, interpolation=cv2.INTER_CUBIC).clip(0, 1)
    if not look.depth or frame.depth is None:
        return to_uint8(image)
    depth = depth_pictures(frame.depth, frame.whole.shape[0], *depth_range)
    depth = cv2.resize(depth, size, interpolation=cv2.INTER_NEAREST)
    return np.concatenate([to_uint8(image), depth], axis=1)


def write_depth(folder: Path, depth: Float[np.ndarray, "views m m"]) -> None:
    """Writes depth in world units as `depth_metric.npz`, and as 16-bit pictures normalised over the
    whole run."""
    with new_file(folder / "depth_metric.npz") as file:
        np.savez_compressed(file, depth=depth.astype(np.float32))
    (folder / "depth").mkdir()
    for view, picture in enumerate((depth - depth.min()) / max(np.ptp(depth), 1e-12)):
        write_png16(frame_path(folder / "depth", view), picture)


def write_comparison(folder: Path, scene: Scene) -> None:
    """Writes `comparison.png`: truth, the frame already written, and its error, for a few views."""
    rows = []
    for view in evenly_spread(len(scene), COMPARED_VIEWS):
        truth = to_uint8(true_image(scene, view))
        render = read_frame(folder, view)
        error = np.abs(render.astype(float) - truth).mean(axis=2, keepdims=True) / 255
        rows.append(
            (
                scene.names[view],
                [truth, render, to_uint8(1 - np.clip(2 * error, 0, 1)).repeat(3, axis=2)],
            )
        )
    write_image(
        folder / "comparison.png",
        picture_grid(["truth", "render", "error (black: 0.5 or more)"], rows),
    )


def frame_path(folder: Path, view: int) -> Path:
    return folder / f"img_{view:05d}.png"


def write_png16(path: Path, image: Float[np.ndarray, "h w *c"]) -> None:
    """Writes an image in [0, 1], RGB or gray, as 16-bit PNG."""
    write_image(path, np.round(image * 65535).astype(np.uint16))


def read_frame(folder: Path, view: int) -> UInt8[np.ndarray, "h w 3"]:
    """A frame of a test run, in 8 bits. Raises `InputError` if it is not there any more or
    damaged."""
    return load_image(frame_path(folder, view))
