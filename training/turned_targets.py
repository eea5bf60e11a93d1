"""Target cameras turned about their own centers, with true images: more views than were taken.

Turning a camera about its center moves its image by a homography (Hartley and Zisserman, 2004,
section 8.4), so the true image of a turned target is known wherever the original image shows it,
whatever the scene's depth. A model that sees each view turned differently every time cannot learn
the views by heart (docs/performance.md).

`--turn_roll` and `--turn_tilt` say how far; both 0, the default, leave the targets as they are.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Float64, Int, UInt8
from torch import Tensor

from data_util import list_images, load_image
from dataio import Scene, SceneOptions, Views, load_scene
from machine.ranks import ALONE, Ranks
from machine.runtime import to_device
from projection import without_autocast
from training.data import Batch
from training.options import Learning

MAX_ENLARGEMENT = 4  # of the originals, in image sidelengths: a pixel averages 4x4 samples
MAX_BYTES = 1 << 30  # of all originals, which stay on the device
TURNS_STREAM = 1  # tells this stream of random numbers, by (seed, step), from that of the triplets


@dataclass(frozen=True)
class TurnedTargets:
    """Turns the targets of training steps.

    originals: the training views, at a multiple of the sidelength that training sees. matrix: the
    intrinsic matrix of the originals, whose first pixel spans 0 to 1. sidelength: of the images
    that are made. roll: largest roll, in degrees. tilt: standard deviation of yaw and of pitch, in
    degrees.
    """

    originals: UInt8[Tensor, "views 3 big big"]
    matrix: Float64[Tensor, "3 3"]
    sidelength: int
    roll: float
    tilt: float
    seed: int

    def __str__(self) -> str:
        big = self.originals.shape[-1]
        text = (
            f"target cameras roll by up to {self.roll:g} degrees, yaw and pitch by {self.tilt:g} "
            f"(standard deviation); true images from {big} pixels"
        )
        if big == self.sidelength:
            text += ", the size that is trained: larger files give sharper turned images"
        return text

    def turn(
        self, batch: Batch, targets: Int[np.ndarray, "targets"], step: int, ranks: Ranks = ALONE
    ) -> Batch:
        """The batch with turned targets. targets: the views that a step has on all ranks; this
        rank's share of them is in `batch`. The turns depend on seed and step alone, so a resumed
        run continues exactly. Does not wait for the device."""
        turns = ranks.share(draw_turns(len(targets), self.roll, self.tilt, self.seed, step))
        homographies = self.matrix @ turns @ self.matrix.inverse()
        poses = batch.target_cam2world
        turns, homographies = to_device(
            torch.stack([turns, homographies]).to(poses.dtype), poses.device
        )
        images, known = warp(
            Views(self.originals, poses).pixels(ranks.share(targets)), homographies, self.sidelength
        )
        return batch._replace(
            target_images=images, target_cam2world=turned(poses, turns), target_mask=known
        )


def load_turned_targets(
    scene: Scene, learning: Learning, options: SceneOptions, device: torch.device
) -> TurnedTargets | None:
    """Reads the views of a training scene again, up to `MAX_ENLARGEMENT` times as large, as far as
    the files and `MAX_BYTES` allow. None unless the options turn targets."""
    if not (learning.turn_roll or learning.turn_tilt):
        return None
    side = scene.images.shape[-1]
    file_side = min(load_image(list_images(scene.root / "rgb")[0]).shape[:2])
    affordable = int((MAX_BYTES / (3 * len(scene))) ** 0.5)
    enlargement = max(1, min(MAX_ENLARGEMENT, file_side // side, affordable // side))
    images = scene.images
    if enlargement > 1:
        originals = load_scene(
            scene.root, enlargement * side, options.sampling_pattern, options.background
        )
        index = {name: view for view, name in enumerate(originals.names)}
        images = originals.images[[index[name] for name in scene.names]]
    return TurnedTargets(
        images.to(device),
        torch.from_numpy(scene.intrinsics.matrix(enlargement * side)),
        side,
        learning.turn_roll,
        learning.turn_tilt,
        learning.seed,
    )


def draw_turns(
    count: int, roll: float, tilt: float, seed: int, step: int
) -> Float64[Tensor, "count 3 3"]:
    """Random rotations: roll uniform up to `roll`, yaw and pitch normal with standard deviation
    `tilt` (degrees)."""
    generator = np.random.default_rng([seed, step, TURNS_STREAM])
    rolls = generator.uniform(-roll, roll, size=count)
    yaws, pitches = generator.normal(0, tilt, size=(2, count))
    return torch.stack([rotation(*angles) for angles in np.deg2rad([yaws, pitches, rolls]).T])


def rotation(yaw: float, pitch: float, roll: float) -> Float64[Tensor, "3 3"]:
    """The axes of a turned camera in those of the camera before (OpenCV): yawed about y, the new
    camera pitched about its x, then rolled about its z, in radians."""
    about_y = [[math.cos(yaw), 0, math.sin(yaw)], [0, 1, 0], [-math.sin(yaw), 0, math.cos(yaw)]]
    about_x = [
        [1, 0, 0],
        [0, math.cos(pitch), -math.sin(pitch)],
        [0, math.sin(pitch), math.cos(pitch)],
    ]
    about_z = [[math.cos(roll), -math.sin(roll), 0], [math.sin(roll), math.cos(roll), 0], [0, 0, 1]]
    axes = [torch.tensor(matrix, dtype=torch.float64) for matrix in (about_y, about_x, about_z)]
    return axes[0] @ axes[1] @ axes[2]


def turned(
    cam2world: Float[Tensor, "v 4 4"], turns: Float[Tensor, "v 3 3"]
) -> Float[Tensor, "v 4 4"]:
    """The poses of turned cameras: cam2world times the turn; their centers stay."""
    poses = cam2world.clone()
    with without_autocast(cam2world):
        poses[:, :3, :3] = cam2world[:, :3, :3] @ turns
    return poses


def warp(
    images: Float[Tensor, "v 3 big big"], homographies: Float[Tensor, "v 3 3"], sidelength: int
) -> tuple[Float[Tensor, "v 3 s s"], Float[Tensor, "v 1 s s"]]:
    """Images of `sidelength` pixels, of which the point p shows what the original shows at the
    homography of p, and a mask that is 0 where some of a pixel lies outside the original.

    For a camera turned by R the homography is K R K^-1. Points are in the originals' pixels, the
    first of which spans 0 to 1, so pixel i has its center at i + 1/2. `big` must be a multiple of
    `sidelength`: the image is sampled at the originals' size, then area-averaged like all images.

    The half pixel matters here alone. A feature map has its pixel centers at integers
    (docs/design.md, section 3), half a pixel from where an image has them, and the networks learn
    that shift; it is the same in the axes of every camera, turned or not.
    """
    big = images.shape[-1]
    centers = torch.arange(big, device=images.device) + 0.5
    v, u = torch.meshgrid(centers, centers, indexing="ij")
    points = torch.stack([u, v, torch.ones_like(u)], dim=-1).view(1, -1, 3)
    x, y, w = (points @ homographies.mT).view(-1, big, big, 3).unbind(-1)
    sample_at = torch.stack([x / w, y / w], dim=-1) * (2 / big) - 1  # -1 and 1: the image's edges
    sampled = F.grid_sample(
        images, sample_at, mode="bicubic", padding_mode="border", align_corners=False
    )
    inside = (w > 0) & (sample_at.abs() <= 1).all(dim=-1)
    size = big // sidelength
    averaged = F.avg_pool2d(sampled, size).clamp(-0.5, 0.5)  # bicubic samples overshoot at edges
    whole = F.avg_pool2d(inside[:, None].float(), size) == 1
    return averaged, whole.float()
