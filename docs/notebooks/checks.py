"""Says whether an exercise of how_it_works.py is solved, and if not, how far off it is.

A function is right if it gives the numbers of the original code of 2019 that lie in tests/golden.
These have no voxel out of sight, so `lift` must also do there what `projection.lift` does.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from docs.notebooks import solutions
from projection import invert_rigid, lift, lift_coordinates, voxel_centers
from tests.golden.case import Case
from viewer.features import visibility_weights

RELATIVE = 2e-5  # of the largest value, as in tests/test_goldens.py
SOLVED: set[str] = set()


class Golden(Case):
    """The case of tests/golden that has an occlusion network, and what the exercises take from
    it."""

    def __init__(self):
        super().__init__("occlusion")

    @cached_property
    def uvd(self) -> Float[Tensor, "d d d 3"]:
        return lift_coordinates(self.poses[0], self.model.geometry)

    @cached_property
    def partly_out_of_sight(self) -> Float[Tensor, "d d d 3"]:
        """Half a map to the right, the nearer half of the grid behind the camera."""
        side = self.model.geometry.map_sidelength
        return self.uvd + torch.tensor([side / 2, 0, -float(self.uvd[..., 2].median())])

    @cached_property
    def gru(self) -> tuple[Tensor, Tensor, Tensor]:
        """What `update_memory` takes: the sums of equation (2), the old memory and the
        proposal."""
        net = self.model.integration_net
        outputs: dict[str, Tensor] = {}
        hooks = [
            getattr(net, name).register_forward_hook(
                lambda _, __, output, name=name: outputs.update({name: output[0]})
            )
            for name in ("update_new_net", "update_old_net", "new_integration", "old_integration")
        ]
        memory = self.model.deepvoxels
        net(torch.from_numpy(self.expected["lifted_volume"]), memory)
        for hook in hooks:
            hook.remove()
        logits = outputs["update_new_net"] + outputs["update_old_net"]
        proposal = torch.relu(outputs["new_integration"] + outputs["old_integration"])
        return logits, memory[0], proposal

    @cached_property
    def view_volumes(self) -> tuple[Float[Tensor, "v f depth m m"], Float[Tensor, "v depth m m"]]:
        """Canonical view volumes of all poses, and their visibility."""
        volumes = self.model.canonical_view_volumes(
            self.model.inpaint(self.model.deepvoxels), self.poses
        )
        return volumes, visibility_weights(self.model, volumes)


@dataclass(frozen=True)
class Exercise:
    """answer: the numbers that a student's function gives; expected: the right ones. mistakes: a
    hint, and the function that gives what the hint is for."""

    answer: Callable[[Golden, Callable], Tensor]
    expected: Callable[[Golden], np.ndarray]
    mistakes: dict[str, Callable]


def _world2image(golden: Golden, function: Callable) -> Tensor:
    geometry = golden.model.geometry
    points = voxel_centers(geometry, like=golden.poses).reshape(-1, 3)
    world2cam = invert_rigid(golden.poses[0])
    camera = geometry.focal, geometry.cx, geometry.cy
    return function(points, world2cam[:3, :3], world2cam[:3, 3], camera).T


def _lift(golden: Golden, function: Callable) -> Tensor:
    features = torch.from_numpy(golden.expected["source_features"])[0]
    places = (golden.uvd, golden.partly_out_of_sight)
    return torch.stack([function(features, *uvd.reshape(-1, 3).T) for uvd in places])


def _right_lift(golden: Golden) -> np.ndarray:
    features = torch.from_numpy(golden.expected["source_features"])
    beyond = lift(features, golden.partly_out_of_sight).numpy()
    lifted = np.concatenate([golden.expected["lifted_volume"], beyond])
    return lifted.reshape(*lifted.shape[:2], -1)


def _update_memory(golden: Golden, function: Callable) -> Tensor:
    return function(*golden.gru)[None]


def _collapse(golden: Golden, function: Callable) -> Tensor:
    """The images that the original's rendering network draws from the collapsed features."""
    collapsed = [function(*view) for view in zip(*golden.view_volumes, strict=True)]
    return golden.model.rendering_net(torch.stack(collapsed))


def _undivided(points, rotation, translation, camera) -> Tensor:
    focal, cx, cy = camera
    x, y, depth = (points @ rotation.T + translation).T
    return torch.stack([focal * x + cx * depth, focal * y + cy * depth, depth], dim=1)


def _without_middle(points, rotation, translation, camera) -> Tensor:
    return solutions.world2image(points, rotation, translation, (camera[0], 0, 0))


