"""Checkpoints: saved so that none is ever lost, loaded as untrusted files; and the states of random
generators.

A checkpoint is a dict of tensors and plain values that `torch.load(weights_only=True)` reads:
`model` and `discriminator` with the original's names, both optimizers, step, epoch, random
generators, options, a checksum and, with `--average`, the model's averaged state, `average`.
"""

import hashlib
import json
import os
import zipfile
from pathlib import Path

import torch
from torch import Tensor, nn

from util import InputError, new_file, read_text

CHECKPOINT_FORMAT = 1
LATEST = "latest.pth"
MAX_NAME_BYTES = 255  # of a file; any checkpoint is larger
MAX_HISTORY_BYTES = (
    1 << 26
)  # of a run's options.json, which records every start: some 30,000 of them
MAX_VALUES = 1_000_000  # a checkpoint of the paper's model holds about 5,000


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


def newest_checkpoint(folder: Path) -> Path | None:
    """The checkpoint that `latest.pth` in a run's folder points at, if there is one."""
    latest = folder / LATEST
    return newest if latest.is_file() and (newest := follow(latest)).is_file() else None


def checkpoints_by_step(folder: Path) -> list[Path]:
    """The checkpoints that a run's folder holds, by their steps."""
    paths = {
        int(path.stem.rpartition("_")[2]): path
        for path in folder.glob("model-epoch_*_iter_*.pth")
        if path.stem.rpartition("_")[2].isdecimal()
    }
    return [paths[step] for step in sorted(paths)]


def point_latest_at(path: Path) -> None:
    """Makes `latest.pth` beside a checkpoint a link to it, atomically; a file with its name where
    links cannot be made (Windows without the right to, some file systems)."""
    part = path.with_name(f".{LATEST}.part")
    part.unlink(missing_ok=True)
    try:
        part.symlink_to(path.name)
    except OSError:
        part.write_text(path.name, encoding="utf-8")
    os.replace(part, path.with_name(LATEST))


def follow(path: Path) -> Path:
    """The checkpoint that a path names: that which `point_latest_at` chose if it is a `latest.pth`,
    else its own."""
    path = path.resolve()
    if path.name == LATEST and path.is_file() and path.stat().st_size <= MAX_NAME_BYTES:
        return path.with_name(Path(read_text(path)).name)
    return path


def latest_checkpoint(logging_root: Path, experiment_name: str = "") -> Path | None:
    """The newest complete checkpoint of the runs under a logging root, or of those begun with this
    name, if any."""
    runs = [
        run
        for run in logging_root.glob("logs/*/*")
        if not experiment_name or _begun_as(run) == experiment_name
    ]
    newest = [path for run in runs if (path := newest_checkpoint(run))]
    return max(newest, key=lambda path: path.stat().st_mtime_ns, default=None)


def find_checkpoint(checkpoint: str, logging_root: Path | None) -> Path:
    """The file that `--checkpoint FILE|latest` names. Raises `InputError` if there is none under
    the logging root."""
    if checkpoint != "latest":
        return Path(checkpoint)
    if logging_root is None:
        raise InputError("--checkpoint latest: needs --logging_root")
    newest = latest_checkpoint(logging_root)
    if newest is None:
        raise InputError(f"--checkpoint latest: there is no checkpoint under {logging_root}/logs")
    return newest


def _begun_as(run: Path) -> str | None:
    """The --experiment_name that a run was begun with. A resumed run may have been given
    another."""
    try:
        history = json.loads(read_text(run / "options.json", MAX_HISTORY_BYTES))["history"]
        return history[0]["options"]["experiment_name"]
    except (
        InputError,
        IndexError,
        KeyError,
        TypeError,
        ValueError,
    ):  # a run of the original code has no such file
        return None


