"""Trains a model on a scene (paper, section 3.2).

    python run_deepvoxels.py --train_test train --data_root SCENE/train --logging_root LOGS

`train` sets a run up (`set_up`) and takes its steps (`run_steps`). What a step computes is in
`training.step`; what is logged and saved after it, `training.recorder` decides.
"""

import sys
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from zlib import crc32

import numpy as np
import torch
from jaxtyping import Int

from baselines.width import count_parameters
from dataio import Scene, Views
from machine.installed import is_installed, left_out
from machine.ranks import ALONE, Ranks
from machine.runtime import set_arithmetic
from training.data import Batch, load_batch, load_training_scene, training_triplets
from training.guard import MAX_SKIPPED_STEPS, NotFinite, SkippedSteps
from training.memory import needs_of_rank, report_disk, report_memory
from training.networks import build_networks
from training.options import TrainingOptions
from training.progress_bar import ProgressBar
from training.recipes import LearningRate
from training.recorder import Recorder, due_after
from training.run_folder import Signals, describe_start, open_run
from training.state import MAX_SETBACKS, RunProgress, Start, Training, begin, go_back
from training.step import Step, train_step
from training.turned_targets import load_turned_targets
from training.validation import Validation, load_validation
from util import InputError


def train(options: TrainingOptions, checkpoint: dict | None, ranks: Ranks = ALONE) -> int:
    """Trains as the options say. All ranks train; the first logs, validates and saves.

    `checkpoint`: see `training.state.begin`. Returns the exit code: 0 when done, 128 + the number
    of the signal that ended the run early, 1 if its last checkpoint could not be saved or too many
    steps in a row were not finite.
    """
    training, validation = set_up(options, checkpoint, ranks)
    report_start(training)
    if options.run.dry_run:
        return 0
    with ExitStack() as stack:
        folders = None
        with ranks.fail_together():
            if ranks.first:
                device = torch.device(options.machine.device)
                start = describe_start(options.flags, training.progress.step, device, ranks)
                folders = stack.enter_context(open_run(options.run, start))
        signals = stack.enter_context(Signals())
        recorder = None
        if folders:
            recorder = make_recorder(training, *folders, validation)
            stack.callback(recorder.close)
        return run_to_end(training, recorder, signals)


def set_up(
    options: TrainingOptions, checkpoint: dict | None, ranks: Ranks
) -> tuple[Training, Validation | None]:
    """Reads the scene, and makes the networks or restores them to where the run begins.

    Writes nothing. Raises `InputError` for what cannot be trained. Only the first rank reads views
    to validate with.
    """
    run = options.run
    learning = options.learning
    machine = options.machine
    device = torch.device(machine.device)
    with ranks.fail_together():
        set_arithmetic(machine.precision, device, machine.deterministic)
        scene, geometry = load_training_scene(run.data_root, options.architecture, options.scene)
        validation = None
        if options.records.validate_every and ranks.first:
            validation = load_validation(
                scene,
                learning.model,
                options.architecture,
                options.scene,
                options.records.validate_every,
            )
        turning = load_turned_targets(scene, learning, options.scene, device)
        needs = needs_of_rank(options.architecture, learning, ranks)
        report_memory(needs, device, ranks, machine.precision)
        report_disk(needs, run, options.records)
        new_networks = partial(
            build_networks, options.architecture, geometry, learning, machine, ranks
        )
        start = Start(run, learning, scene, new_networks)
        networks, progress = begin(start, checkpoint)
    require_same_scene(scene, ranks)
    if checkpoint:
        checkpoint.clear()  # it would take as much memory as the networks until training ends
    training = Training(options, start, networks, progress, turning)
    if not run.resume and not training.steps:
        raise InputError(
            f"--max_epoch {learning.max_epoch}: leaves no step after --start_epoch "
            f"{learning.start_epoch}"
        )
    return training, validation


def require_same_scene(scene: Scene, ranks: Ranks) -> None:
    """Ends all ranks with an `InputError` unless they read the same scene."""
    if ranks.count == 1:
        return
    ranks.require_same(
        int(scene.fingerprint[:15], 16),
        f"--data_root {scene.root}: is not the same scene on all machines",
    )
    ranks.require_same(
        crc32(repr(scene.intrinsics).encode()),
        f"{scene.root}/intrinsics.txt: is not the same on all machines",
    )


def report_start(training: Training) -> None:
    """Prints the scene, the model and the steps that are left."""
    options = training.options
    scene = training.scene
    millions = count_parameters(training.networks.model) / 1e6
    print(
        f"{scene.root}: {len(scene)} views at {options.architecture.img_sidelength} pixels; "
        f"{options.learning.model} of {millions:.2f} M parameters on {options.machine.device}; "
        f"steps {training.steps.start} to {training.steps.stop}, "
        f"{training.steps.stop / len(scene):,.1f} passes over the views"
    )
    if training.turning:
        print(training.turning)


def make_recorder(
    training: Training, logs: Path, runs: Path, validation: Validation | None
) -> Recorder:
    """Says where checkpoints and curves will be, and makes what writes them."""
    print(f"checkpoints: {logs}")
    curves = is_installed("tensorboardX")
    print(f"tensorboard: {runs}" if curves else left_out("tensorboard", "tensorboardX"))
    return Recorder(training, logs, runs, validation)


