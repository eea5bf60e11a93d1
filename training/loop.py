"""Trains a model on a scene (paper, section 3.2): sets up a run, loops over its steps, logs, saves.

python run_deepvoxels.py --train_test train --data_root SCENE --logging_root LOGS
"""

import sys
import time
from argparse import Namespace
from contextlib import ExitStack
from zlib import crc32

import torch

from baselines.width import count_parameters
from dataio import Scene
from machine.ranks import ALONE, Ranks
from machine.runtime import set_arithmetic
from training.data import load_batch, load_training_scene, sources_of_a_step, training_triplets
from training.guard import MAX_SKIPPED_STEPS, NotFinite, SkippedSteps
from training.keeper import CheckpointKeeper
from training.log import ProgressBar, TensorboardLog, log_pictures, losses_on_host
from training.memory import report_needs
from training.networks import Networks
from training.next_commands import next_commands
from training.recipes import learning_rate_schedule
from training.run_folder import Signals, open_run
from training.stability import loop_gain
from training.state import MAX_SETBACKS, begin, go_back, snapshot
from training.step import train_step
from training.validation import Validation, load_validation

PROGRESS_EVERY = 10  # steps between waits for the device, to read the losses


def train(opt: Namespace, checkpoint: dict | None, ranks: Ranks = ALONE) -> int:
    """Trains as the options say.

    `checkpoint`: see `training.state.begin`. Where too many steps in a row are not finite, training
    goes back to its newest checkpoint, or to the one that it began with, and continues at half the
    learning rate, at most `MAX_SETBACKS` times. All ranks train; the first logs, validates and
    saves.

    Returns the exit code: 0 when done, 128 + the number of the signal that ended the run early, 1
    if its last checkpoint could not be saved or too many steps in a row were not finite.
    """
    device = torch.device(opt.device)
    with ranks.together():
        set_arithmetic(opt.precision, device, opt.deterministic)
        scene, geometry = load_training_scene(opt)
        validation = (
            load_validation(opt, scene, geometry) if opt.validate_every and ranks.first else None
        )
        report_needs(opt, device, ranks)
        networks, first_step = begin(opt, scene, geometry, checkpoint, ranks)
    if ranks.count > 1:
        ranks.require_same(
            int(scene.fingerprint[:15], 16),
            f"--data_root {opt.data_root}: is not the same scene on all machines",
        )
        ranks.require_same(
            crc32(repr(scene.intrinsics).encode()),
            f"{opt.data_root}/intrinsics.txt: is not the same on all machines",
        )
    if checkpoint:
        checkpoint.clear()  # it would take as much memory as the networks until training ends
    total_steps = opt.max_epoch * len(scene)
    if opt.max_steps is not None:
        total_steps = min(total_steps, opt.max_steps)
    print(
        f"{scene.root}: {len(scene)} views at {opt.img_sidelength} pixels; "
        f"{opt.model} of {count_parameters(networks.model) / 1e6:.2f} M parameters on {device}; "
        f"steps {first_step} to {total_steps}"
    )
    if opt.dry_run:
        return 0

    with ExitStack() as run:
        with ranks.together():
            folders = (
                run.enter_context(open_run(opt, scene.root, first_step, device, ranks))
                if ranks.first
                else None
            )
        signals = run.enter_context(Signals())
        keeper = None
        log = None
        if folders:
            logs, runs = folders
            print(f"checkpoints: {logs}\ntensorboard: {runs}")
            keeper = CheckpointKeeper(
                logs,
                opt.checkpoint_every,
                opt.checkpoint_minutes,
                opt.keep_checkpoints,
                opt.keep_optimizer,
            )
        while True:
            steps = range(first_step, total_steps)
            if folders:
                log = TensorboardLog(runs, first_step + 1)
            ranks.share_random_state(device)
            try:
                return run_steps(opt, networks, scene, steps, keeper, log, signals, validation)
            except NotFinite as error:
                if networks.setbacks == MAX_SETBACKS:
                    print(
                        f"error: {error}; training went back {MAX_SETBACKS} times already. The "
                        "newest checkpoint is "
                        f"{keeper and keeper.newest or 'none yet'}",
                        file=sys.stderr,
                    )
                    return 1
                setbacks = networks.setbacks + 1
                seconds = networks.seconds
                networks, first_step, good = go_back(
                    opt, scene, geometry, keeper.saved if keeper else [], ranks
                )
                networks.setbacks = setbacks
                networks.seconds = seconds
                networks.skipped_in_a_row = 0
                print(
                    f"warning: {error}; going back to {good or 'the start'}, at half the learning "
                    "rate "
                    f"(setback {setbacks} of {MAX_SETBACKS})",
                    file=sys.stderr,
                )


