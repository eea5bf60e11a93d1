"""Finds the checkpoint to show, and notices when training has written a newer one."""

from pathlib import Path
from threading import Event

from files.runs import (
    best_checkpoint,
    checkpoints_by_step,
    latest_checkpoint,
    newest_checkpoint,
    start_of,
)
from util import InputError

POLL_SECONDS = 1.0


class Watch:
    """Follows what `--checkpoint` names: a file, a run's folder, 'latest', the newest run under the
    logging root, or 'best', the best checkpoint of that run.

    'latest' and 'best' are settled once: a run that begins later is not followed. `newest` is a
    checkpoint's path, or None if the run has none yet. Of a folder with nothing but checkpoints the
    last one is shown.
    """

    def __init__(self, checkpoint: str, logging_root: Path):
        self.target = Path(checkpoint)
        if checkpoint == "latest":
            self.target = newest_run(logging_root)
        elif checkpoint == "best":
            self.target = best_checkpoint(logging_root)
        elif not self.target.exists():
            raise InputError(f"--checkpoint {checkpoint}: no such file")
        elif (
            self.target.is_dir()
            and not (self.target / "options.json").is_file()
            and self.newest() is None
        ):
            if not (kept := checkpoints_by_step(self.target)):
                raise InputError(
                    f"--checkpoint {checkpoint}: is no run's folder (LOGS/logs/MM_DD/TIME_NAME)"
                )
            self.target = kept[-1]
        self._seen = None

    def newest(self) -> Path | None:
        """The newest checkpoint now."""
        return newest_checkpoint(self.target) if self.target.is_dir() else self.target

    def changed(self) -> Path | None:
        """The newest checkpoint, unless it is the file returned last time."""
        path = self.newest()
        try:
            status = path and path.stat()
        except OSError:  # removed meanwhile
            return None
        seen = status and (path, status.st_mtime_ns, status.st_size, status.st_ino)
        if seen == self._seen or not seen:
            return None
        self._seen = seen
        return path

    def wait_for_first(self, stopped: Event) -> Path | None:
        """Waits until there is a checkpoint; None if `stopped` is set before."""
        told = False
        while not stopped.is_set():
            if path := self.changed():
                return path
            if not told:
                print(
                    f"{self.target}: waiting for its first checkpoint (--checkpoint_minutes says "
                    "how often training saves one)",
                    flush=True,
                )
                told = True
            stopped.wait(POLL_SECONDS)
        return None


def newest_run(logging_root: Path) -> Path:
    """The folder of the run with the newest checkpoint, or else of the run that started last.

    Raises `InputError` if there is no run.
    """
    if newest := latest_checkpoint(logging_root):
        return newest.parent
    starts = list(logging_root.glob("logs/*/*/options.json"))
    if not starts:
        raise InputError(f"--checkpoint latest: there is no run under {logging_root}/logs")
    return max((path.parent for path in starts), key=start_of)
