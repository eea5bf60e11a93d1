"""The state of a run.

`snapshot`: what a checkpoint holds. `begin`: where a run begins; `--resume` restores all of it
(`restore`), `--checkpoint` the weights alone (`start_from`). `go_back`: where a run begins again
when its numbers are not finite.
"""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from torch.optim import Optimizer

from checkpoints import (
    load_checkpoint,
    load_optimizer,
    load_weights,
    restore_rng_states,
    rng_states,
    tested_weights,
)
from dataio import Scene
from deep_voxels import describe
from evaluation.held_out import HeldOutPsnr
from machine.options import Run
from machine.ranks import Ranks
from training.data import Batch
from training.networks import Networks
from training.options import Learning, TrainingOptions
from training.turned_targets import TurnedTargets
from util import InputError

MAX_SETBACKS = 5


@dataclass
class RunProgress:
    """How far a run has come.

    step: steps taken. seconds: time spent training, without pauses, as of the last `read_clock`.
    setbacks: how often training went back to a checkpoint; each halves the learning rate.
    skipped_in_a_row: how many of the last steps were skipped, as of the last look at the device.
    best: the best PSNR on held-out views so far, if they were measured. worse_in_a_row: how many
    measurements since were no better.
    """

    step: int = 0
    seconds: float = 0.0
    setbacks: int = 0
    skipped_in_a_row: int = 0
    best: HeldOutPsnr | None = None
    worse_in_a_row: int = 0

    def take_note(self, measured: HeldOutPsnr) -> None:
        """Keeps the best measurement of held-out views, and counts those since that are no
        better."""
        if measured.beats(self.best):
            self.best = measured
            self.worse_in_a_row = 0
        else:
            self.worse_in_a_row += 1

    def start_clock(self) -> None:
        """Training goes on now, after the `seconds` of earlier processes."""
        self._begun = time.monotonic() - self.seconds

    def read_clock(self) -> None:
        """Brings `seconds` up to date."""
        self.seconds = time.monotonic() - self._begun


@dataclass(frozen=True)
class Start:
    """All that a run's beginning depends on, kept so that it can begin again. new_networks: makes
    networks that have learned nothing yet."""

    run: Run
    learning: Learning
    scene: Scene
    new_networks: Callable[[], Networks]


@dataclass
class Training:
    """A run while it trains. When it goes back, networks and progress are replaced. batch: of the
    last step."""

    options: TrainingOptions
    start: Start
    networks: Networks
    progress: RunProgress
    turning: TurnedTargets | None = None
    batch: Batch | None = None

    @property
    def scene(self) -> Scene:
        return self.start.scene

    @property
    def out_of_patience(self) -> bool:
        """Whether `--patience` ends the run."""
        patience = self.options.records.patience
        return 0 < patience <= self.progress.worse_in_a_row

    @property
    def steps(self) -> range:
        """The steps that are left, counted from 0."""
        begin = self.progress.step
        if self.out_of_patience:
            return range(begin, begin)
        return range(begin, self.options.learning.total_steps(len(self.scene)))


def begin(start: Start, checkpoint: dict | None) -> tuple[Networks, RunProgress]:
    """The networks that a run begins with, and how far they have come.

    `checkpoint` is the one that `--resume` or `--checkpoint` names: a resumed run continues it
    exactly, any other takes only its weights.
    """
    networks = start.new_networks()
    if start.run.resume:
        progress = restore(networks, checkpoint, start.run, start.scene)
        if checkpoint["options"].get("lr") != start.learning.lr:
            progress.setbacks = 0  # each halves the learning rate, and the new one begins whole
        report_ranks(start, checkpoint.get("ranks", 1), networks.ranks.count)
        return networks, progress
    if start.run.checkpoint:
        start_from(networks, checkpoint, start.run.checkpoint)
    return networks, RunProgress(step=start.learning.start_epoch * len(start.scene))


def go_back(
    start: Start, saved: list[Path], ranks: Ranks
) -> tuple[Networks, RunProgress, Path | None]:
    """Begins again from the newest intact checkpoint that this process has `saved`, else from where
    the run began. Returns also the checkpoint that it used, or None.

    The first rank reads the checkpoint for all; only its `saved` counts.
    """
    for path in reversed(ranks.from_first(lambda: saved)):
        checkpoint = ranks.from_first(lambda path=path: _checkpoint_if_whole(path))
        if checkpoint is None:
            continue
        try:
            resumed = replace(start, run=replace(start.run, resume=path))
            return *begin(resumed, checkpoint), path
        except InputError:
            continue
    source = start.run.resume or start.run.checkpoint
    checkpoint = ranks.from_first(lambda: load_checkpoint(source)) if source else None
    return *begin(start, checkpoint), source


