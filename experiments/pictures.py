"""Pictures that show several methods at once: a figure of a few views, a video of a whole path."""
from collections.abc import Sequence
from pathlib import Path

import cv2
import imageio.v2 as imageio
import numpy as np
from jaxtyping import UInt8

from dataio import Scene, load_scene
from evaluation.render import FRAMES_PER_SECOND, cropped_view, enlarge
from experiments.runner import Result

CELL_SIDELENGTH = 192
CAPTION_HEIGHT = 24
NOTHING = 235  # the gray of a picture that is missing


def load_test_views(data: Path, result: Result) -> Scene:
    """The test views of a scene as a run was measured with."""
    protocol = result.metrics["protocol"]
    return load_scene(data / "test", protocol["sidelength"], background=protocol["background"])


def true_picture(views: Scene, view: int) -> UInt8[np.ndarray, "h w 3"]:
    """A view's true image, cropped as the frames are."""
    return np.round(255 * cropped_view(views, view)).astype(np.uint8)


def frame(result: Result | None, view: int) -> UInt8[np.ndarray, "h w 3"] | None:
    """The frame that a run rendered, None for a run that failed."""
    if result is None:
        return None
    levels = cv2.imread(str(result.folder / f"img_{view:05d}.png"), cv2.IMREAD_UNCHANGED)
    return np.round(levels[..., ::-1] / 257).astype(np.uint8)


def row(pictures: Sequence[UInt8[np.ndarray, "_ _ 3"] | None]) -> UInt8[np.ndarray, "h w 3"]:
    """Pictures side by side, enlarged to one size; gray where there is none."""
    side = max([CELL_SIDELENGTH, *(picture.shape[0] for picture in pictures if picture is not None)])
    side += side % 2  # as videos want it
    cells = []
    for picture in pictures:
        if picture is None:
            cells.append(np.full((side, side, 3), NOTHING, np.uint8))
        else:
            # Whole multiples keep pixels square; the rest is interpolated.
            sharp = enlarge(picture, picture.shape[0] * (side // picture.shape[0]))
            cells.append(cv2.resize(sharp, (side, side), interpolation=cv2.INTER_LINEAR))
    return np.concatenate(cells, axis=1)


def captions(texts: Sequence[str], width: int) -> UInt8[np.ndarray, "h w 3"]:
    """A white strip with a text over each of as many columns."""
    strip = np.full((CAPTION_HEIGHT, width, 3), 255, np.uint8)
    column = width // len(texts)
    for i, text in enumerate(texts):
        (length, _), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, 0.5, 1)
        size = 0.5 * min(1, (column - 8) / length) if length else 0.5
        cv2.putText(strip, text, (i * column + 4, 17), cv2.FONT_HERSHEY_SIMPLEX, size, (0, 0, 0), 1, cv2.LINE_AA)
    return strip


def write_figure(path: Path, columns: Sequence[str], rows: Sequence[Sequence[np.ndarray | None]]) -> None:
    """A grid of pictures under the columns' names."""
    lines = [row(pictures) for pictures in rows]
    width = max(line.shape[1] for line in lines)
    lines = [line if line.shape[1] == width else
             cv2.resize(line, (width, round(line.shape[0] * width / line.shape[1]))) for line in lines]
    imageio.imwrite(path, np.concatenate([captions(columns, width), *lines]))


def write_path_video(path: Path, columns: Sequence[str], views: Scene, results: Sequence[Result | None]) -> None:
    """The test path: the truth and the frames of each run side by side."""
    with imageio.get_writer(path, fps=FRAMES_PER_SECOND, macro_block_size=2, ffmpeg_log_level="error") as video:
        for view in range(len(views)):
            line = row([true_picture(views, view), *(frame(result, view) for result in results)])
            video.append_data(np.concatenate([captions(columns, line.shape[1]), line]))
