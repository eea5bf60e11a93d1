"""The thread that renders, for all browsers: the newest camera of each, in turns, and other work in
between."""

import contextlib
import sys
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future
from typing import TypeVar

import torch

from util import one_line

T = TypeVar("T")


class Stopped(Exception):
    """The rendering thread has ended, or does before it comes to this work."""


class Renderer:
    """Calls `draw(client)` for clients that asked for a picture, and functions that others want run
    beside it.

    A client that asks again before its turn keeps its turn and gets one picture, of what is newest
    then. So no queue grows, and no client waits for more than one picture of each other. A model is
    used by this thread alone.
    """

    def __init__(self, draw: Callable[[int], None]):
        self._draw = draw
        self._asking: OrderedDict[int, None] = OrderedDict()
        self._work: deque[tuple[Callable, Future]] = deque()
        self._changed = threading.Condition()
        self._stopped = False
        self._reported = ""
        self._thread = threading.Thread(target=self._loop, name="renderer", daemon=True)
        self._thread.start()

    def ask(self, client: int) -> None:
        """Asks for a picture for a client."""
        with self._changed:
            self._asking.setdefault(client)
            self._changed.notify()

    def forget(self, client: int) -> None:
        """Drops what a client asked for."""
        with self._changed:
            self._asking.pop(client, None)

    def run(self, function: Callable[[], T]) -> T:
        """Runs a function in the rendering thread, between pictures, and returns its result or
        raises its exception.

        Raises `Stopped` if the thread has ended.
        """
        if threading.current_thread() is self._thread:
            return function()
        future = Future()
        with self._changed:
            if self._stopped:
                raise Stopped("the viewer has stopped")
            self._work.append((function, future))
            self._changed.notify()
        return future.result()

    def in_turns(self, items: Generator[T, None, None]) -> Iterator[T]:
        """What a generator yields, each item computed in the rendering thread when it is that
        work's turn."""
        try:
            while (item := self.run(lambda: next(items, None))) is not None:
                yield item
        finally:
            with contextlib.suppress(Stopped):
                self.run(items.close)

    def stop(self) -> None:
        """Ends the thread after what it does now. Work that still waits raises `Stopped` where it
        is waited for."""
        with self._changed:
            self._stopped = True
            self._changed.notify()
        self._thread.join()
        for _, future in self._work:
            future.set_exception(Stopped("the viewer has stopped"))

    def _loop(self) -> None:
        with torch.inference_mode():
            while True:
                with self._changed:
                    self._changed.wait_for(lambda: self._stopped or self._asking or self._work)
                    if self._stopped:
                        return
                    client = self._asking.popitem(last=False)[0] if self._asking else None
                    work = self._work.popleft() if self._work else None
                if client is not None:
                    self._draw_or_report(client)
                if work is not None:
                    self._finish(*work)

    def _draw_or_report(self, client: int) -> None:
        try:
            self._draw(client)
        except Exception as error:  # one picture that fails must not end all
            problem = f"{type(error).__name__}: {one_line(str(error))}"
            if problem != self._reported:  # not once for every picture
                print(f"viewer: error: a picture failed: {problem}", file=sys.stderr)
            self._reported = problem

    @staticmethod
    def _finish(function: Callable, future: Future) -> None:
        try:
            future.set_result(function())
        except BaseException as error:  # raised where the result is waited for
            future.set_exception(error)
