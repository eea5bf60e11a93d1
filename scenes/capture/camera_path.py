"""nerfstudio's camera_path.json, read as poses and written.

    cam2world, unused = read_camera_path(path, from_nerfstudio)
    content = camera_path_content(cam2world, intrinsics, to_nerfstudio, fps=24)

nerfstudio moves and scales a scene before it trains; where it has written how, as
dataparser_transforms.json, poses are converted from and to its coordinates.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from data_util import SceneIntrinsics, nearest_rigid
from geometry.cameras import opengl2opencv
from util import InputError, read_json

MAX_BYTES = 1 << 25
USED = {"camera_path", "camera_to_world"}


@dataclass(frozen=True)
class Similarity:
    """From the scene's world to nerfstudio's: transform, then scale."""

    transform: Float[np.ndarray, "4 4"]
    scale: float

    def apply(self, cam2world: Float[np.ndarray, "frames 4 4"]) -> Float[np.ndarray, "frames 4 4"]:
        moved = self.transform @ cam2world
        moved[:, :3, 3] *= self.scale
        return moved

    def undo(self, cam2world: Float[np.ndarray, "frames 4 4"]) -> Float[np.ndarray, "frames 4 4"]:
        moved = cam2world.copy()
        moved[:, :3, 3] /= self.scale
        return np.linalg.inv(self.transform) @ moved


@dataclass(frozen=True)
class Turn:
    """How an importer turned the world. rotation: from the source's world to the scene's. source:
    in scene.json's words."""

    rotation: Float[np.ndarray, "4 4"]
    source: str


def read_dataparser(path: Path | None) -> Similarity:
    """What dataparser_transforms.json says; nothing changes without one. Raises InputError."""
    if path is None:
        return Similarity(np.eye(4), 1.0)
    content = read_json(path, MAX_BYTES)
    try:
        matrix = np.vstack([np.array(content["transform"], dtype=np.float64), [0, 0, 0, 1]])
        scale = float(content["scale"])
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise InputError(f"{path}: holds no transform of 3x4 and scale ({error})") from None
    if matrix.shape != (4, 4) or not 0 < scale < 1e12:
        raise InputError(f"{path}: holds no transform of 3x4 and scale above 0")
    return Similarity(nearest_rigid(matrix, f"{path}: the transform"), scale)


def read_camera_path(
    path: Path, to_nerfstudio: Similarity
) -> tuple[Float[np.ndarray, "frames 4 4"], list[str]]:
    """The poses (OpenCV axes, the scene's world), and the names of what is not used, such as each
    frame's field of view. Raises InputError."""
    content = read_json(path, MAX_BYTES)
    frames = content.get("camera_path") if isinstance(content, dict) else None
    if not isinstance(frames, list) or not frames:
        raise InputError(f"{path}: holds no camera_path with frames")
    poses = []
    for number, frame in enumerate(frames):
        subject = f"{path}: camera_to_world of frame {number}"
        try:
            pose = np.array(frame["camera_to_world"], dtype=np.float64).reshape(4, 4)
        except (KeyError, TypeError, ValueError, OverflowError):
            raise InputError(f"{subject} is not 16 numbers") from None
        poses.append(nearest_rigid(pose, subject))
    names = {str(name) for values in (content, *frames) for name in values}
    return to_nerfstudio.undo(opengl2opencv(np.stack(poses))), sorted(names - USED)


def read_turn(scene: Path) -> Turn | None:
    """What scene.json, in the scene's folder or in the one above it, says of the turn; None if it
    says nothing. Raises InputError."""
    records = (folder / "scene.json" for folder in (scene, scene.absolute().parent))
    record = next((path for path in records if path.is_file()), None)
    content = None if record is None else read_json(record, MAX_BYTES)
    if not isinstance(content, dict) or "rotation" not in content:
        return None
    rotation = np.eye(4)
    try:
        rotation[:3, :3] = np.array(content["rotation"], dtype=np.float64)
    except (TypeError, ValueError):
        raise InputError(f"{record}: its rotation is not 3x3 numbers") from None
    source = str(content.get("source", ""))
    return Turn(nearest_rigid(rotation, f"{record}: the rotation"), source)


def camera_path_content(
    cam2world: Float[np.ndarray, "frames 4 4"],
    intrinsics: SceneIntrinsics,
    to_nerfstudio: Similarity,
    fps: int,
) -> dict:
    """The content of a camera_path.json with a frame for each pose."""
    fov = float(np.degrees(2 * np.arctan(intrinsics.height / 2 / intrinsics.focal)))
    aspect = intrinsics.width / intrinsics.height
    poses = to_nerfstudio.apply(opengl2opencv(cam2world))
    return {
        "camera_type": "perspective",
        "render_height": intrinsics.height,
        "render_width": intrinsics.width,
        "fps": fps,
        "seconds": len(poses) / fps,
        "is_cycle": False,
        "smoothness_value": 0,
        "keyframes": [],
        "camera_path": [
            {"camera_to_world": pose.reshape(-1).tolist(), "fov": fov, "aspect": aspect}
            for pose in poses
        ],
    }
