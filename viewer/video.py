"""The video of a camera path, rendered and written as `--train_test test` does, while browsers go
on looking."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from jaxtyping import Float

from evaluation.output import write_frames
from evaluation.render import Frame, render_path
from machine.runtime import describe_machine
from util import make_run_folder, write_json
from viewer.model import PRECISION, Model
from viewer.renderer import Renderer


def render_video(
    path_folder: Path,
    cam2world: Float[np.ndarray, "path 4 4"],
    model: Model,
    renderer: Renderer,
    logging_root: Path,
    progress: Callable[[float], None],
) -> Path:
    """Writes the frames of a path to a new folder of `test_traj`, and returns that folder.

    `progress` is told the share that is done.
    """
    (folder,) = make_run_folder(logging_root, "test_traj", name=path_folder.name)
    write_json(
        folder / "options.json",
        {
            "options": {
                "train_test": "test",
                "data_root": str(path_folder),
                "logging_root": str(logging_root),
                "checkpoint": str(model.path),
                "model": model.name,
            },
            "machine": describe_machine(model.device),
        },
    )
    frames = render_path(
        model.network, cam2world, model.neighbors(cam2world), PRECISION, model.device
    )
    write_frames(
        folder,
        _reported(renderer.in_turns(frames), len(cam2world), progress),
        len(cam2world),
        model.depth_range,
    )
    return folder


def _reported(
    frames: Iterator[Frame], count: int, progress: Callable[[float], None]
) -> Iterator[Frame]:
    for frame in frames:
        progress((frame.view + 1) / count)
        yield frame
