"""The viewer's rendering thread: the newest camera of each browser, in turns."""

import threading
import time

import pytest

from viewer.renderer import Renderer, Stopped


class Drawings:
    """A `draw` that notes for whom, in which order; it waits while `gate` is closed."""

    def __init__(self):
        self.drawn = []
        self.gate = threading.Event()
        self.begun = threading.Event()

    def __call__(self, client: int) -> None:
        self.drawn.append(client)
        self.begun.set()
        assert self.gate.wait(10)
        if client == 13:
            raise ValueError("unlucky\nclient")


@pytest.fixture
def drawings():
    return Drawings()


@pytest.fixture
def renderer(drawings):
    renderer = Renderer(drawings)
    yield renderer
    drawings.gate.set()
    renderer.stop()


def settle(renderer):
    """Waits until all that was asked for before is drawn."""
    for _ in range(10):
        renderer.run(lambda: None)


def test_only_the_newest_camera_is_drawn_and_turns_are_fair(renderer, drawings):
    renderer.ask(1)
    assert drawings.begun.wait(10)
    for _ in range(100):  # while the first picture is drawn, 1 and 2 move on, and 3 joins
        renderer.ask(1)
        renderer.ask(2)
    renderer.ask(3)
    drawings.gate.set()
    settle(renderer)
    assert drawings.drawn == [1, 1, 2, 3]


def test_browser_that_left_gets_no_picture(renderer, drawings):
    renderer.ask(1)
    assert drawings.begun.wait(10)
    renderer.ask(2)
    renderer.forget(2)
    drawings.gate.set()
    settle(renderer)
    assert drawings.drawn == [1]


def test_picture_that_fails_is_one_line_and_the_next_is_drawn(renderer, drawings, capsys):
    drawings.gate.set()
    for client in (13, 13, 1):
        renderer.ask(client)
        settle(renderer)
    assert drawings.drawn == [13, 13, 1]
    assert (
        capsys.readouterr().err == "viewer: error: a picture failed: ValueError: unlucky\\nclient\n"
    )


def test_other_work_runs_in_the_same_thread_between_pictures(renderer, drawings):
    drawings.gate.set()
    thread = renderer.run(threading.current_thread)
    assert thread.name == "renderer"
    assert renderer.run(lambda: renderer.run(threading.current_thread)) is thread
    with pytest.raises(KeyError):
        renderer.run(lambda: {}[1])
    done = []

    def work():
        for i in range(5):
            renderer.run(lambda i=i: (renderer.ask(1), done.append(i)))

    work()
    settle(renderer)
    assert done == list(range(5))
    assert drawings.drawn == [1] * 5  # one picture after each part of the work


def test_stopping_ends_the_thread_and_what_waits(drawings):
    renderer = Renderer(drawings)
    renderer.ask(1)
    assert drawings.begun.wait(10)
    problems = []

    def wait():
        try:
            renderer.run(lambda: None)
        except Stopped as error:
            problems.append(str(error))

    waiting = threading.Thread(target=wait)
    waiting.start()
    while not renderer._work:
        time.sleep(0.01)
    stopping = threading.Thread(target=renderer.stop)
    stopping.start()
    while not renderer._stopped:
        time.sleep(0.01)
    drawings.gate.set()
    stopping.join(10)
    waiting.join(10)
    # What waits beside a picture either runs or is told; nothing hangs.
    assert not stopping.is_alive()
    assert not waiting.is_alive()
    with pytest.raises(Stopped):
        renderer.run(lambda: None)
