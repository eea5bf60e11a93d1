"""Checkpoints: saved so that none is ever lost, loaded as untrusted files; and the states of random
generators.

A checkpoint is a dict of tensors and plain values that `torch.load(weights_only=True)` reads:
`model` and `discriminator` with the original's names, both optimizers, step, epoch, random
generators, options, a checksum and, with `--average`, the model's averaged state, `average`.
"""

import math
import os
from pathlib import Path

import torch
from torch import Tensor, nn

from files.runs import named_in_text, sync_folder
from files.tensors import checksum, load_tensors
from util import InputError, new_file, open_file

CHECKPOINT_FORMAT = 1
MAX_TENSOR_NAME = 200  # the longest name of a model's tensors has about 120 characters
MAX_SIDELENGTH_LOG = 16  # where an architecture is inferred; the largest possible is 10
OTHER_CODE = "; other code may have written it, see docs/change_the_model.md"

# What a checkpoint may hold beside its tensors, where it holds it.
STATES = ("model", "discriminator", "average")
KINDS = {
    "model_optimizer": dict,
    "kernel_optimizer": dict,
    "discriminator_optimizer": dict,
    "optimizers_left_out": bool,
    "rng": dict,
    "options": dict,
    "intrinsics": dict,
    "scene": str,
    "step": int,
    "epoch": int,
    "setbacks": int,
    "skipped_in_a_row": int,
    "best": dict,
    "worse_in_a_row": int,
    "chosen_by": dict,
    "ranks": int,
    "seconds": float,
}
MAX_COUNT = {"setbacks": 100}  # each halves the learning rate
# What `best` and `chosen_by` hold: an `evaluation.held_out.HeldOutPsnr`
HELD_OUT = {"step": int, "psnr": float, "split": str, "views": int, "fingerprint": str}


def save_checkpoint(path: Path, checkpoint: dict, modified: int | None = None) -> None:
    """Writes a checkpoint atomically and durably: `path` holds the old file or all of the new one,
    never a part.

    modified: the file's time in ns, by which the newest checkpoint is found; now if None. Raises
    `OSError` that names `path`, or torch's RuntimeError.
    """
    content = {name: value for name, value in checkpoint.items() if name != "checksum"}
    content["format_version"] = CHECKPOINT_FORMAT
    content["checksum"] = checksum(content)
    with new_file(path) as file:
        torch.save(content, file)
        file.flush()
        os.fsync(file.fileno())
        if modified is not None:
            os.utime(file.name, ns=(modified, modified))
    sync_folder(path.parent)


def load_checkpoint(path: Path) -> dict:
    """Reads a checkpoint, ours or the original's, onto the CPU. A missing discriminator or average
    is an empty dict.

    Nothing but tensors and plain values is unpickled, from a regular file alone. Raises
    `InputError` for a file that is damaged, does not match its checksum or holds a part of another
    type than checkpoints have.
    """
    file_path = named_in_text(path) or path
    if os.path.isdir(file_path):
        raise InputError(f"{path}: is a folder, not a checkpoint")
    with open_file(file_path) as file:
        checkpoint = load_tensors(file, path)
    if not isinstance(checkpoint, dict) or not isinstance(checkpoint.get("model"), dict):
        raise InputError(f"{path}: is not a DeepVoxels checkpoint: it has no 'model'")
    _require_format(checkpoint, path)
    _require_checksum(checkpoint, path)
    for part in STATES:
        state = checkpoint.get(part, {})
        if not isinstance(state, dict) or not all(
            isinstance(name, str) and isinstance(value, Tensor) for name, value in state.items()
        ):
            raise InputError(f"{path}: its {part!r} is not a dict of tensors")
        checkpoint[part] = without_aliases(state)
    for part, kind in KINDS.items():
        if part in checkpoint:
            _require_kind(checkpoint[part], part, kind, path)
    return checkpoint


def _require_format(checkpoint: dict, path: Path) -> None:
    version = checkpoint.get("format_version", CHECKPOINT_FORMAT)
    if type(version) is not int or version != CHECKPOINT_FORMAT:
        raise InputError(
            f"{path}: has checkpoint format {str(version)[:20]}, "
            f"this program reads {CHECKPOINT_FORMAT}"
        )


