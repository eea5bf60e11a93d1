"""Frames of a video as photos.

    names = extract_frames(Path("walk.mp4"), 80, Path("images"), side=1280)

The video is cut into equal intervals; each gives its sharpest frame.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

import cv2
import imageio.v2 as imageio
import numpy as np
from jaxtyping import UInt8

from data_util import write_image
from machine.progress import Progress
from scenes.capture.photos import kept_size
from util import InputError, require_file

VideoFrame = UInt8[np.ndarray, "_ _ 3"]
MAX_BYTES = 1 << 40


def extract_frames(video: Path, count: int, folder: Path, side: int) -> dict[str, str]:
    """Writes the sharpest frame of each of `count` intervals as PNG, its shorter side shrunk to
    `side` pixels.

    Returns the files' names, each with a name that tells the frame's number in the video. One frame
    is in memory at a time. Raises InputError unless the file is a video of at least two frames.
    """
    total = count_frames(video)
    if total < 2:
        raise InputError(
            f"{video}: has {total} frames; structure from motion needs several, from different "
            "places"
        )
    folder.mkdir(exist_ok=True)
    names = {}
    for index, (number, frame) in enumerate(
        sharpest(decode_frames(video, total), total, min(count, total), side)
    ):
        names[f"{index:06d}.png"] = f"frame {number}"
        write_image(folder / f"{index:06d}.png", frame)
    return names


def count_frames(video: Path) -> int:
    """The number of frames that the file claims. Raises InputError unless it is a video."""
    require_file(video, MAX_BYTES)
    try:
        with imageio.get_reader(video, format="FFMPEG") as reader:
            return reader.count_frames()
    except (OSError, ValueError, RuntimeError, IndexError) as error:
        raise _unreadable(video, error) from None


def decode_frames(video: Path, total: int) -> Iterator[VideoFrame]:
    """The frames one after the other, upright, with a progress bar. Raises InputError if the file
    is damaged."""
    try:
        # Each frame once: at a varying frame rate ffmpeg would repeat frames to make the rate
        # constant.
        with imageio.get_reader(
            video, format="FFMPEG", output_params=["-fps_mode", "passthrough"]
        ) as reader:
            yield from Progress(reader.iter_data(), desc="frames", total=total, unit="frame")
    except (OSError, ValueError, RuntimeError, IndexError) as error:
        raise _unreadable(video, error) from None


def sharpest(
    frames: Iterable[VideoFrame], total: int, count: int, side: int
) -> Iterator[tuple[int, VideoFrame]]:
    """Number and pixels of the frame of each of `count` intervals with the most detail, shrunk as
    `kept_size` says.

    Detail is the variance of the Laplacian: motion and defocus lower it. `total` is the expected
    number of frames.
    """
    best = None
    best_detail = -1.0
    current = 0
    for number, frame in enumerate(frames):
        interval = min(number * count // total, count - 1)
        if best is not None and interval != current:
            yield best
            best_detail = -1.0
            current = interval
        frame = cv2.resize(
            frame, kept_size(frame.shape[1], frame.shape[0], side), interpolation=cv2.INTER_AREA
        )
        detail = cv2.Laplacian(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), cv2.CV_32F).var()
        if detail > best_detail:
            best = (number, frame)
            best_detail = detail
    if best is not None:
        yield best


def _unreadable(video: Path, error: Exception) -> InputError:
    lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return InputError(f"{video}: is not a readable video ({lines[-1].strip()[:200]})")
