"""The methods that the paper compares DeepVoxels with (section 4, 'Baselines'), behind `--model`.

    python run_deepvoxels.py --train_test train --model pix2pix --data_root SCENE/train
        --logging_root LOGS

Each is an `nn.Module` with DeepVoxels' constructor and call: (architecture, geometry), then (source
image, source pose, target poses) to a `Rendering` and, where DeepVoxels gives its new volume, None.
So the same loop trains them with the same losses and the same discriminator, and the same test code
renders them. A model `NEEDS_SOURCE_VIEW` takes a source for each target.

`nearest_neighbor`, `tatarchenko`, `worrall` and `pix2pix` hold one model each. `autoencoder` is
what `tatarchenko` and `worrall` share. `width` finds how wide a model must be to have as many
parameters as DeepVoxels.
"""

from dataclasses import fields
from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from baselines.nearest_neighbor import NearestNeighbor
from baselines.pix2pix import Pix2Pix
from baselines.tatarchenko import Tatarchenko
from baselines.width import any_geometry
from baselines.worrall import Worrall
from checkpoints import recorded_architecture, require_tensors
from deep_voxels import Architecture, DeepVoxels, check_architecture, describe
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
NEEDS_SOURCE_VIEW = {
    "nearest_neighbor",
    "tatarchenko",
    "worrall",
}  # these render a view from the nearest training view


def build_model(name: str, architecture: Architecture, geometry: SceneGeometry) -> nn.Module:
    """The model that `--model` names, freshly initialised."""
    return MODELS[name](architecture, geometry)


@cache
def expected_tensors(name: str, architecture: Architecture) -> dict[str, Tensor]:
    """The state of a model by its names, shapes and types, without memory."""
    with WithoutMemory():
        return build_model(name, architecture, any_geometry(architecture)).state_dict()


class WithoutMemory(TorchFunctionMode):
    """What layers allocate in the block has shapes and types alone. `torch.device("meta")` would
    import a second of packages for the first arithmetic on it."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func in (torch.empty, torch.zeros, torch.ones):
            kwargs = {**kwargs, "device": "meta"}
        return func(*args, **kwargs)


def recorded_model(checkpoint: dict, path: Path) -> dict[str, str | int | bool]:
    """The model of a checkpoint and its architecture, as the flags that set them.

    Those of DeepVoxels are read off its tensors, which original checkpoints have too; a baseline's
    are in its options. Raises `InputError` unless the checkpoint holds the tensors of just that
    model, so that no model is built that is larger than its file.
    """
    options = checkpoint.get("options", {})
    name = options.get("model", "deepvoxels")
    if name == "deepvoxels":
        flags = recorded_architecture(checkpoint["model"], path)
    else:
        flags = {field.name: options.get(field.name) for field in fields(Architecture)}
        known = isinstance(name, str) and name in set(MODELS) - UNTRAINED
        if not known or [type(value) for value in flags.values()] != [
            field.type for field in fields(Architecture)
        ]:
            raise InputError(
                f"{path}: is a checkpoint of the model {str(name)[:40]!r}, whose architecture is "
                "not known"
            )
    architecture = Architecture(**flags)
    try:
        check_architecture(architecture)
    except InputError as error:
        raise InputError(f"{path}: its model cannot be built: {error}") from None
    for part in ("model", "average"):
        if state := checkpoint.get(part):
            expected = expected_tensors(name, architecture)
            require_tensors(state, expected, path, describe(architecture))
    return {"model": name, **flags}
