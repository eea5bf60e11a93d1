"""A run's checkpoints: when to save one, which to keep, the best of them, and what to do when the
disk is full."""

import time
from dataclasses import asdict
from pathlib import Path

from checkpoints import load_checkpoint, save_checkpoint
from evaluation.held_out import HeldOutPsnr, chosen_by
from files.runs import BEST, checkpoints_by_step, newest_checkpoint, point_latest_at
from training.options import Records
from util import InputError, one_line

# In a checkpoint, by the names that `training.networks.make_optimizers` gives them
OPTIMIZERS = ("model_optimizer", "kernel_optimizer", "discriminator_optimizer")


class CheckpointKeeper:
    """Saves a run's checkpoints, points `latest.pth` at the newest one, and removes old ones. Keeps
    the best one as `best.pth`.

    newest: the newest complete checkpoint, or None. saved: those that this process has saved, the
    newest last. failed: whether the last save failed; `due` then asks for another. best: what
    `best.pth` reached on held-out views, or None.
    """

    def __init__(self, folder: Path, records: Records):
        self.folder = folder
        self.records = records
        self._without_optimizer = set()
        self.newest = newest_checkpoint(folder)
        self.saved = []
        self.failed = False
        self.best = _best_in(folder)
        self._last_attempt = time.monotonic()
        for unfinished in folder.glob(".*.pth.part"):
            unfinished.unlink()

    def due(self, step: int) -> bool:
        """Whether to save now: every `--checkpoint_every` steps, at the latest after
        `--checkpoint_minutes`, and a minute after a save that failed."""
        wait = self.records.checkpoint_minutes
        if self.failed:
            wait = min(1, wait)
        waited = (time.monotonic() - self._last_attempt) / 60
        return step % self.records.checkpoint_every == 0 or waited >= wait

    def save(self, checkpoint: dict) -> str | None:
        """Saves the checkpoint of `checkpoint["step"]`. Returns what went wrong, if anything; older
        files then stay.

        The message is about the save itself if `failed` is true, otherwise about removing an old
        checkpoint.
        """
        path = self.folder / f"model-epoch_{checkpoint['epoch']}_iter_{checkpoint['step']}.pth"
        try:
            save_checkpoint(path, checkpoint)
            point_latest_at(path)
        except (OSError, RuntimeError, MemoryError) as error:
            # torch reports a failed write as RuntimeError
            self.failed = True
            return f"{path} could not be saved: {one_line(str(error))}"
        finally:
            self._last_attempt = time.monotonic()
        self.newest = path
        self.failed = False
        self.saved = [*(other for other in self.saved if other != path), path]
        try:
            self._remove_old()
        except OSError as error:
            problem = one_line(str(error))
            return f"{path.name} was saved, but an older one could not be removed: {problem}"
        try:
            self._remove_optimizers()
        except (OSError, RuntimeError, MemoryError) as error:
            problem = one_line(str(error))
            return f"{path.name} was saved, but an older one could not be made smaller: {problem}"
        return None

    def is_best(self, measured: HeldOutPsnr) -> bool:
        """Whether a measurement beats `best.pth`, which may come from earlier steps or from some
        that training went back from."""
        return measured.beats(self.best)

    def save_best(self, checkpoint: dict, measured: HeldOutPsnr) -> str | None:
        """Saves a checkpoint as `best.pth`, without its optimizers. Returns what went wrong, if
        anything; the file then stays as it was."""
        path = self.folder / BEST
        try:
            save_checkpoint(
                path, {**_without_optimizers(checkpoint), "chosen_by": asdict(measured)}
            )
        except (OSError, RuntimeError, MemoryError) as error:
            return f"{path} could not be saved: {one_line(str(error))}"
        self.best = measured
        return None

    def kept(self) -> list[Path]:
        """The run's complete checkpoints, the oldest first: those of earlier processes by their
        steps, then those that this one has saved. The times of files decide nothing."""
        earlier = [path for path in checkpoints_by_step(self.folder) if path not in self.saved]
        paths = [*earlier, *(path for path in self.saved if path.is_file())]
        return sorted(paths, key=lambda path: path == self.newest)

    def _remove_old(self) -> None:
        keep = self.records.keep_checkpoints
        if keep:
            for path in self.kept()[:-keep]:
                path.unlink()

    def _remove_optimizers(self) -> None:
        """With `--keep_optimizer last`, rewrites all checkpoints but the newest without the
        optimizers' state."""
        if self.records.keep_optimizer != "last":
            return
        for path in self.kept()[:-1]:
            if path not in self._without_optimizer:
                remove_optimizers(path)
                self._without_optimizer.add(path)


def remove_optimizers(path: Path) -> None:
    """Rewrites a checkpoint without its optimizers' state, atomically. Its modification time stays.
    A damaged checkpoint is left alone."""
    try:
        checkpoint = load_checkpoint(path)
    except InputError:
        return
    if checkpoint.get("optimizers_left_out") is not True:
        modified = path.stat().st_mtime_ns
        save_checkpoint(path, _without_optimizers(checkpoint), modified)


def _without_optimizers(checkpoint: dict) -> dict:
    content = {name: value for name, value in checkpoint.items() if name not in OPTIMIZERS}
    return {**content, "optimizers_left_out": True}


def _best_in(folder: Path) -> HeldOutPsnr | None:
    """What `best.pth` in a run's folder reached. A damaged one counts for nothing."""
    try:
        return chosen_by(load_checkpoint(folder / BEST))
    except InputError:
        return None
