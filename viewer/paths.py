"""Camera paths through keyframes: smooth poses, saved as test folders, and rendered as
`--train_test test` does."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from data_util import require_rigid, write_scene_folder
from evaluation.output import RenderedPath, write_frames
from evaluation.render import Frame
from evaluation.trained import TrainedModel
from evaluation.video_writer import FRAMES_PER_SECOND
from files.folders import new_folder
from geometry.cameras import move
from geometry.coverage import Grid, frustum_meets_grid
from geometry.paths import smooth_path
from machine.runtime import describe_machine
from util import InputError, make_run_folder, read_text, write_json
from viewer.scene import SceneInView
from viewer.shared import Shared

MAX_SECONDS = 120.0
MAX_KEYFRAMES = 500
KEYFRAMES = "keyframes.json"  # beside the poses: what to edit further


class CameraPath(NamedTuple):
    """Keyframes (poses), how long the path takes, and whether it returns to the first one."""

    keyframes: Float[np.ndarray, "keyframes 4 4"]
    seconds: float
    closed: bool

    def moved(self, offset: Float[np.ndarray, "3"]) -> "CameraPath":
        """The same path in a world where everything lies at its place plus `offset`."""
        return self._replace(keyframes=move(self.keyframes, offset))

    def poses(self, scale: float) -> Float[np.ndarray, "frames 4 4"]:
        """The pose of each frame of the video. See `smooth_path`."""
        return smooth_path(
            self.keyframes, max(1, round(self.seconds * FRAMES_PER_SECOND)), self.closed, scale
        )


def save_path(folder: Path, path: CameraPath, scene: SceneInView, model: TrainedModel) -> None:
    """Writes a test folder, in the world of the scene's files: poses, intrinsics, and the keyframes
    for `load_path`.

    Raises `InputError` if the folder exists, or if a pose sees nothing of the grid: no command
    would render it.
    """
    poses = path.poses(scene.intrinsics.scale)
    lens = scene.lens
    meets = frustum_meets_grid(
        poses,
        scene.intrinsics.pinhole(lens.sidelength),
        Grid(scene.origin, scene.intrinsics.scale, model.geometry.near_plane),
    )
    if not meets.all():
        second = np.flatnonzero(~meets)[0] / FRAMES_PER_SECOND
        raise InputError(
            f"{folder.name}: at {second:.1f} s the path sees nothing of the grid; move its "
            "keyframes"
        )
    with new_folder(folder) as part:
        intrinsics = replace(scene.intrinsics, grid_origin=tuple(scene.offset.tolist()))
        write_scene_folder(part, intrinsics, move(poses, scene.offset))
        keyframes = path.moved(scene.offset).keyframes.tolist()
        write_json(
            part / KEYFRAMES,
            {"seconds": path.seconds, "closed": path.closed, "keyframes": keyframes},
        )


def load_path(folder: Path) -> CameraPath:
    """The path that `save_path` wrote, in the world of the scene's files. Raises `InputError` if it
    is damaged."""
    file = folder / KEYFRAMES
    try:
        content = json.loads(read_text(file))
        keyframes = np.array(content["keyframes"], dtype=np.float64)
        seconds = float(content["seconds"])
        closed = bool(content["closed"])
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{file}: is not a path that this program saved ({type(error).__name__})"
        ) from None
    if (
        keyframes.ndim != 3
        or keyframes.shape[1:] != (4, 4)
        or not 1 <= len(keyframes) <= MAX_KEYFRAMES
    ):
        raise InputError(f"{file}: does not hold 1 to {MAX_KEYFRAMES} poses")
    if not 0 < seconds <= MAX_SECONDS:
        raise InputError(f"{file}: takes {seconds:g} seconds; at most {MAX_SECONDS:g} are allowed")
    for index, pose in enumerate(keyframes):
        require_rigid(pose, f"{file}: keyframe {index + 1}")
    return CameraPath(keyframes, seconds, closed)


def saved_paths(folder: Path) -> list[str]:
    """The names of the paths that can be loaded from a folder."""
    return sorted(file.parent.name for file in folder.glob(f"*/{KEYFRAMES}"))


def render_video(
    path_folder: Path,
    cam2world: Float[np.ndarray, "path 4 4"],
    shared: Shared,
    progress: Callable[[float], None],
) -> Path:
    """Writes the frames of a saved path to a new folder of `test_traj`, while browsers go on
    looking, and returns that folder.

    `progress` is called with the share that is done.
    """
    model = shared.model
    (folder,) = make_run_folder(shared.logging_root, "test_traj", name=path_folder.name)
    write_json(
        folder / "options.json",
        {
            "options": {
                "train_test": "test",
                "data_root": str(path_folder),
                "logging_root": str(shared.logging_root),
                "checkpoint": str(model.path),
                "model": model.name,
            },
            "machine": describe_machine(model.device),
        },
    )
    frames = shared.renderer.in_turns(model.render_path(cam2world))
    frames = _reported(frames, len(cam2world), progress)
    write_frames(folder, RenderedPath(frames, len(cam2world), model.geometry.depth_range))
    return folder


def _reported(
    frames: Iterator[Frame], count: int, progress: Callable[[float], None]
) -> Iterator[Frame]:
    for frame in frames:
        progress((frame.view + 1) / count)
        yield frame
