"""Renders the views of a scene into their files, in several processes."""

import multiprocessing
import os
import pickle
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float

from data_util import view_name, write_image
from geometry.coverage import Pinhole
from machine.progress import Progress
from scenes.synthetic.raycast import RayCaster
from scenes.synthetic.surface import Surface
from util import InputError, new_file, usable_cores

RAYS_PER_PROCESS = 30_000_000  # fewer are done before another process has started


@dataclass(frozen=True)
class View:
    """One view to render, into `folder/rgb` and, if there is a `folder/depth`, its z-depth into
    that."""

    folder: Path
    index: int
    cam2world: Float[np.ndarray, "4 4"]

    def image_path(self) -> Path:
        return self.folder / "rgb" / f"{view_name(self.index)}.png"


@dataclass(frozen=True)
class RenderSettings:
    """What all views share. supersampling: rays a pixel along each axis."""

    surface: Surface
    camera: Pinhole
    supersampling: int


def render_views(
    views: list[View], settings: RenderSettings, workers: int | None, scratch: Path
) -> None:
    """Renders the views whose image is missing.

    Without `workers`, uses as many processes as there are cores, fewer if there is little to do.
    They are sent the surface through the file `scratch`, which is gone in the end.
    """
    scratch.unlink(missing_ok=True)  # of an earlier run that was killed
    missing = [view for view in views if not view.image_path().exists()]
    rays = len(missing) * (settings.camera.sidelength * settings.supersampling) ** 2
    workers = workers or min(1 + rays // RAYS_PER_PROCESS, usable_cores())
    with Progress(
        desc="render", total=len(views), initial=len(views) - len(missing), unit="view"
    ) as bar:
        if workers == 1:
            renderer = _ViewRenderer(settings)
            for view in missing:
                renderer.render(view)
                bar.update()
        else:
            for _ in _render_in_parallel(missing, settings, workers, scratch):
                bar.update()


class _ViewRenderer:
    """Renders views of one surface into their files."""

    def __init__(self, settings: RenderSettings):
        self.caster = RayCaster(settings.surface)
        self.camera = settings.camera
        self.supersampling = settings.supersampling

    def render(self, view: View) -> None:
        """Writes the image last: its file marks the view as finished."""
        camera = self.camera
        image = self.caster.render(
            view.cam2world, camera.matrix, camera.sidelength, self.supersampling
        )
        if (view.folder / "depth").is_dir():
            with new_file(view.folder / "depth" / f"{view_name(view.index)}.npz") as file:
                depth = self.caster.depth(view.cam2world, camera.matrix, camera.sidelength)
                np.savez_compressed(file, depth=depth)
        write_image(view.image_path(), image)


def _render_in_parallel(
    views: list[View], settings: RenderSettings, workers: int, scratch: Path
) -> Iterator[None]:
    """Spawns fresh processes: forked ones would inherit OpenCV's threads in a state that hangs.

    Raises InputError if one of them is killed.
    """
    try:
        # Sent through a file, because the pipe to a starting process would block until it has
        # started.
        scratch.write_bytes(pickle.dumps(settings))
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(
            workers, context, initializer=_start_worker, initargs=(scratch,)
        ) as pool:
            # Workers inherit the ignored signal: the parent alone handles Ctrl-C.
            handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
            finished = pool.map(_render_in_worker, views)
            signal.signal(signal.SIGINT, handler)
            try:
                yield from finished
            finally:
                pool.shutdown(cancel_futures=True)
    except BrokenProcessPool:
        raise InputError(
            f"--workers {workers}: a worker process was killed, perhaps because memory ran out. "
            "The same "
            "command goes on where this one ended; give it fewer --workers"
        ) from None
    finally:
        scratch.unlink(missing_ok=True)


_renderer: _ViewRenderer  # of a worker process


def _start_worker(scratch: Path) -> None:
    global _renderer
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    cv2.setNumThreads(1)  # the processes are the parallelism
    _renderer = _ViewRenderer(pickle.loads(scratch.read_bytes()))


def _exit_with_parent() -> None:
    """A killed parent cannot stop its workers, which would wait for it forever."""
    multiprocessing.parent_process().join()
    os._exit(1)


def _render_in_worker(view: View) -> None:
    _renderer.render(view)
