"""The state of a run: what a checkpoint holds, what `--resume` restores, what `--checkpoint` starts
from, and what a run goes back to when its numbers are not finite."""

from argparse import Namespace
from dataclasses import asdict
from pathlib import Path

import torch

from checkpoints import (
    load_checkpoint,
    load_optimizer,
    load_weights,
    restore_rng_states,
    rng_states,
    tested_weights,
)
from dataio import Scene
from deep_voxels import architecture_of, describe
from machine.ranks import Ranks
from projection import SceneGeometry
from training.networks import Networks, build_networks
from util import InputError

MAX_SETBACKS = 5


def begin(
    opt: Namespace,
    scene: Scene,
    geometry: SceneGeometry,
    checkpoint: dict | None,
    ranks: Ranks,
) -> tuple[Networks, int]:
    """The networks that a run begins with, and the number of steps that they have behind them.

    `checkpoint` is that of `--resume`, which is continued exactly, or of `--checkpoint`, whose
    weights are the start.
    """
    networks = build_networks(opt, geometry, torch.device(opt.device), ranks)
    if opt.resume:
        return networks, restore(networks, checkpoint, scene, opt)
    if opt.checkpoint:
        start_from(networks, checkpoint, opt)
    return networks, opt.start_epoch * len(scene)


def go_back(
    opt: Namespace,
    scene: Scene,
    geometry: SceneGeometry,
    saved: list[Path],
    ranks: Ranks,
) -> tuple[Networks, int, Path | None]:
    """`begin` from the newest whole one of the checkpoints that this process has `saved`, or as at
    first if there is none. Returns the checkpoint too. The first rank reads it for all; `saved` is
    its own."""
    for path in reversed(ranks.from_first(lambda: saved)):
        checkpoint = ranks.from_first(lambda path=path: _checkpoint_if_whole(path))
        if checkpoint is None:
            continue
        try:
            resumed = Namespace(**{**vars(opt), "resume": str(path)})
            return *begin(resumed, scene, geometry, checkpoint, ranks), path
        except InputError:
            continue
    source = opt.resume or opt.checkpoint
    checkpoint = ranks.from_first(lambda: load_checkpoint(Path(source))) if source else None
    return *begin(opt, scene, geometry, checkpoint, ranks), source and Path(source)


def _checkpoint_if_whole(path: Path) -> dict | None:
    try:
        return load_checkpoint(path)
    except InputError:
        return None


def snapshot(opt: Namespace, networks: Networks, scene: Scene, step: int, epoch: int) -> dict:
    """The content of a checkpoint, from which `--resume` continues exactly."""
    content = {
        "model": networks.model.state_dict(),
        "discriminator": networks.discriminator.state_dict(),
        **{name: optimizer.state_dict() for name, optimizer in networks.optimizers.items()},
        "step": step,
        "epoch": epoch,
        "setbacks": networks.setbacks,
        "skipped_in_a_row": networks.skipped_in_a_row,
        "seconds": networks.seconds,
        "rng": rng_states(),
        "scene": scene.fingerprint,
        "intrinsics": asdict(scene.intrinsics),
        "options": vars(opt),
    }
    if networks.average:
        content["average"] = networks.average.module.state_dict()
    if networks.ranks.count > 1:
        content["ranks"] = networks.ranks.count
    return content


def restore(networks: Networks, checkpoint: dict, scene: Scene, opt: Namespace) -> int:
    """Restores networks, optimizers and random generators as saved. Returns the number of steps
    done by then.

    Raises `InputError` if the checkpoint lacks a part, or belongs to another model or scene.
    """
    path = Path(opt.resume)
    flags = describe(architecture_of(opt))
    if checkpoint.get("optimizers_left_out") is True:
        raise InputError(
            f"--resume {path}: has no optimizer state to continue with (--keep_optimizer last); "
            "--checkpoint starts from its weights"
        )
    parts = {**dict.fromkeys(networks.optimizers, dict), "step": int, "rng": dict, "scene": str}
    for part, kind in parts.items():
        if not isinstance(checkpoint.get(part), kind):
            raise InputError(
                f"--resume {path}: has no {part!r} to continue with; --checkpoint starts from its "
                "weights"
            )
    if checkpoint["scene"] != scene.fingerprint:
        raise InputError(
            f"--data_root {opt.data_root}: is not the scene that {path} was trained on"
        )
    intrinsics = asdict(scene.intrinsics)
    if checkpoint.get("intrinsics", intrinsics) != intrinsics:  # older checkpoints record none
        raise InputError(
            f"{opt.data_root}/intrinsics.txt: is not what {path} was trained with: camera or grid "
            "differ"
        )
    load_weights(networks.model, checkpoint["model"], path, flags)
    load_weights(networks.discriminator, checkpoint["discriminator"], path, "the discriminator")
    if networks.average:
        load_weights(networks.average.module, checkpoint["average"], path, flags)
    for name, optimizer in networks.optimizers.items():
        load_optimizer(optimizer, checkpoint[name], path)
    try:
        restore_rng_states(checkpoint["rng"])
    except (KeyError, RuntimeError, TypeError) as error:
        raise InputError(
            f"--resume {path}: its random generators cannot be restored ({error})"
        ) from None
    networks.setbacks = int(checkpoint.get("setbacks", 0))
    networks.seconds = float(checkpoint.get("seconds", 0))
    networks.skipped_in_a_row = int(checkpoint.get("skipped_in_a_row", 0))
    before = checkpoint.get("ranks", 1)
    now = networks.ranks.count
    if before != now and isinstance(before, int):
        print(
            f"{path}: number of processes: {before} before, {now} now; a batch norm now sees "
            f"{opt.num_trgt // now} "
            f"of a step's {opt.num_trgt} target views at a time"
        )
    return checkpoint["step"]


def start_from(networks: Networks, checkpoint: dict, opt: Namespace) -> None:
    """Loads a checkpoint's weights and volume, and its discriminator if it has one. Optimizers
    start afresh."""
    path = Path(opt.checkpoint)
    load_weights(networks.model, tested_weights(checkpoint), path, describe(architecture_of(opt)))
    if networks.average:
        networks.average.module.load_state_dict(networks.model.state_dict())
    if checkpoint["discriminator"]:
        load_weights(networks.discriminator, checkpoint["discriminator"], path, "the discriminator")
