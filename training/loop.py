"""Training: the networks and their optimizers, the loop, its logs and its checkpoints (paper, section 3.2).

    python run_deepvoxels.py --train_test train --data_root SCENE --logging_root LOGS
"""
import json
import sys
from argparse import Namespace
from datetime import datetime
from pathlib import Path

import numpy as np
import torch
import torch._functorch.config
from tqdm import tqdm

from baselines import build_model
from baselines.width import count_parameters
from checkpoints import (
    CheckpointKeeper,
    load_optimizer,
    load_weights,
    restore_rng_states,
    rng_states,
    tested_weights,
)
from cpu_kernels import accelerate_
from cpu_kernels.adam import Adam
from dataio import Scene, blind_views, draw_triplets, load_scene
from deep_voxels import architecture_of, describe, scene_geometry
from losses import PatchDiscriminator
from projection import SceneGeometry
from runtime import channels_last_, describe_machine, set_arithmetic, uses_cpu_kernels
from scenes.geometry.coverage import judge
from training.log import TensorboardLog, log_pictures
from training.recipes import WeightAverage, decayed, scale_dropout_, set_learning_rate
from training.step import MOST_SKIPPED_STEPS, Losses, Networks, SkippedSteps, load_batch, train_step
from util import InputError, RunLock, Signals, make_run_folder, one_line, read_text, write_json

PROGRESS_EVERY = 10

# What a resumed run may change: how long it goes on, where, and what it tells. All else decides what is learned.
FREE_ON_RESUME = {"train_test", "resume", "checkpoint", "data_root", "logging_root", "experiment_name", "max_epoch",
                  "max_steps", "log_every", "checkpoint_every", "checkpoint_minutes", "keep_checkpoints", "device",
                  "compile", "dry_run", "train_root", "start_epoch"}


def train(opt: Namespace, checkpoint: dict | None) -> int:
    """Trains as the options say and returns the exit code: 0 when done, 128 + the signal that ended it early, 1 when
    its last checkpoint could not be saved or its numbers went wrong.

    `checkpoint` is that of `--resume`, to be continued exactly, or of `--checkpoint`, whose weights are the start.
    """
    device = torch.device(opt.device)
    set_arithmetic(opt.precision, device, opt.deterministic)
    scene, geometry = load_training_scene(opt)
    networks = build_networks(opt, geometry, device)
    first_step = opt.start_epoch * len(scene)
    if opt.resume:
        first_step = restore(networks, checkpoint, scene, opt)
    elif opt.checkpoint:
        start_from(networks, checkpoint, opt)
    total_steps = opt.max_epoch * len(scene)
    if opt.max_steps is not None:
        total_steps = min(total_steps, opt.max_steps)
    print(f"{scene.root}: {len(scene)} views at {opt.img_sidelength} pixels; "
          f"{opt.model} of {count_parameters(networks.model) / 1e6:.2f} M parameters on {device}; "
          f"steps {first_step} to {total_steps}")
    if opt.dry_run:
        return 0

    logs, runs, history = run_folders(opt, scene)
    lock = RunLock(logs)
    history.append({"time": datetime.now().isoformat(timespec="seconds"), "first_step": first_step,
                    "options": vars(opt), "machine": describe_machine(device)})
    write_json(logs / "options.json", {**history[-1], "history": history})
    print(f"checkpoints: {logs}\ntensorboard: {runs}")
    keeper = CheckpointKeeper(logs, opt.checkpoint_every, opt.checkpoint_minutes, opt.keep_checkpoints)
    with lock, Signals() as signals:
        return run_steps(opt, networks, scene, range(first_step, total_steps), keeper,
                         TensorboardLog(runs, first_step + 1), signals)


