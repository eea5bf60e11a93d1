"""Pictures of several runs side by side: the views they are shown with, and a video of a whole test
path."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from data_util import write_image
from dataio import Scene, load_scene
from evaluation.metrics import true_image
from evaluation.output import read_frame
from evaluation.pictures import captions, picture_grid, tile, to_uint8
from evaluation.video import Video
from experiments.plan import SceneData
from experiments.status import Result

VIEWS_SHOWN = 3  # of each scene, in a figure


def load_test_views(data: SceneData, result: Result) -> Scene:
    """The test views of a scene as a run was measured with."""
    protocol = result.metrics["protocol"]
    return load_scene(data.test, protocol["sidelength"], background=protocol["background"])


def truth_and_frames(
    views: Scene,
    view: int,
    results: Sequence[Result | None],
) -> list[UInt8[np.ndarray, "h w 3"] | None]:
    """A view's true image and the frame of each run; None for a run that failed."""
    return [
        to_uint8(true_image(views, view)),
        *(result and read_frame(result.folder, view) for result in results),
    ]


def write_figure(path: Path, columns: Sequence[str], rows: Sequence[tuple[str, list]]) -> None:
    """Writes the rows of pictures (see `picture_grid`) and says where. If there are none, as no run
    is done, a figure of an earlier call is removed."""
    if rows:
        write_image(path, picture_grid(columns, rows))
        print(f"look at {path}")
    else:
        path.unlink(missing_ok=True)


def write_path_video(
    path: Path, columns: Sequence[str], views: Scene, results: Sequence[Result | None]
) -> None:
    """The test path: the truth and the frames of each run side by side, under the columns'
    titles."""
    titles = None
    with Video(path) as video:
        for view in range(len(views)):
            row = tile([truth_and_frames(views, view, results)])
            if titles is None:
                titles = captions(columns, row.shape[1])
            video.add(np.concatenate([titles, row]))