def _require_checksum(checkpoint: dict, path: Path) -> None:
    """Takes the checksum out of a checkpoint, which has to match it. The original's have none."""
    recorded = checkpoint.pop("checksum", None)
    if recorded is None and "format_version" not in checkpoint:
        return
    if not isinstance(recorded, str) or recorded != checksum(
        checkpoint, recorded.partition(":")[0]
    ):
        raise InputError(f"{path}: is damaged: its content does not match its checksum")


def _require_kind(value, part: str, kind: type, path: Path) -> None:
    """Raises `InputError` unless a part of a checkpoint is of its type; numbers are finite and not
    negative, settings too are finite and hold no tensors."""
    fits = type(value) is kind or (kind is float and type(value) is int)
    if fits and kind in (int, float):
        fits = math.isfinite(value) and 0 <= value <= MAX_COUNT.get(part, 1 << 53)
    if fits and part in ("options", "intrinsics"):
        fits = all(isinstance(name, str) for name in value) and _is_setting(value)
    if fits and part in ("best", "chosen_by"):
        fits = {name: type(entry) for name, entry in value.items()} == HELD_OUT
        fits = fits and _is_setting(value)
    if not fits:
        raise InputError(f"{path}: its {part!r} is not what a checkpoint holds there")


def _is_setting(value) -> bool:
    """Whether nested values hold no tensors, and numbers that are finite."""
    if isinstance(value, dict):
        return all(map(_is_setting, value.values()))
    if isinstance(value, (list, tuple)):
        return all(map(_is_setting, value))
    if isinstance(value, float):
        return math.isfinite(value)
    return not isinstance(value, Tensor)


def tested_weights(checkpoint: dict) -> dict[str, Tensor]:
    """The model's state that tests use: the average of the weights if the checkpoint has one."""
    return checkpoint["average"] or checkpoint["model"]