def load_checkpoint(path: Path) -> dict:
    """Reads a checkpoint, ours or the original's, onto the CPU. A missing discriminator or average
    is an empty dict.

    Nothing but tensors and plain values is unpickled, and loading takes no more memory than the
    file's size. Raises `InputError` for a file that is damaged or does not match its checksum.
    """
    try:
        file = follow(path)
        _refuse_inflated(file)
        checkpoint = torch.load(file, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise InputError(f"{path}: is a folder, not a checkpoint") from None
    except InputError:
        raise
    except Exception as error:  # torch raises a dozen types for files that are not checkpoints
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise InputError(f"{path}: is not a checkpoint that can be read ({reason})") from None
    if not isinstance(checkpoint, dict) or not isinstance(checkpoint.get("model"), dict):
        raise InputError(f"{path}: is not a DeepVoxels checkpoint: it has no 'model'")
    if checkpoint.get("format_version", CHECKPOINT_FORMAT) != CHECKPOINT_FORMAT:
        raise InputError(
            f"{path}: has checkpoint format {checkpoint['format_version']}, "
            f"this program reads {CHECKPOINT_FORMAT}"
        )
    _refuse_damaged(path, checkpoint)
    for part in ("model", "discriminator", "average"):
        state = checkpoint.get(part, {})
        if not isinstance(state, dict) or not all(
            isinstance(name, str) and isinstance(value, Tensor) for name, value in state.items()
        ):
            raise InputError(f"{path}: its {part!r} is not a dict of tensors")
        checkpoint[part] = without_aliases(state)
    return checkpoint


def _refuse_damaged(path: Path, checkpoint: dict) -> None:
    """Takes the checksum out of a checkpoint. Raises `InputError` if the rest does not match it."""
    try:
        recorded = checkpoint.pop("checksum", None)
        if checksum(checkpoint) != recorded and (
            recorded is not None or "format_version" in checkpoint
        ):
            raise InputError(f"{path}: is damaged: its content does not match its checksum")
    except (TypeError, ValueError) as error:
        raise InputError(f"{path}: is not a checkpoint that can be read ({error})") from None


def tested_weights(checkpoint: dict) -> dict[str, Tensor]:
    """The model's state that tests use: the average of the weights if the checkpoint has one."""
    return checkpoint["average"] or checkpoint["model"]


def checksum(content) -> str:
    """SHA-256 of the types, names and values of nested dicts, lists, tensors and scalars.

    Raises TypeError for any other type, ValueError for more than `MAX_VALUES` values and for
    tensors that are larger than their storage.
    """
    digest = hashlib.sha256()
    left = [MAX_VALUES]

    def add(value) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise ValueError("it nests too many values")
        digest.update(f"{type(value).__name__}:".encode())
        if isinstance(value, dict):
            for key, entry in value.items():
                add(key)
                add(entry)
        elif isinstance(value, (list, tuple)):
            for entry in value:
                add(entry)
        elif isinstance(value, Tensor):
            if value.numel() * value.element_size() > value.untyped_storage().nbytes():
                raise ValueError("it has a tensor that is larger than its storage")
            digest.update(f"{value.dtype}{tuple(value.shape)}".encode())
            digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
        elif value is None or isinstance(value, (bool, int, float, str)):
            digest.update(repr(value).encode("utf-8", "surrogatepass"))
        else:
            raise TypeError(f"it holds a {type(value).__name__}")
        digest.update(b";")

    add(content)
    return digest.hexdigest()


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
    # The feature map's U-Net has one skip block per halving down to 1x1, each nested one "model.1."
    # deeper.
    depth = 1
    block = "feature_extractor.net.1.unet_block.model."
    while any(name.startswith(block + "1.model.") for name in state):
        depth = depth + 1
        block = block + "1.model."
    halvings = len(
        {name.split(".")[4] for name in state if name.startswith("feature_extractor.net.0.downs.")}
    )
    first_layer = "0.downs.0.net.1" if halvings else "1.in_layer.0.net.1"
    return {
        "img_sidelength": 2 ** (depth + halvings),
        "proj_sidelength": 2**depth,
        "grid_dim": volume[-1],
        "num_grid_feats": volume[1],
        "nf0": shape(f"feature_extractor.net.{first_layer}.weight", 4)[0],
        "no_occlusion_net": any(name.startswith("depth_collapse_net.") for name in state),
    }


def load_weights(module: nn.Module, state: dict[str, Tensor], path: Path, flags: str) -> None:
    """Loads a complete state dict, or raises `InputError` that names the first tensor that does not
    fit.

    Weights in half precision fit too. flags: what the module was built with, for the message.
    """
    wanted = module.state_dict()
    for name, tensor in wanted.items():
        found = state.get(name)
        if not isinstance(found, Tensor):
            raise InputError(f"{path}: lacks the tensor {name!r}, which the model of {flags} has")
        if found.shape != tensor.shape:
            raise InputError(
                f"{path}: its tensor {name!r} has shape {tuple(found.shape)}, "
                f"the model of {flags} needs {tuple(tensor.shape)}"
            )
        if found.dtype != tensor.dtype and not (
            found.dtype == torch.float16 and tensor.is_floating_point()
        ):
            raise InputError(
                f"{path}: its tensor {name!r} has type {found.dtype}, not {tensor.dtype}"
            )
        if not found.isfinite().all():
            raise InputError(f"{path}: its tensor {name!r} holds values that are not finite")
    for name in state:
        if name not in wanted:
            raise InputError(
                f"{path}: has the tensor {name!r}, which the model of {flags} does not have"
            )
    module.load_state_dict(state)


def load_optimizer(optimizer: torch.optim.Optimizer, state: dict, path: Path) -> None:
    """Loads an optimizer's state, with moments laid out in memory like their parameters. Parameters
    that have never had a gradient have no moments.

    Raises `InputError` if it belongs to other parameters.
    """
    try:
        optimizer.load_state_dict(state)
        if not optimizer.state:
            raise ValueError("it holds no moments")
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                if parameter not in optimizer.state:
                    continue
                moments = optimizer.state[parameter]
                for name in getattr(optimizer, "MOMENTS", ("exp_avg", "exp_avg_sq")):
                    if moments[name].shape != parameter.shape:
                        raise ValueError("a moment has another shape than its parameter")
                    # Fused Adam on the CPU pairs the wrong numbers if a moment's memory layout is
                    # not its parameter's.
                    moments[name] = torch.empty_like(parameter).copy_(moments[name])
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise InputError(
            f"{path}: its optimizer state is not that of this model ({reason})"
        ) from None


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


def sync_folder(folder: Path) -> None:
    """Makes a rename in the folder survive a power cut. Windows cannot open folders, and does it by
    itself."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _refuse_inflated(path: Path) -> None:
    """Raises `InputError` for compressed records: torch writes none, and they could unpack to any
    size."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            records = archive.infolist()
        if (
            any(record.compress_type != zipfile.ZIP_STORED for record in records)
            or sum(record.file_size for record in records) > path.stat().st_size
        ):
            raise InputError(f"{path}: is not a checkpoint: it holds compressed records")