def run_folders(opt: Namespace, scene: Scene) -> tuple[Path, Path, list[dict]]:
    """The run's folders for checkpoints and for tensorboard, and the history that its `options.json` holds.

    A checkpoint under the logging root is continued in its own folders.
    """
    root = Path(opt.logging_root)
    logs = Path(opt.resume).resolve().parent if opt.resume else None
    if logs is None or not logs.is_relative_to((root / "logs").resolve()) or not (logs / "options.json").is_file():
        logs, runs = make_run_folder(root, "logs", "runs", name=opt.experiment_name or scene.root.resolve().name)
        history = []
    else:
        runs = root / "runs" / logs.relative_to((root / "logs").resolve())
        runs.mkdir(parents=True, exist_ok=True)
        try:
            history = list(json.loads(read_text(logs / "options.json"))["history"])
        except (KeyError, TypeError, ValueError):
            raise InputError(f"{logs / 'options.json'}: is damaged; without it {opt.resume} can be resumed under "
                             "another --logging_root") from None
    return logs, runs, history


def run_steps(opt: Namespace, networks: Networks, scene: Scene, steps: range, keeper: CheckpointKeeper,
              log: TensorboardLog, signals: Signals) -> int:
    """The training loop. Returns the exit code of `train`."""
    views, psnr, triplets, skipped = scene.on(torch.device(opt.device)), None, None, SkippedSteps()
    networks.model.train()
    networks.discriminator.train()
    with tqdm(total=steps.stop, initial=steps.start, unit="step", dynamic_ncols=True) as progress:
        for done in range(steps.start + 1, steps.stop + 1):
            epoch, position = divmod(done - 1, len(scene))
            if triplets is None or position == 0:
                triplets = draw_triplets(scene.cam2world, opt.num_trgt, opt.seed, epoch)
            batch = load_batch(views, triplets[position])
            if opt.lr_decay:
                set_learning_rate(decayed(opt.lr, done, steps.stop, opt.lr_decay), networks.model_optimizer,
                                  networks.discriminator_optimizer)
            step = train_step(networks, batch, opt.l1_weight, opt.precision)
            skipped.add(done, triplets[position], step.finite)
            if networks.average:
                networks.average.update(networks.model, done)

            progress.update()
            last = done == steps.stop or signals.stop is not None
            tell, picture = done % PROGRESS_EVERY == 0 or done == steps.stop, done % opt.log_every == 0
            save = last or signals.save or keeper.due(done)
            if not (tell or picture or save):
                continue  # without a wait for the device
            for line in skipped.read(scene.names):
                progress.write(f"warning: {line}", file=sys.stderr)
            if skipped.in_a_row == MOST_SKIPPED_STEPS:
                progress.write(f"error: {MOST_SKIPPED_STEPS} steps in a row were not finite; the last good checkpoint "
                               f"is {keeper.newest or 'none yet'}", file=sys.stderr)
                return 1
            if tell and not skipped.in_a_row:
                scalars = dict(zip(Losses._fields, torch.stack(step.losses).tolist(), strict=True))
                psnr = scalars["psnr"] if psnr is None else 0.9 * psnr + 0.1 * scalars["psnr"]
                progress.set_postfix(loss=f"{opt.l1_weight * scalars['l1'] + scalars['generator']:.2f}",
                                     psnr=f"{psnr:.2f}")
                log.scalars(scalars, done)
            if picture and not skipped.in_a_row:
                log_pictures(log, done, batch.source_image, batch.target_images, step.rendering, step.integration)
            if save:
                signals.save = False
                problem = keeper.save(snapshot(opt, networks, scene, done, epoch))
                if problem:
                    progress.write(f"{'error' if last and keeper.failed else 'warning'}: {problem}", file=sys.stderr)
            if last:
                break
    if not steps:
        return 0
    if keeper.failed:
        return 1
    print(f"saved {keeper.newest}")
    return 0 if signals.stop is None else 128 + signals.stop


def build_networks(opt: Namespace, geometry: SceneGeometry, device: torch.device) -> Networks:
    """Fresh networks, initialised from `--seed`, and their optimizers."""
    torch.manual_seed(opt.seed)
    networks = build_model(opt.model, architecture_of(opt), geometry).to(device), PatchDiscriminator().to(device)
    scale_dropout_(networks[0], opt.dropout)
    for network in networks:
        channels_last_(network)
        if uses_cpu_kernels(opt.kernels, device, opt.compile):
            accelerate_(network)
    average = WeightAverage(networks[0], opt.average) if opt.average else None
    if opt.compile:
        torch._functorch.config.donated_buffer = False  # a step goes back through what both losses share twice
        for network in networks:
            network.compile()
    return Networks(*networks, *(Adam(network.parameters(), opt.lr) for network in networks), average)


