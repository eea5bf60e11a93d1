"""Solutions of the exercises in how_it_works.py. Try them yourself first.

Arrays are PyTorch's tensors. Letters in shapes are those of `deep_voxels`; n is any number of
points.
"""

import torch
from jaxtyping import Float
from torch import Tensor


def world2image(
    points: Float[Tensor, "n 3"],
    rotation: Float[Tensor, "3 3"],
    translation: Float[Tensor, "3"],
    camera: tuple[float, float, float],
) -> Float[Tensor, "n 3"]:
    """World points to (u, v, depth); u and v in pixels of the feature map."""
    focal, cx, cy = camera
    x, y, depth = (points @ rotation.T + translation).T
    u = focal * x / depth + cx
    v = focal * y / depth + cy
    return torch.stack([u, v, depth], dim=1)


def lift(
    features: Float[Tensor, "f m m"],
    u: Float[Tensor, "n"],
    v: Float[Tensor, "n"],
    depth: Float[Tensor, "n"],
) -> Float[Tensor, "f n"]:
    """The feature that each voxel takes from the feature map; 0 where the photo does not show
    it."""
    last = features.shape[-1] - 1
    in_width = (u.round() >= 0) & (u.round() <= last)
    in_height = (v.round() >= 0) & (v.round() <= last)
    shown = (depth > 0) & in_width & in_height

    u = u.clamp(0, last)
    v = v.clamp(0, last)
    left = u.long().clamp(max=last - 1)
    top = v.long().clamp(max=last - 1)
    across = u - left
    down = v - top
    upper = (1 - across) * features[:, top, left] + across * features[:, top, left + 1]
    lower = (1 - across) * features[:, top + 1, left] + across * features[:, top + 1, left + 1]
    return ((1 - down) * upper + down * lower) * shown


def update_memory(
    logits: Float[Tensor, "1 d d d"],
    memory: Float[Tensor, "f d d d"],
    proposal: Float[Tensor, "f d d d"],
) -> Float[Tensor, "f d d d"]:
    """The memory after one photo."""
    gate = torch.sigmoid(logits)
    return (1 - gate) * memory + gate * proposal


def collapse(
    features: Float[Tensor, "f depth m m"], visibility: Float[Tensor, "depth m m"]
) -> Float[Tensor, "f m m"]:
    """One feature vector for each ray."""
    return (visibility * features).mean(dim=1)
