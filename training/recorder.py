"""What a run reports and saves while it trains, and when.

`due_after` decides what is due after a step. `Recorder.report` then logs and validates, and
`Recorder.save` saves. A checkpoint is due at the end of a run, when a signal asks for it, and when
`CheckpointKeeper.due` says so: every so many steps or minutes. With several ranks, only the first
has a recorder.
"""

from pathlib import Path
from typing import NamedTuple

from files.runs import BEST
from machine.installed import is_installed
from training.data import Batch
from training.keeper import CheckpointKeeper
from training.next_commands import next_commands, resume_command
from training.options import PROGRESS_EVERY, Records
from training.progress_bar import ProgressBar
from training.stability import loop_gain
from training.state import Training, snapshot
from training.step import Step
from training.validation import Validation


class Due(NamedTuple):
    """What is to be done after a step. All of it waits for the device."""

    scalars: bool
    pictures: bool
    validation: bool
    save: bool
    last: bool  # no step follows


def due_after(step: int, last_step: int, records: Records, stop: int, save: bool) -> Due:
    """What is due after a step, counted from 1.

    stop: the number of the signal that asks to stop, or 0; a stop makes this step the last. save:
    whether a checkpoint is asked for.
    """
    at_end = step == last_step
    last = at_end or stop != 0
    validation = False
    if records.validate_every and not stop:
        validation = at_end or step % records.validate_every == 0
    return Due(
        scalars=at_end or step % PROGRESS_EVERY == 0,
        pictures=step % records.log_every == 0,
        validation=validation,
        save=last or save,
        last=last,
    )


class Recorder:
    """Writes a run's curves and pictures into `runs`, its checkpoints into `logs`, and its progress
    to the terminal."""

    def __init__(self, training: Training, logs: Path, runs: Path, validation: Validation | None):
        self.keeper = CheckpointKeeper(logs, training.options.records)
        self._training = training
        self._runs = runs
        self._validation = validation
        self._log = None

    def open_log(self, bar: ProgressBar) -> None:
        """Opens a new log for the steps that are left, where tensorboardX is installed, beside
        their progress bar. It hides what was logged of these steps before."""
        self._bar = bar
        self.close()
        if is_installed("tensorboardX"):
            from training.tensorboard_log import TensorboardLog  # cannot be imported without it

            self._log = TensorboardLog(self._runs, self._training.progress.step + 1)

    def close(self) -> None:
        """Ends the log."""
        if self._log is not None:
            self._log.close()

    def report(self, due: Due, batch: Batch, result: Step) -> None:
        """Reports what is due after a step. A skipped step has no losses or pictures to show."""
        progress = self._training.progress
        if due.scalars and not progress.skipped_in_a_row:
            self._report_losses(result)
        if due.pictures and self._log is not None and not progress.skipped_in_a_row:
            self._log.step_pictures(progress.step, batch, result)
        if due.validation:
            self._validate()

    def _report_losses(self, result: Step) -> None:
        training = self._training
        losses = result.losses.on_host()
        gain = loop_gain(getattr(training.networks.model, "integration_net", None))
        if gain is not None:
            losses["loop_gain"] = float(gain)
        self._bar.show(losses, training.options.learning.loss_weights)
        self._log_scalars("train", losses)

    def _log_scalars(self, group: str, values: dict[str, float]) -> None:
        """Logs values by name under a heading, which tensorboard folds."""
        if self._log is not None:
            scalars = {f"{group}/{name}": value for name, value in values.items()}
            self._log.scalars(scalars, self._training.progress.step)

    def _validate(self) -> None:
        training = self._training
        metrics = self._validation.measure(training.networks, training.options.machine)
        self._bar.show_validation(metrics)
        self._log_scalars("validation", metrics)
        measured = self._validation.psnr_of(training.progress.step, metrics)
        training.progress.take_note(measured)
        if not self.keeper.is_best(measured):
            return
        if problem := self.keeper.save_best(self._snapshot(), measured):
            self._bar.report("warning", problem)

    def save(self, last: bool) -> None:
        """Saves a checkpoint. last: whether no step follows, and no other try."""
        problem = self.keeper.save(self._snapshot())
        if problem:
            self._bar.report("error" if last and self.keeper.failed else "warning", problem)

    def _snapshot(self) -> dict:
        training = self._training
        training.progress.read_clock()
        flags = training.options.flags
        return snapshot(training.networks, training.progress, training.scene, flags)

    def report_end(self, took_steps: bool) -> None:
        """Says which checkpoint holds the result, and what can be done with it."""
        newest = self.keeper.newest
        if took_steps and self._training.out_of_patience:
            print(f"the run {self._how_it_ended()}")
        if took_steps:
            print(f"saved {newest}")
        else:
            print(f"nothing to do: the run {self._how_it_ended()}; its checkpoint is {newest}")
        if best := self.keeper.best:
            path = self.keeper.folder / BEST
            print(f"the best on held-out views is {path}: step {best.step}, {best}")
        if newest:
            options = self._training.options
            if self._training.steps:
                print(resume_command(options.run, options.learning.max_steps, newest))
            print(next_commands(options.run, options.learning.model, newest))

    def _how_it_ended(self) -> str:
        training = self._training
        if not training.out_of_patience:
            return "has taken all of its steps"
        count = training.progress.worse_in_a_row
        return (
            f"ended: {count} measurement{'s' * (count != 1)} without a better PSNR on held-out "
            f"views (--patience {training.options.records.patience})"
        )
