"""Checkpoints, run folders, seeds, and the one exception for what a user can get wrong."""
import json
import os
import platform
import subprocess
from datetime import datetime
from pathlib import Path

import numpy as np
import torch
import torchvision
from torch import Tensor, nn

CHECKPOINT_FORMAT = 1


class InputError(Exception):
    """A file, flag or folder of the user's is wrong. The message is one line that names it; commands exit with 2."""


def save_checkpoint(path: Path, checkpoint: dict) -> None:
    """Writes a checkpoint so that `path` holds either the old file or the complete new one, never a part of it."""
    part = path.with_name(f".{path.name}.part")
    try:
        with open(part, "wb") as file:
            torch.save(checkpoint, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def load_checkpoint(path: Path) -> dict:
    """Reads a checkpoint, ours or the original's, onto the CPU. Only tensors and plain values are ever unpickled."""
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise InputError(f"{path}: is a folder, not a checkpoint") from None
    except Exception as error:  # torch raises a dozen kinds for files that are not checkpoints
        reason = str(error).strip().splitlines()[0][:120] if str(error).strip() else type(error).__name__
        raise InputError(f"{path}: is not a checkpoint that can be read ({reason})") from None
    if not isinstance(checkpoint, dict) or not isinstance(checkpoint.get("model"), dict):
        raise InputError(f"{path}: is not a DeepVoxels checkpoint: it has no 'model'")
    if checkpoint.get("format_version", CHECKPOINT_FORMAT) != CHECKPOINT_FORMAT:
        raise InputError(f"{path}: has checkpoint format {checkpoint['format_version']}, "
                         f"this program reads {CHECKPOINT_FORMAT}")
    for part in ("model", "discriminator"):
        checkpoint[part] = without_aliases(checkpoint.get(part, {}))
    return checkpoint


def without_aliases(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A state dict without the second names under which original checkpoints store the weights of `Conv2dSame`."""
    def is_alias(name: str) -> bool:
        if name.endswith("out_layer_weight"):
            return name.removesuffix("_weight") + ".0.net.1.weight" in state
        module, _, tensor = name.rpartition(".")
        return f"{module}.net.1.{tensor}" in state

    return {name: value for name, value in state.items() if not is_alias(name)}


def recorded_architecture(state: dict[str, Tensor], path: Path) -> dict[str, int | bool]:
    """The architecture flags with which the model of this state dict was built, read off its tensors' shapes."""
    def shape(name: str) -> torch.Size:
        if not isinstance(state.get(name), Tensor):
            raise InputError(f"{path}: is not a complete DeepVoxels checkpoint: it has no tensor {name!r}")
        return state[name].shape

    volume = shape("deepvoxels")
    if len(volume) != 5:
        raise InputError(f"{path}: its tensor 'deepvoxels' has shape {tuple(volume)}, not (1, features, z, y, x)")
    # The map's U-Net has one skip block a halving down to 1x1, each nested one "model.1." deeper.
    depth, block = 1, "feature_extractor.net.1.unet_block.model."
    while any(name.startswith(block + "1.model.") for name in state):
        depth, block = depth + 1, block + "1.model."
    halvings = len({name.split(".")[4] for name in state if name.startswith("feature_extractor.net.0.downs.")})
    first_layer = "downs.0.net.1" if halvings else None
    nf0 = shape(f"feature_extractor.net.0.{first_layer}.weight" if first_layer
                else "feature_extractor.net.1.in_layer.0.net.1.weight")[0]
    return {"img_sidelength": 2 ** (depth + halvings), "proj_sidelength": 2 ** depth, "grid_dim": volume[-1],
            "num_grid_feats": volume[1], "nf0": nf0,
            "no_occlusion_net": any(name.startswith("depth_collapse_net.") for name in state)}


def load_weights(module: nn.Module, state: dict[str, Tensor], path: Path, flags: str) -> None:
    """Loads a state dict whole or raises `InputError`, which names the first tensor that does not fit and `flags`,
    those that the module was built with."""
    wanted = module.state_dict()
    for name, tensor in wanted.items():
        if not isinstance(state.get(name), Tensor):
            raise InputError(f"{path}: lacks the tensor {name!r}, which the model of {flags} has")
        if state[name].shape != tensor.shape:
            raise InputError(f"{path}: its tensor {name!r} has shape {tuple(state[name].shape)}, "
                             f"the model of {flags} needs {tuple(tensor.shape)}")
    for name in state:
        if name not in wanted:
            raise InputError(f"{path}: has the tensor {name!r}, which the model of {flags} has not")
    module.load_state_dict(state)


def rng_states() -> dict[str, Tensor | list[Tensor]]:
    """The states of the random generators that training draws from (dropout)."""
    return {"cpu": torch.get_rng_state(), "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []}


def restore_rng_states(states: dict[str, Tensor | list[Tensor]]) -> None:
    """The inverse of `rng_states`; generators of devices that are not here are left alone."""
    torch.set_rng_state(states["cpu"])
    for device, state in zip(range(torch.cuda.device_count()), states["cuda"], strict=False):
        torch.cuda.set_rng_state(state, device)


def make_run_folder(root: Path, *kinds: str, name: str) -> list[Path]:
    """New folders `root/KIND/MM_DD/HH-MM-SS_name`, the same for every kind, as the original names them."""
    now = datetime.now()
    stem = "_".join(part for part in (now.strftime("%H-%M-%S"), name) if part)
    for attempt in range(1000):
        run = Path(now.strftime("%m_%d")) / (stem if attempt == 0 else f"{stem}_{attempt + 1}")
        folders = [root / kind / run for kind in kinds]
        try:
            folders[0].mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            raise InputError(f"--logging_root {root}: cannot be written ({error.strerror})") from None
        for folder in folders[1:]:
            folder.mkdir(parents=True)
        return folders
    raise InputError(f"--logging_root {root}: holds too many runs named {stem}")


def write_json(path: Path, content: dict) -> None:
    """Writes JSON that a person can read."""
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def describe_machine(device: torch.device) -> dict[str, str | int]:
    """Versions, device and git commit: what a run's `options.json` says about where it ran."""
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True,
                            check=False).stdout.strip()
    return {"python": platform.python_version(), "torch": torch.__version__, "torchvision": torchvision.__version__,
            "numpy": np.__version__, "git_commit": commit or "unknown", "threads": torch.get_num_threads(),
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or "cpu"}