def _checkpoint_if_whole(path: Path) -> dict | None:
    try:
        return load_checkpoint(path)
    except InputError:
        return None


def snapshot(
    networks: Networks, progress: RunProgress, scene: Scene, flags: dict[str, object]
) -> dict:
    """The content of a checkpoint, from which `--resume` continues exactly. flags: every option's
    value, by its flag's name."""
    content = {
        "model": networks.model.state_dict(),
        "discriminator": networks.discriminator.state_dict(),
        **{name: optimizer_state(optimizer) for name, optimizer in networks.optimizers.items()},
        "step": progress.step,
        "epoch": (progress.step - 1) // len(scene),
        "setbacks": progress.setbacks,
        "skipped_in_a_row": progress.skipped_in_a_row,
        "seconds": progress.seconds,
        "rng": rng_states(),
        "scene": scene.fingerprint,
        "intrinsics": asdict(scene.intrinsics),
        "options": flags,
    }
    if networks.average:
        content["average"] = networks.average.module.state_dict()
    if networks.ranks.count > 1:
        content["ranks"] = networks.ranks.count
    if progress.best:
        content["best"] = asdict(progress.best)
        content["worse_in_a_row"] = progress.worse_in_a_row
    return content


def optimizer_state(optimizer: Optimizer) -> dict:
    """An optimizer's state, with the learning rate as a number."""
    state = optimizer.state_dict()
    for group in state["param_groups"]:
        group["lr"] = float(group["lr"])
    return state


def restore(networks: Networks, checkpoint: dict, run: Run, scene: Scene) -> RunProgress:
    """Restores networks, optimizers and random generators as saved.

    Raises `InputError` if the checkpoint lacks a part, or belongs to another model or scene.
    """
    path = run.resume
    check_parts(networks, checkpoint, path)
    check_scene(checkpoint, run, scene)
    flags = describe(networks.architecture)
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
    best = checkpoint.get("best")
    return RunProgress(
        step=checkpoint["step"],
        seconds=float(checkpoint.get("seconds", 0)),
        setbacks=int(checkpoint.get("setbacks", 0)),
        skipped_in_a_row=int(checkpoint.get("skipped_in_a_row", 0)),
        best=HeldOutPsnr(**best) if best else None,
        worse_in_a_row=int(checkpoint.get("worse_in_a_row", 0)),
    )


def check_parts(networks: Networks, checkpoint: dict, path: Path) -> None:
    """Raises `InputError` unless a checkpoint holds what a run continues from."""
    if checkpoint.get("optimizers_left_out") is True:
        raise InputError(
            f"--resume {path}: has no optimizer state to continue with (it is the best one, or "
            "--keep_optimizer last left it out); --checkpoint starts from its weights"
        )
    parts = {**dict.fromkeys(networks.optimizers, dict), "step": int, "rng": dict, "scene": str}
    for part, kind in parts.items():
        if not isinstance(checkpoint.get(part), kind):
            raise InputError(
                f"--resume {path}: has no {part!r} to continue with; --checkpoint starts from its "
                "weights"
            )


def check_scene(checkpoint: dict, run: Run, scene: Scene) -> None:
    """Raises `InputError` unless a checkpoint was trained on this scene."""
    if checkpoint["scene"] != scene.fingerprint:
        raise InputError(
            f"--data_root {run.data_root}: is not the scene that {run.resume} was trained on"
        )
    intrinsics = asdict(scene.intrinsics)
    if checkpoint.get("intrinsics", intrinsics) != intrinsics:  # older checkpoints record none
        raise InputError(
            f"{run.data_root}/intrinsics.txt: is not what {run.resume} was trained with: camera or "
            "grid differ"
        )


def report_ranks(start: Start, before: object, now: int) -> None:
    """Says if a run continues with another number of processes: each batch norm then sees another
    number of views."""
    if before != now and isinstance(before, int):
        targets = start.learning.num_trgt
        print(
            f"{start.run.resume}: number of processes: {before} before, {now} now; a batch norm "
            f"now sees {targets // now} of a step's {targets} target views at a time"
        )


def start_from(networks: Networks, checkpoint: dict, path: Path) -> None:
    """Loads a checkpoint's weights and volume, and its discriminator if it has one. Optimizers
    start afresh."""
    load_weights(networks.model, tested_weights(checkpoint), path, describe(networks.architecture))
    if networks.average:
        networks.average.module.load_state_dict(networks.model.state_dict())
    if checkpoint["discriminator"]:
        load_weights(networks.discriminator, checkpoint["discriminator"], path, "the discriminator")
