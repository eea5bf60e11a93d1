"""Progress of long work: a bar on a terminal, a line every 30 seconds at most in a log.

Where the environment variable `DEEPVOXELS_PROGRESS` names a file, the progress is written there
too, as JSON: `done` of `total` `unit`s, and `per_second`. So a command follows those it starts.
"""

import json
import os
import threading
import time
from contextlib import suppress
from pathlib import Path

from tqdm import tqdm

REPORT_VARIABLE = "DEEPVOXELS_PROGRESS"
LOG_SECONDS = 30  # between the lines of a log
REPORT_SECONDS = 1  # between the writes of the file


class Progress(tqdm):
    """A tqdm bar. Where its output is no terminal, it prints a line every `LOG_SECONDS`, and one
    when it is closed."""

    def __init__(self, *args, **kwargs):
        self._started = time.monotonic()
        self._logged = self._started
        self._reported = 0.0
        kwargs.setdefault("dynamic_ncols", True)
        super().__init__(*args, **kwargs)
        if not self.disable and not self._is_shown:
            self.mininterval = max(self.mininterval, REPORT_SECONDS)

    @property
    def _is_shown(self) -> bool:
        """Whether a person sees the bar move."""
        return hasattr(self.fp, "isatty") and self.fp.isatty()

    def display(self, msg: str | None = None, pos: int | None = None) -> bool:
        now = time.monotonic()
        if now - self._reported >= REPORT_SECONDS:
            self._reported = now
            self._report()
        if self._is_shown:
            return super().display(msg, pos)
        if msg is None and now - self._logged >= LOG_SECONDS:
            self._logged = now
            self._log()
        return False  # nothing that could be cleared

    def clear(self, nolock: bool = False) -> None:
        if not self.disable and self._is_shown:
            super().clear(nolock)

    def close(self) -> None:
        if not getattr(self, "disable", True):
            self._report()
            if not self._is_shown:
                if self.leave:
                    self._log()
                self.leave = False
        super().close()

    def _log(self) -> None:
        self.fp.write(f"{self}\n")
        self.fp.flush()

    def _report(self) -> None:
        """Writes the file, whole or not at all. One that cannot be written is left out."""
        path = os.environ.get(REPORT_VARIABLE)
        if not path:
            return
        elapsed = time.monotonic() - self._started
        rate = self.format_dict["rate"] or (elapsed and (self.n - self.initial) / elapsed) or None
        content = {"done": self.n, "total": self.total, "unit": self.unit, "per_second": rate}
        part = Path(f"{path}.part")
        with suppress(OSError):
            part.write_text(json.dumps(content))
            part.replace(path)


# No other process writes to the same bar. tqdm's own lock could be shared with others, and a
# command that a signal ends would leave it behind, which Python 3.14 warns of.
Progress.set_lock(threading.RLock())
