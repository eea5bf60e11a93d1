"""The state of a run in a checkpoint: what is saved, what `--resume` restores, and what `--checkpoint` starts from."""
from argparse import Namespace
from pathlib import Path

from checkpoints import load_optimizer, load_weights, restore_rng_states, rng_states, tested_weights
from dataio import Scene
from deep_voxels import architecture_of, describe
from training.networks import Networks
from util import InputError


def snapshot(opt: Namespace, networks: Networks, scene: Scene, step: int, epoch: int) -> dict:
    """The content of a checkpoint, from which `--resume` continues exactly."""
    content = {"model": networks.model.state_dict(), "discriminator": networks.discriminator.state_dict(),
               "model_optimizer": networks.model_optimizer.state_dict(),
               "discriminator_optimizer": networks.discriminator_optimizer.state_dict(),
               "step": step, "epoch": epoch, "rng": rng_states(), "scene": scene.fingerprint, "options": vars(opt)}
    if networks.average:
        content["average"] = networks.average.module.state_dict()
    return content


def restore(networks: Networks, checkpoint: dict, scene: Scene, opt: Namespace) -> int:
    """Restores networks, optimizers and random generators as saved. Returns the number of steps done by then.

    Raises `InputError` if the checkpoint lacks a part, or belongs to another model or scene.
    """
    path, flags = Path(opt.resume), describe(architecture_of(opt))
    parts = {"model_optimizer": dict, "discriminator_optimizer": dict, "step": int, "rng": dict, "scene": str}
    for part, kind in parts.items():
        if not isinstance(checkpoint.get(part), kind):
            raise InputError(f"--resume {path}: has no {part!r} to continue with; --checkpoint starts from its weights")
    if checkpoint["scene"] != scene.fingerprint:
        raise InputError(f"--data_root {opt.data_root}: is not the scene that {path} was trained on")
    load_weights(networks.model, checkpoint["model"], path, flags)
    load_weights(networks.discriminator, checkpoint["discriminator"], path, "the discriminator")
    if networks.average:
        load_weights(networks.average.module, checkpoint["average"], path, flags)
    load_optimizer(networks.model_optimizer, checkpoint["model_optimizer"], path)
    load_optimizer(networks.discriminator_optimizer, checkpoint["discriminator_optimizer"], path)
    try:
        restore_rng_states(checkpoint["rng"])
    except (KeyError, RuntimeError, TypeError) as error:
        raise InputError(f"--resume {path}: its random generators cannot be restored ({error})") from None
    return checkpoint["step"]


def start_from(networks: Networks, checkpoint: dict, opt: Namespace) -> None:
    """Loads a checkpoint's weights and volume, and its discriminator if it has one. Optimizers start afresh."""
    path = Path(opt.checkpoint)
    load_weights(networks.model, tested_weights(checkpoint), path, describe(architecture_of(opt)))
    if networks.average:
        networks.average.module.load_state_dict(networks.model.state_dict())
    if checkpoint["discriminator"]:
        load_weights(networks.discriminator, checkpoint["discriminator"], path, "the discriminator")
