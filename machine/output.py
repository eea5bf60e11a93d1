"""What a command prints never ends it: a reader that has gone, a full disk or a closed terminal
costs the text alone."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from typing import Any


class BestEffortStream:
    """A text stream whose failed writes are lost."""

    def __init__(self, stream: Any):
        self._stream = stream

    def write(self, text: str) -> int:
        with suppress(OSError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError):
            self._stream.flush()

    def __getattr__(self, name: str):
        return getattr(self._stream, name)


@contextmanager
def best_effort_output() -> Iterator[None]:
    """Within it, nothing that cannot be printed raises an error, nor when Python ends."""
    open_closed_streams()
    streams = sys.stdout, sys.stderr
    # File names need not be valid text.
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")
    with (
        redirect_stdout(BestEffortStream(sys.stdout)),
        redirect_stderr(BestEffortStream(sys.stderr)),
    ):
        try:
            yield
        finally:
            for stream in streams:
                flush_or_lose(stream)


def open_closed_streams() -> None:
    """Opens standard streams that were closed (`>&-`) on nothing. A file opened later would take
    their number, and whatever a library prints."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, this one
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115  open until Python ends
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115


def flush_or_lose(stream: Any) -> None:
    """Flushes a stream. Where it cannot be written, what it holds is lost, without a traceback when
    Python ends."""
    try:
        stream.flush()
    except OSError:
        _discard_writes_to(stream.fileno())


def _discard_writes_to(descriptor: int) -> None:
    """Whatever is written there is lost from now on."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, descriptor)
    os.close(nowhere)
