"""What the controls of one browser set off, in threads of its own."""

import contextlib
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from util import one_line
from viewer.renderer import Stopped

# A preview, a video, features and a surface take long; the others are for what stops them.
THREADS = 8
PATIENCE = 60.0  # seconds, for the controls to be there


class Actions:
    """Runs actions of one browser.

    viser runs callbacks in the few threads in which it welcomes browsers too: as many previews
    would keep everybody else out. So its callbacks only leave an action here. Actions wait until
    `begin`, since a click may come before the browser is ready.
    """

    def __init__(self):
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="browser")
        self._begun = threading.Event()
        self._closed = False

    def callback(self, action: Callable[[], None]) -> Callable:
        """A callback for viser, which awaits it in its event loop, that has the action run."""

        async def callback(_) -> None:
            with contextlib.suppress(RuntimeError):  # the browser has left
                self._threads.submit(self._run, action)

        return callback

    def begin(self) -> None:
        """Lets actions run."""
        self._begun.set()

    def close(self) -> None:
        """Drops what has not begun."""
        self._closed = True
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._begun.set()

    def _run(self, action: Callable[[], None]) -> None:
        if not self._begun.wait(PATIENCE) or self._closed:
            return
        try:
            action()
        except Stopped:
            pass  # the viewer ends
        except Exception as error:  # one click that fails must not end all
            problem = f"{type(error).__name__}: {one_line(str(error))}"
            print(f"viewer: error: a control failed: {problem}", file=sys.stderr)
