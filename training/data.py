"""The training data: the views of a scene that see its grid, and the batches drawn from them
(paper, section 3.1)."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from data_util import list_poses, rounded_poses
from dataio import Scene, SceneOptions, Views, draw_triplets, load_scene, scene_geometry
from deep_voxels import Architecture
from geometry.coverage import judge
from machine.ranks import ALONE, Ranks
from projection import SceneGeometry
from util import InputError, one_line


class Batch(NamedTuple):
    """The views of one training step, on the device: its target views, and one source view (n is 1)
    or one for each target (n is v). Images in [-1/2, 1/2]. target_mask: 0 where a target image is
    unknown, else 1; None where all of it is known."""

    source_image: Float[Tensor, "n 3 s s"]
    source_cam2world: Float[Tensor, "n 4 4"]
    target_images: Float[Tensor, "v 3 s s"]
    target_cam2world: Float[Tensor, "v 4 4"]
    target_mask: Float[Tensor, "v 1 s s"] | None = None

    def in_place_of(self, earlier: "Batch | None") -> "Batch":
        """The same views in the tensors of an earlier batch, if there is one, which they overwrite.
        So the batches of all steps lie at one place."""
        if earlier is None:
            return self
        torch._foreach_copy_(earlier.tensors, self.tensors)
        return earlier

    @property
    def tensors(self) -> list[Tensor]:
        return [tensor for tensor in self if tensor is not None]


def load_training_scene(
    root: Path, architecture: Architecture, options: SceneOptions
) -> tuple[Scene, SceneGeometry]:
    """The training views that see the grid, and the scene's geometry. Other views are left out,
    with a warning.

    Raises `InputError` for a scene that cannot be learned, with the reason (the checks of
    `scenes.check`, in brief).
    """
    sidelength = architecture.img_sidelength
    scene = load_scene(root, sidelength, options.sampling_pattern, options.background)
    geometry = scene_geometry(
        scene.intrinsics, architecture.grid_dim, architecture.proj_sidelength, options.near_plane
    )
    with np.errstate(all="ignore"):  # overflow ends in a verdict; numpy need not warn
        verdict = judge(
            scene.cam2world,
            scene.intrinsics.pinhole(sidelength),
            scene.intrinsics.grid(options.near_plane),
            scene.names,
        )
    if verdict.errors:
        raise InputError(f"{scene.root}: {'; '.join(verdict.errors)}")
    blind = verdict.blind
    if len(scene) - len(blind) < 2:
        raise InputError(
            f"{scene.root}: has {len(scene) - len(blind)} views that see the grid, training needs "
            "two; check origin, scale and near plane in intrinsics.txt"
        )
    rounded = rounded_poses(list_poses(scene.root / "pose"))
    for warning in filter(None, [rounded, *verdict.warnings]):
        print(f"warning: {scene.root}: {one_line(warning)}", file=sys.stderr)
    for view in blind:
        print(
            f"warning: {scene.root}/pose/{one_line(scene.names[view])}.txt: sees nothing of the "
            "grid and is left out",
            file=sys.stderr,
        )
    return scene.subset([i for i in range(len(scene)) if i not in blind]), geometry


def training_triplets(
    scene: Scene,
    num_targets: int,
    seed: int,
    steps: range,
    num_sources: int = 1,
) -> Iterator[tuple[int, Int[np.ndarray, "views"]]]:
    """Yields (step, triplet of view indices) for a range of steps.

    The range counts from 0, as steps taken; the yielded step counts from 1. A step has the same
    triplet wherever the range begins, so a resumed run continues exactly.
    """
    triplets = None
    for done in steps:
        epoch, position = divmod(done, len(scene))
        if triplets is None or position == 0:
            triplets = draw_triplets(scene.cam2world, num_targets, seed, epoch, num_sources)
        yield done + 1, triplets[position]


def load_batch(
    views: Views, triplet: Int[np.ndarray, "views"], num_sources: int = 1, ranks: Ranks = ALONE
) -> Batch:
    """The views of a triplet of view indices: source, target 0, target 1, ...

    With several ranks, this one's share of the targets. Where each target has a source of its own,
    this rank's share of the sources too.
    """
    sources = triplet[:num_sources]
    targets = ranks.share(triplet[num_sources:])
    if num_sources > 1:
        sources = ranks.share(sources)
    return Batch(
        views.pixels(sources), views.poses(sources), views.pixels(targets), views.poses(targets)
    )
