"""LPIPS (Zhang et al., 2018): how different two images look, 0 for equal ones. It is the distance
of their features in a network that was trained on ImageNet."""

from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock

import numpy as np
import torch
from jaxtyping import Float

from machine.installed import is_installed
from util import InputError, one_line

Image = Float[np.ndarray, "h w 3"]  # in [0, 1]
PerceptualDistance = Callable[[Image, Image], float]


@dataclass(frozen=True)
class Network:
    """A network whose features are compared. key: torchmetrics' name for it. files: the names of
    its weights in torchvision's cache. label: of the measure, in tables."""

    key: str
    name: str
    files: str
    label: str


# By the name of the measure, in metrics.json, and of the flag that asks for it.
NETWORKS = {
    "lpips": Network("alex", "AlexNet", "alexnet-*.pth", "LPIPS"),
    "lpips_vgg": Network("vgg", "VGG16", "vgg16-*.pth", "LPIPS (VGG)"),
}


def load_lpips(measure: str) -> PerceptualDistance:
    """Returns the distance that a measure of `NETWORKS` names. Threads may call it.

    The network's weights are those of torchvision, which downloads them once into its cache. Raises
    `InputError` where they, or a package, cannot be had.
    """
    for package in ("torchmetrics", "torchvision"):
        if not is_installed(package):
            raise InputError(f"--{measure}: {package} is not installed (pip install {package})")

    from torchmetrics.image.lpip import (
        LearnedPerceptualImagePatchSimilarity,
    )  # takes a second; few tests want it

    network = NETWORKS[measure]
    try:
        metric = LearnedPerceptualImagePatchSimilarity(network.key, normalize=True)
        lock = Lock()
    except Exception as error:  # no network, a damaged file: whatever torchvision lets through
        raise InputError(
            f"--{measure}: the weights of {network.name} cannot be had ({one_line(str(error))}); "
            f"torchvision looks for {network.files} in {torch.hub.get_dir()}/checkpoints and "
            "downloads it if it is not there"
        ) from None

    def distance(image: Image, truth: Image) -> float:
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