def load_training_scene(opt: Namespace) -> tuple[Scene, SceneGeometry]:
    """The training views that see the grid; those that do not are named in a warning and left out.

    Refuses what cannot work, with the reason (the checks of `scenes.check`, in brief).
    """
    scene = load_scene(Path(opt.data_root), opt.img_sidelength, opt.sampling_pattern, opt.background)
    geometry = scene_geometry(scene.intrinsics, architecture_of(opt), opt.near_plane)
    with np.errstate(all="ignore"):  # numbers beyond all measure end in a verdict, not in numpy's warnings
        verdict = judge(scene.cam2world, scene.intrinsics.matrix(opt.img_sidelength), opt.img_sidelength,
                        np.array(scene.intrinsics.grid_origin), scene.intrinsics.scale, geometry.near_plane,
                        scene.names)
    if verdict.errors:
        raise InputError(f"{scene.root}: {'; '.join(verdict.errors)}")
    blind = blind_views(scene, geometry, lifting=True)
    if len(scene) - len(blind) < 2:
        raise InputError(f"{scene.root}: has {len(scene) - len(blind)} views that see the grid, two are the least to "
                         "train on; check origin, scale and near plane in intrinsics.txt")
    for warning in verdict.warnings:
        print(f"warning: {scene.root}: {one_line(warning)}", file=sys.stderr)
    for view in blind:
        print(f"warning: {scene.root}/pose/{one_line(scene.names[view])}.txt: sees nothing of the grid and is left out",
              file=sys.stderr)
    return scene.subset([i for i in range(len(scene)) if i not in blind]), geometry


def start_from(networks: Networks, checkpoint: dict, opt: Namespace) -> None:
    """Takes the weights and the volume of a checkpoint, and the discriminator's if it has one."""
    load_weights(networks.model, tested_weights(checkpoint), Path(opt.checkpoint), describe(architecture_of(opt)))
    if networks.average:
        networks.average.model.load_state_dict(networks.model.state_dict())
    if checkpoint["discriminator"]:
        load_weights(networks.discriminator, checkpoint["discriminator"], Path(opt.checkpoint), "the discriminator")


def restore(networks: Networks, checkpoint: dict, scene: Scene, opt: Namespace) -> int:
    """Puts everything back as it was when the checkpoint was saved. Returns the number of steps done by then."""
    path = Path(opt.resume)
    parts = {"model_optimizer": dict, "discriminator_optimizer": dict, "step": int, "rng": dict, "scene": str}
    for part, kind in parts.items():
        if not isinstance(checkpoint.get(part), kind):
            raise InputError(f"--resume {path}: has no {part!r} to continue with; --checkpoint starts from its weights")
    if checkpoint["scene"] != scene.fingerprint:
        raise InputError(f"--data_root {opt.data_root}: is not the scene that {path} was trained on")
    load_weights(networks.model, checkpoint["model"], path, describe(architecture_of(opt)))
    load_weights(networks.discriminator, checkpoint["discriminator"], path, "the discriminator")
    if networks.average:
        load_weights(networks.average.model, checkpoint["average"], path, describe(architecture_of(opt)))
    load_optimizer(networks.model_optimizer, checkpoint["model_optimizer"], path)
    load_optimizer(networks.discriminator_optimizer, checkpoint["discriminator_optimizer"], path)
    try:
        restore_rng_states(checkpoint["rng"])
    except (KeyError, RuntimeError, TypeError) as error:
        raise InputError(f"--resume {path}: its random generators cannot be restored ({error})") from None
    return checkpoint["step"]


def snapshot(opt: Namespace, networks: Networks, scene: Scene, step: int, epoch: int) -> dict:
    """The content of a checkpoint from which `--resume` continues exactly."""
    return {"model": networks.model.state_dict(), "discriminator": networks.discriminator.state_dict(),
            "model_optimizer": networks.model_optimizer.state_dict(),
            "discriminator_optimizer": networks.discriminator_optimizer.state_dict(),
            "step": step, "epoch": epoch, "rng": rng_states(), "scene": scene.fingerprint,
            "options": vars(opt), **({"average": networks.average.model.state_dict()} if networks.average else {})}