def _everywhere(features, u, v, depth) -> Tensor:
    last = features.shape[-1] - 1
    return solutions.lift(features, u.clamp(0, last), v.clamp(0, last), depth.abs())


EXERCISES = {
    "world2image": Exercise(
        _world2image,
        lambda golden: golden.expected["lift_coords"],
        {
            "u and v must be divided by the depth": _undivided,
            "the rotation is transposed: each row of `points` is a vector x, and R x is "
            "`points @ rotation.T`": lambda points, rotation, *rest: solutions.world2image(
                points, rotation.T, *rest
            ),
            "the principal point (cx, cy) is missing": _without_middle,
        },
    ),
    "lift": Exercise(
        _lift,
        _right_lift,
        {
            "a voxel that the photo does not show must take 0": _everywhere,
            "u and v are exchanged: a feature map is indexed [feature, row, column], the row is "
            "v": lambda features, *uvd: solutions.lift(features.mT, *uvd),
            "this is the nearest pixel; mix the four around (u, v)": lambda features, u, v, depth: (
                solutions.lift(features, u.round(), v.round(), depth)
            ),
        },
    ),
    "update_memory": Exercise(
        _update_memory,
        lambda golden: golden.expected["hidden_state"],
        {
            "the gate is the sigmoid of the sums": lambda sums, memory, proposal: (
                (1 - sums) * memory + sums * proposal
            ),
            "an open gate (1) must take the proposal, a closed one (0) keep the memory; here it "
            "is the other way round": lambda sums, *volumes: solutions.update_memory(
                -sums, *volumes
            ),
        },
    ),
    "collapse": Exercise(
        _collapse,
        lambda golden: golden.expected["test_images"],
        {
            "this is the sum over the planes; the code takes the mean": lambda features, weights: (
                weights * features
            ).sum(dim=1),
            "this leaves the visibility out": lambda features, weights: features.mean(dim=1),
            "this takes the most visible plane alone": lambda features, weights: solutions.collapse(
                features, weights * (weights == weights.amax(dim=0))
            ),
        },
    ),
}


def check(function: Callable) -> None:
    """Prints whether the function is right, or how far off it is."""
    name = function.__name__
    with torch.no_grad():
        verdict = _what_is_wrong(EXERCISES[name], function)
    SOLVED.discard(name)
    if verdict is None:
        SOLVED.add(name)
        verdict = f"right. All {EXERCISES[name].expected(_golden()).size:,} numbers agree."
    print(f"{name}: {verdict}")


def score() -> None:
    """Prints how many exercises are solved, and which are left."""
    left = [name for name in EXERCISES if name not in SOLVED]
    rest = f" Left: {', '.join(left)}." if left else ""
    print(f"{len(SOLVED)} of {len(EXERCISES)} exercises are right.{rest}")


@cache
def _golden() -> Golden:
    return Golden()


def _what_is_wrong(exercise: Exercise, function: Callable) -> str | None:
    """What is wrong, None if nothing is."""
    golden = _golden()
    expected = exercise.expected(golden)
    try:
        actual = exercise.answer(golden, _watched(function)).numpy()
    except Exception as error:  # whatever a student's code may raise
        if "ellipsis" in str(error).lower():  # the text of an exercise has `...` where code is due
            return "not filled in yet: put your code in the place of every `...`."
        return f"not yet: {type(error).__name__}: {str(error).splitlines()[0]}"
    if _close(actual, expected):
        return None
    for hint, mistaken in exercise.mistakes.items():
        if _close(actual, exercise.answer(golden, mistaken).numpy()):
            return f"not yet: {hint}."
    off = np.abs(actual - expected)
    share = np.mean(off <= RELATIVE * np.abs(expected).max())
    return (
        f"not yet: {100 * share:.0f} % of the numbers are right; the largest difference is "
        f"{off.max():.3g}, and the right numbers go from {expected.min():.3g} to "
        f"{expected.max():.3g}."
    )


def _watched(function: Callable) -> Callable:
    """The function, which raises where its result has another shape than the solution's."""
    solution = getattr(solutions, function.__name__)

    def watched(*given) -> Tensor:
        result = function(*given)
        if not isinstance(result, Tensor):
            raise TypeError(f"it returns {repr(result):.40} in place of a tensor")
        expected = tuple(solution(*given).shape)
        if result.shape != expected:
            raise ValueError(f"the result has the shape {tuple(result.shape)}, not {expected}")
        return result

    return watched


def _close(actual: np.ndarray, expected: np.ndarray) -> bool:
    return bool(np.abs(actual - expected).max() <= RELATIVE * np.abs(expected).max())