def run_to_end(training: Training, recorder: Recorder | None, signals: Signals) -> int:
    """Takes all steps and returns the exit code of `train`.

    If too many steps in a row are not finite, training goes back to its newest checkpoint, or to
    where it began, and continues at half the learning rate, at most `MAX_SETBACKS` times. Only the
    first rank has a recorder.
    """
    while True:
        steps = training.steps
        try:
            stop = run_steps(training, recorder, signals)
            break
        except NotFinite as error:
            if training.progress.setbacks == MAX_SETBACKS:
                newest = recorder and recorder.keeper.newest
                print(
                    f"error: {error}; training went back {MAX_SETBACKS} times already. The newest "
                    f"checkpoint is {newest or 'none yet'}",
                    file=sys.stderr,
                )
                return 1
            apply_setback(training, recorder, str(error))
    stop = stop or signals.stop or 0  # a signal may come while the last checkpoint is saved
    if recorder and recorder.keeper.failed:
        return 1
    if recorder:
        recorder.report_end(took_steps=bool(steps))
    return 128 + stop if stop else 0


def apply_setback(training: Training, recorder: Recorder | None, reason: str) -> None:
    """Takes networks and progress back to the last good checkpoint and counts a setback, which
    halves the learning rate (`learning_rate`). The clock goes on."""
    before = training.progress
    saved = recorder.keeper.saved if recorder else []
    training.networks, progress, good = go_back(training.start, saved, training.networks.ranks)
    training.progress = replace(
        progress, setbacks=before.setbacks + 1, seconds=before.seconds, skipped_in_a_row=0
    )
    print(
        f"warning: {reason}; going back to {good or 'the start'}, at half the learning rate "
        f"(setback {training.progress.setbacks} of {MAX_SETBACKS})",
        file=sys.stderr,
    )


def run_steps(training: Training, recorder: Recorder | None, signals: Signals) -> int:
    """Takes the steps that are left. Returns the number of the signal that ended them early, or 0.
    Raises `NotFinite`."""
    learning = training.options.learning
    device = torch.device(training.options.machine.device)
    progress = training.progress
    ranks = training.networks.ranks
    steps = training.steps
    ranks.share_random_state(device)
    views = training.scene.on(device)
    skipped = SkippedSteps(training.scene.names, progress.skipped_in_a_row)
    rate = learning_rate(training)
    training.networks.model.train()
    training.networks.discriminator.train()
    progress.start_clock()
    with ProgressBar(steps) as bar:
        if recorder:
            recorder.open_log(bar)
        for step, triplet in training_triplets(
            training.scene, learning.num_trgt, learning.seed, steps, learning.num_sources
        ):
            batch, result = take_step(training, views, rate, step, triplet)
            skipped.add(step, triplet, result.finite)
            progress.step = step
            bar.update()

            # All ranks must decide alike: one that is asked to stop or to save asks all.
            wants_save = signals.save or (recorder is not None and recorder.keeper.due(step))
            stop, save = ranks.largest(signals.stop or 0, wants_save)
            due = due_after(step, steps.stop, training.options.records, stop, bool(save))
            if not any(due):
                continue  # without waiting for the device
            read_skipped(skipped, progress, bar)
            if save:
                signals.save = False
            if recorder:  # other ranks wait for the first in the next step
                recorder.report(due, batch, result)
            if due.validation and training.options.records.patience:
                # The first rank alone measures.
                (end,) = ranks.largest(recorder is not None and training.out_of_patience)
                if end:
                    due = due._replace(save=True, last=True)
            if recorder and due.save:
                recorder.save(due.last)
            if due.last:
                return stop
    return 0


def learning_rate(training: Training) -> LearningRate:
    """The learning rate over the steps that are left."""
    learning = training.options.learning
    lr = learning.lr / 2**training.progress.setbacks
    optimizers = training.networks.optimizers.values()
    return LearningRate(optimizers, lr, learning.lr_decay, training.steps)


def take_step(
    training: Training,
    views: Views,
    rate: LearningRate,
    step: int,
    triplet: Int[np.ndarray, "views"],
) -> tuple[Batch, Step]:
    """Takes one step, counted from 1, on a triplet of view indices: updates both networks, the
    learning rate and the average of the weights. Does not wait for the device. The next step
    overwrites its batch."""
    learning = training.options.learning
    networks = training.networks
    batch = load_batch(views, triplet, learning.num_sources, networks.ranks)
    if training.turning:
        targets = triplet[learning.num_sources :]
        batch = training.turning.turn(batch, targets, step, networks.ranks)
    batch = batch.in_place_of(training.batch)
    training.batch = batch
    precision = training.options.machine.precision
    result = train_step(networks, batch, learning.loss_weights, precision)
    rate.set_after(step)
    if networks.average:
        networks.average.update(networks.model, step)
    return batch, result


def read_skipped(skipped: SkippedSteps, progress: RunProgress, bar: ProgressBar) -> None:
    """Warns of each step skipped since the last call. Raises `NotFinite` after too many in a row.
    Waits for the device."""
    for line in skipped.read():
        bar.report("warning", line)
    progress.skipped_in_a_row = skipped.in_a_row
    if skipped.in_a_row == MAX_SKIPPED_STEPS:
        progress.read_clock()
        raise NotFinite(
            f"{MAX_SKIPPED_STEPS} steps in a row before step {progress.step} were not finite"
        )
