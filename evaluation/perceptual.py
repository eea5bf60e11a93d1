"""LPIPS, how different two images look (Zhang et al., 2018): the distance of their features in
AlexNet (`--lpips`)."""

from collections.abc import Callable
from threading import Lock

import numpy as np
import torch
from jaxtyping import Float

from util import InputError, one_line


def load_lpips() -> Callable[[Float[np.ndarray, "h w 3"], Float[np.ndarray, "h w 3"]], float]:
    """Returns the distance of two images in [0, 1]; 0 for equal ones. Threads may call it.

    AlexNet's weights, trained on ImageNet, are those of torchvision, which downloads them once into
    its cache. Raises `InputError` where they cannot be had.
    """
    from torchmetrics.image.lpip import (
        LearnedPerceptualImagePatchSimilarity,
    )  # takes a second; few tests want it

    try:
        metric = LearnedPerceptualImagePatchSimilarity("alex", normalize=True)
        lock = Lock()
    except Exception as error:  # no network, a damaged file: whatever torchvision lets through
        raise InputError(
            f"--lpips: the weights of AlexNet cannot be had ({one_line(str(error))}); torchvision "
            "looks "
            f"for alexnet-*.pth in {torch.hub.get_dir()}/checkpoints and downloads it if it is not "
            "there"
        ) from None

    def distance(image: Float[np.ndarray, "h w 3"], truth: Float[np.ndarray, "h w 3"]) -> float:
        pair = [
            torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))[None]
            .float()
            .clamp(0, 1)
            for pixels in (image, truth)
        ]
        with lock, torch.no_grad():
            value = float(metric(*pair))
            metric.reset()  # it would keep every value for an average
        return value

    return distance