def run_steps(
    opt: Namespace,
    networks: Networks,
    scene: Scene,
    steps: range,
    keeper: CheckpointKeeper | None,
    log: TensorboardLog | None,
    signals: Signals,
    validation: Validation | None,
) -> int:
    """The training loop over `steps`, counted from 0. Returns the exit code of `train`, or raises
    `NotFinite`.

    Only the first rank has `keeper`, `log` and `validation`.
    """
    ranks = networks.ranks
    stop = 0
    begun = time.monotonic() - networks.seconds
    num_sources = sources_of_a_step(opt)
    views = scene.on(torch.device(opt.device))
    skipped = SkippedSteps(scene.names, networks.skipped_in_a_row)
    lr = opt.lr / 2**networks.setbacks
    schedules = [
        learning_rate_schedule(optimizer, lr, opt.lr_decay, steps)
        for optimizer in networks.optimizers.values()
    ]
    networks.model.train()
    networks.discriminator.train()
    with ProgressBar(steps) as progress:
        for step, epoch, triplet in training_triplets(
            scene, opt.num_trgt, opt.seed, steps, num_sources
        ):
            batch = load_batch(views, triplet, num_sources, ranks)
            result = train_step(networks, batch, opt.l1_weight, opt.precision, opt.volume_limit)
            for schedule in schedules:
                schedule.step()
            if networks.average:
                networks.average.update(networks.model, step)
            skipped.add(step, triplet, result.finite)
            progress.update()

            stop, save = ranks.largest(
                signals.stop or 0, signals.save or (ranks.first and keeper.due(step))
            )
            last = step == steps.stop or stop != 0
            log_scalars = step % PROGRESS_EVERY == 0 or step == steps.stop
            log_images = step % opt.log_every == 0
            validate = (
                opt.validate_every
                and not stop
                and (step % opt.validate_every == 0 or step == steps.stop)
            )
            if not (log_scalars or log_images or save or validate or last):
                continue  # what follows waits for the device
            for line in skipped.read():
                progress.report("warning", line)
            if skipped.in_a_row == MAX_SKIPPED_STEPS:
                networks.seconds = time.monotonic() - begun
                raise NotFinite(
                    f"{MAX_SKIPPED_STEPS} steps in a row before step {step} were not finite"
                )
            signals.save = signals.save and not save
            if not ranks.first:
                if last:
                    break
                continue  # the next step waits for the first rank
            if log_scalars and not skipped.in_a_row:
                losses = losses_on_host(result.losses)
                gain = loop_gain(getattr(networks.model, "integration_net", None))
                if gain is not None:
                    losses["loop_gain"] = float(gain)
                progress.show(losses, opt.l1_weight)
                log.scalars(losses, step)
            if log_images and not skipped.in_a_row:
                log_pictures(
                    log,
                    step,
                    batch.source_image,
                    batch.target_images,
                    result.rendering,
                    result.integration,
                )
            if validate:
                metrics = validation.measure(networks)
                progress.show_validation(metrics)
                log.scalars({f"val/{name}": value for name, value in metrics.items()}, step)
            if save or last:
                networks.seconds = time.monotonic() - begun
                networks.skipped_in_a_row = skipped.in_a_row
                problem = keeper.save(snapshot(opt, networks, scene, step, epoch))
                if problem:
                    progress.report("error" if last and keeper.failed else "warning", problem)
            if last:
                break
    stop = stop or signals.stop or 0  # a signal may come while the last checkpoint is saved
    if not ranks.first:
        return 128 + stop if stop else 0
    if keeper.failed:
        return 1
    print(
        f"saved {keeper.newest}"
        if steps
        else f"nothing to do: the run has taken all of its steps; its checkpoint is {keeper.newest}"
    )
    if keeper.newest:
        print(next_commands(opt, keeper.newest))
    return 128 + stop if stop else 0
