"""What a command does when it is asked to end."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

ENDING = ("SIGINT", "SIGTERM", "SIGHUP")


@contextmanager
def handling(handler: Callable, *names: str) -> Iterator[None]:
    """Within it, `handler(number, frame)` is called for these signals.

    Those that the system lacks are left out (Windows has no SIGHUP and no SIGUSR1). A SIGHUP that
    is ignored stays ignored: the command runs under `nohup`.
    """
    previous = {}
    for name in names:
        number = getattr(signal, name, None)
        if number is None:
            continue
        if name == "SIGHUP" and signal.getsignal(number) is signal.SIG_IGN:
            continue
        previous[number] = signal.signal(number, handler)
    try:
        yield
    finally:
        for number, earlier in previous.items():
            signal.signal(number, earlier)