def without_aliases(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A state dict without the second names that original checkpoints have for the weights of
    `Conv2dSame`."""

    def is_alias(name: str) -> bool:
        if name.endswith("out_layer_weight"):
            return name.removesuffix("_weight") + ".0.net.1.weight" in state
        module, _, tensor = name.rpartition(".")
        return f"{module}.net.1.{tensor}" in state

    return {name: value for name, value in state.items() if not is_alias(name)}


def recorded_architecture(state: dict[str, Tensor], path: Path) -> dict[str, int | bool]:
    """The architecture flags of the model with this state dict, inferred from names and shapes of
    its tensors."""

    def shape(name: str, dims: int) -> torch.Size:
        if not isinstance(state.get(name), Tensor):
            raise InputError(
                f"{path}: is not a complete DeepVoxels checkpoint: it has no tensor {name!r}"
            )
        if state[name].dim() != dims:
            raise InputError(
                f"{path}: its tensor {name!r} has {state[name].dim()} dimensions, not {dims}"
            )
        return state[name].shape

    volume = shape("deepvoxels", 5)
    if volume != (1, volume[1], *3 * volume[-1:]):
        raise InputError(f"{path}: its tensor 'deepvoxels' has shape {tuple(volume)}, no cube's")
    names = [name for name in state if len(name) <= MAX_TENSOR_NAME]
    # The feature map's U-Net has one skip block per halving down to 1x1, each nested one "model.1."
    # deeper.
    depth = 1
    block = "feature_extractor.net.1.unet_block.model."
    while any(name.startswith(block + "1.model.") for name in names):
        depth = depth + 1
        block = block + "1.model."
    halvings = len(
        {name.split(".")[4] for name in names if name.startswith("feature_extractor.net.0.downs.")}
    )
    first_layer = "0.downs.0.net.1" if halvings else "1.in_layer.0.net.1"
    return {
        "img_sidelength": 2 ** min(depth + halvings, MAX_SIDELENGTH_LOG),
        "proj_sidelength": 2**depth,
        "grid_dim": volume[-1],
        "num_grid_feats": volume[1],
        "nf0": shape(f"feature_extractor.net.{first_layer}.weight", 4)[0],
        "no_occlusion_net": any(name.startswith("depth_collapse_net.") for name in names),
    }


def require_tensors(
    state: dict[str, Tensor], wanted: dict[str, Tensor], path: Path, flags: str
) -> None:
    """Raises `InputError` that names the first tensor of a state dict that is not `wanted`, or
    missing, of another shape or of another type.

    Weights in half precision fit too. flags: what the model is built with, for the message.
    """
    for name, tensor in wanted.items():
        found = state.get(name)
        if not isinstance(found, Tensor):
            raise InputError(
                f"{path}: lacks the tensor {name!r}, which the model of {flags} has{OTHER_CODE}"
            )
        if found.shape != tensor.shape:
            raise InputError(
                f"{path}: its tensor {name!r} has shape {tuple(found.shape)}, "
                f"the model of {flags} needs {tuple(tensor.shape)}{OTHER_CODE}"
            )
        if found.dtype != tensor.dtype and not (
            found.dtype == torch.float16 and tensor.is_floating_point()
        ):
            raise InputError(
                f"{path}: its tensor {name!r} has type {found.dtype}, not {tensor.dtype}"
            )
    for name in state:
        if name not in wanted:
            raise InputError(
                f"{path}: has the tensor {name[:MAX_TENSOR_NAME]!r}, which the model of {flags} "
                f"does not have{OTHER_CODE}"
            )


def load_weights(module: nn.Module, state: dict[str, Tensor], path: Path, flags: str) -> None:
    """Loads a complete state dict, or raises `InputError` that names the first tensor that does not
    fit (`require_tensors`) or is not finite."""
    require_tensors(state, module.state_dict(), path, flags)
    for name, tensor in state.items():
        if not tensor.isfinite().all():
            raise InputError(f"{path}: its tensor {name!r} holds values that are not finite")
    module.load_state_dict(state)


def load_optimizer(optimizer: torch.optim.Optimizer, state: dict, path: Path) -> None:
    """Loads an optimizer's state, with moments laid out in memory like their parameters. Parameters
    that have never had a gradient have no moments.

    The optimizer keeps its own settings, and takes nothing from the state but numbers of steps and
    moments. Raises `InputError` if these belong to other parameters.
    """
    own = optimizer.state_dict()["param_groups"]
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    names = getattr(optimizer, "MOMENTS", ("step", "exp_avg", "exp_avg_sq"))
    try:
        if [group["params"] for group in state["param_groups"]] != [
            group["params"] for group in own
        ]:
            raise ValueError("it is of other groups of parameters")
        moments = state["state"]
        if not moments or not moments.keys() <= set(range(len(parameters))):
            raise ValueError("it holds no moments, or those of other parameters")
        # Fused Adam on the CPU pairs the wrong numbers if a moment's memory layout is not its
        # parameter's.
        copies = {
            index: {
                name: _copy_of_moment(moments[index][name], name, parameters[index])
                for name in names
            }
            for index in moments
        }
        optimizer.load_state_dict({"state": copies, "param_groups": own})
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise InputError(
            f"{path}: its optimizer state is not that of this model ({reason})"
        ) from None


def _copy_of_moment(value: Tensor, name: str, parameter: Tensor) -> Tensor:
    """A moment laid out in memory like its parameter, or the number of steps. Raises ValueError for
    values that no optimizer has."""
    like = torch.zeros(()) if name == "step" else parameter
    if value.shape != like.shape:
        raise ValueError("a moment has another shape than its parameter")
    if value.dtype != like.dtype:
        raise ValueError(f"a moment has type {value.dtype}")
    if not value.isfinite().all() or (name != "exp_avg" and (value < 0).any()):
        raise ValueError("a moment holds values that no optimizer has")
    return torch.empty_like(like).copy_(value)


def rng_states() -> dict[str, Tensor | list[Tensor]]:
    """The states of the random generators that training uses (for dropout)."""
    return {
        "cpu": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def restore_rng_states(states: dict[str, Tensor | list[Tensor]]) -> None:
    """The inverse of `rng_states`; states of devices that are not here are ignored."""
    torch.set_rng_state(states["cpu"])
    for device, state in zip(range(torch.cuda.device_count()), states["cuda"], strict=False):
        torch.cuda.set_rng_state(state, device)
