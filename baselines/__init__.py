"""The methods that the paper compares DeepVoxels with (section 4, 'Baselines'), behind `--model`.

    python run_deepvoxels.py --train_test train --model pix2pix --data_root SCENE/train
        --logging_root LOGS

Each is an `nn.Module` with DeepVoxels' constructor and call: (architecture, geometry), then (source
image, source pose, target poses) to a `Rendering` and, where DeepVoxels gives its new volume, None.
So the same loop trains them with the same losses and the same discriminator, and the same test code
renders them. A model `FROM_SOURCE` takes a source for each target.
"""

from dataclasses import fields
from pathlib import Path

from torch import nn

from baselines.nearest_neighbor import NearestNeighbor
from baselines.pix2pix import Pix2Pix
from baselines.tatarchenko import Tatarchenko
from baselines.worrall import Worrall
from checkpoints import recorded_architecture
from deep_voxels import Architecture, DeepVoxels
from projection import SceneGeometry
from util import InputError

MODELS = {
    "deepvoxels": DeepVoxels,
    "nearest_neighbor": NearestNeighbor,
    "tatarchenko": Tatarchenko,
    "worrall": Worrall,
    "pix2pix": Pix2Pix,
}
UNTRAINED = {"nearest_neighbor"}
FROM_SOURCE = {
    "nearest_neighbor",
    "tatarchenko",
    "worrall",
}  # these render a view from the nearest training view


def build_model(name: str, architecture: Architecture, geometry: SceneGeometry) -> nn.Module:
    """The model that `--model` names, freshly initialised."""
    return MODELS[name](architecture, geometry)


def recorded_model(checkpoint: dict, path: Path) -> dict[str, str | int | bool]:
    """The model of a checkpoint and its architecture, as the flags that say them.

    Those of DeepVoxels are read off its tensors, which original checkpoints have too; a baseline's
    are in its options.
    """
    options = checkpoint.get("options")
    name = options.get("model", "deepvoxels") if isinstance(options, dict) else "deepvoxels"
    if name == "deepvoxels":
        return {"model": name, **recorded_architecture(checkpoint["model"], path)}
    flags = {field.name: options.get(field.name) for field in fields(Architecture)}
    if name not in set(MODELS) - UNTRAINED or [type(value) for value in flags.values()] != [
        field.type for field in fields(Architecture)
    ]:
        raise InputError(
            f"{path}: is a checkpoint of the model {str(name)[:40]!r}, whose architecture is not "
            "known"
        )
    return {"model": name, **flags}
