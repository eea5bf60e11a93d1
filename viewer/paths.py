"""Camera paths through keyframes: smooth poses, saved as test folders, and rendered as
`--train_test test` does."""

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
from geometry.paths import leg_lengths, smooth_path
from machine.runtime import describe_machine
from util import InputError, make_run_folder, read_json, write_json
from viewer.scene import SceneInView, sees_grid
from viewer.shared import Shared

MAX_SECONDS = 120.0
MAX_KEYFRAMES = 500
KEYFRAMES = "keyframes.json"  # beside the poses: what to edit further


class CameraPath(NamedTuple):
    """Keyframes (poses), how long the path takes at an even pace, and whether it returns to the
    first one.

    legs: seconds from each keyframe to the next, of those that have their own; 0 for the even pace.
    """

    keyframes: Float[np.ndarray, "keyframes 4 4"]
    seconds: float
    closed: bool
    legs: tuple[float, ...] = ()

    def moved(self, offset: Float[np.ndarray, "3"]) -> "CameraPath":
        """The same path in a world where everything lies at its place plus `offset`."""
        return self._replace(keyframes=move(self.keyframes, offset))

    def leg_seconds(self, scale: float) -> Float[np.ndarray, "legs"] | None:
        """How long each leg takes; None at an even pace."""
        if len(self.keyframes) == 1 or not any(self.legs):
            return None
        lengths = leg_lengths(self.keyframes, self.closed, scale)
        own = np.array(self.legs, dtype=np.float64)[: len(lengths)]
        return np.where(own > 0, own, self.seconds * lengths / lengths.sum())

    def duration(self, scale: float) -> float:
        """How long the path takes, in seconds."""
        legs = self.leg_seconds(scale)
        return self.seconds if legs is None else float(legs.sum())

    def poses(self, scale: float) -> Float[np.ndarray, "frames 4 4"]:
        """The pose of each frame of the video. See `smooth_path`."""
        return self._poses_in(self.duration(scale), scale)

    def line(self, scale: float) -> Float[np.ndarray, "points 3"]:
        """Points to draw the path by: the frames' centers; fewer of them on a path that takes
        longer than is allowed."""
        return self._poses_in(min(self.duration(scale), MAX_SECONDS), scale)[:, :3, 3]

    def _poses_in(self, seconds: float, scale: float) -> Float[np.ndarray, "frames 4 4"]:
        frames = max(1, round(seconds * FRAMES_PER_SECOND))
        return smooth_path(self.keyframes, frames, self.closed, scale, self.leg_seconds(scale))


def save_path(folder: Path, path: CameraPath, scene: SceneInView, model: TrainedModel) -> None:
    """Writes a test folder, in the world of the scene's files: poses, intrinsics, and the keyframes
    for `load_path`.

    Raises `InputError` if the folder exists, or if a pose sees nothing of the grid: no command
    would render it.
    """
    poses = path.poses(scene.intrinsics.scale)
    seen = sees_grid(poses, scene, model)
    if not seen.all():
        second = np.flatnonzero(~seen)[0] / FRAMES_PER_SECOND
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
            {
                "seconds": path.seconds,
                "closed": path.closed,
                "legs": path.legs,
                "keyframes": keyframes,
            },
        )


def load_path(folder: Path) -> CameraPath:
    """The path that `save_path` wrote, in the world of the scene's files. Raises `InputError` if it
    is damaged."""
    file = folder / KEYFRAMES
    content = read_json(file)
    try:
        keyframes = np.array(content["keyframes"], dtype=np.float64)
        seconds = float(content["seconds"])
        closed = bool(content["closed"])
        legs = tuple(float(leg) for leg in content.get("legs", ()))
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
    if len(legs) not in (0, len(keyframes)) or not all(0 <= leg <= MAX_SECONDS for leg in legs):
        raise InputError(f"{file}: does not hold 0 to {MAX_SECONDS:g} seconds for each keyframe")
    for index, pose in enumerate(keyframes):
        require_rigid(pose, f"{file}: keyframe {index + 1}")
    return CameraPath(keyframes, seconds, closed, legs)


def saved_paths(folder: Path) -> list[str]:
    """The names of the paths that can be loaded from a folder."""
    return sorted(file.parent.name for file in folder.glob(f"*/{KEYFRAMES}"))


def render_video(
    path_folder: Path,
    cam2world: Float[np.ndarray, "path 4 4"],
    model: TrainedModel,
    shared: Shared,
    progress: Callable[[float], None],
) -> Path:
    """Writes a model's frames of a saved path to a new folder of `test_traj`, while browsers go on
    looking, and returns that folder.

    `progress` is called with the share that is done.
    """
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
