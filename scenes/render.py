"""Renders a synthetic scene after the paper's protocol: one object, training views around it, a test path.

    python -m scenes.render --out data/cube
    python -m scenes.render --out data/small --sidelength 64 --train_views 150 --test_views 60
    python -m scenes.render --mesh bust.glb --out data/bust

The object is centered and scaled into the unit cube. Training cameras are uniform on the northern hemisphere, test
cameras on an Archimedean spiral over it; images are rendered at twice their size and area-averaged. The true depth of
the test views (z, world units, infinite where there is nothing) is kept in test/depth/*.npz. An interrupted run goes
on where it was when the same command is given again.
"""
import json
import multiprocessing
import os
import pickle
import signal
import tempfile
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float
from tqdm import tqdm

from cli import Parser, number, run
from data_util import SceneIntrinsics
from scenes.folder import (
    finish_folder,
    refuse_existing,
    view_name,
    write_image,
    write_intrinsics,
    write_json,
    write_poses,
)
from scenes.geometry.cameras import hemisphere, look_at, near_plane, spiral
from scenes.synthetic.objects import OBJECTS
from scenes.synthetic.raycast import RayCaster
from scenes.synthetic.surface import Surface, fit_unit_cube, load_meshes
from util import InputError

PROG = "scenes.render"
GRID_SCALE = 1.1  # the grid is a little larger than the unit cube, so that no surface lies on its border
RAYS_PER_PROCESS = 30_000_000  # less is done sooner than another process has started
IMAGE_MARGIN = 1.05  # room around the object's bounding sphere in the image


def main(argv: Sequence[str] | None = None) -> None:
    args = _parse(argv)
    refuse_existing(args.out)
    meshes = load_meshes(args.mesh, args.mesh_up) if args.mesh else OBJECTS[args.object]()
    surface = Surface.from_meshes(fit_unit_cube(meshes))
    if args.radius <= surface.radius():
        raise InputError(f"--radius {args.radius:g}: is inside the object, which reaches {surface.radius():.3f}")
    centers = {"train": hemisphere(args.train_views, args.radius, args.seed),
               "test": spiral(args.test_views, args.radius)}
    cam2world = {split: look_at(positions, target=np.zeros(3), up=np.array([0.0, 0.0, 1.0]))
                 for split, positions in centers.items()}
    intrinsics = _intrinsics(surface.radius(), args.radius, args.sidelength)
    partial = _start_or_continue(args)
    for split, poses in cam2world.items():
        write_poses(partial / split, poses)
        write_intrinsics(partial / split / "intrinsics.txt", intrinsics)
        (partial / split / "rgb").mkdir(exist_ok=True)
    (partial / "test" / "depth").mkdir(exist_ok=True)
    _render_views(partial, surface, cam2world, intrinsics, args)
    finish_folder(partial, args.out)
    print(f"{args.out}: {args.train_views} training and {args.test_views} test views of {args.sidelength} pixels, "
          f"grid of sidelength {GRID_SCALE:g} about the origin, near plane {intrinsics.near_plane:.4f}")


def _parse(argv: Sequence[str] | None):
    parser = Parser(PROG, __doc__)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="the scene to make: DIR/train, DIR/test")
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--object", choices=sorted(OBJECTS), default="cube", help="what to render (default: cube)")
    source.add_argument("--mesh", type=Path, metavar="FILE",
                        help="a mesh that trimesh reads (glb, obj, ply, ...), with its texture or vertex colors")
    parser.add_argument("--mesh_up", choices="xyz", help="the mesh's up axis (default: y for glTF, else z)")
    parser.add_argument("--sidelength", type=number(int, 1), default=512, help="image size in pixels (default: 512)")
    parser.add_argument("--supersampling", type=number(int, 1), default=2,
                        help="render this many times as large, then average (default: 2)")
    parser.add_argument("--train_views", type=number(int, 1), default=479, help="default: 479")
    parser.add_argument("--test_views", type=number(int, 1), default=1000, help="default: 1000")
    parser.add_argument("--radius", type=number(float, above=0), default=2.0,
                        help="distance of the cameras from the object's center, whose size is 1 (default: 2)")
    parser.add_argument("--seed", type=number(int, 0), default=0, help="turns the training cameras (default: 0)")
    parser.add_argument("--workers", type=number(int, 1),
                        help="processes (default: as many as there are cores, fewer where there is little to do)")
    return parser.parse_args(argv)


def _intrinsics(object_radius: float, camera_radius: float, sidelength: int) -> SceneIntrinsics:
    """A camera in whose image the object's bounding sphere just fits."""
    half_angle = np.arcsin(object_radius / camera_radius)
    focal = sidelength / 2 / (np.tan(half_angle) * IMAGE_MARGIN)
    near = near_plane(np.array([[camera_radius, 0, 0]]), np.zeros(3), GRID_SCALE)
    return SceneIntrinsics(focal, sidelength / 2, sidelength / 2, (0.0, 0.0, 0.0), near, GRID_SCALE, sidelength,
                           sidelength)


def _start_or_continue(args) -> Path:
    """The folder of unfinished work beside the target, which must be of the same settings where it exists."""
    target = args.out.absolute()
    partial = target.with_name(f"{target.name}.partial")
    settings = {"source": "scenes.render", "object": None if args.mesh else args.object,
                "mesh": str(args.mesh.absolute()) if args.mesh else None, "mesh_up": args.mesh_up,
                "sidelength": args.sidelength, "supersampling": args.supersampling, "train_views": args.train_views,
                "test_views": args.test_views, "radius": args.radius, "seed": args.seed,
                "origin": [0.0, 0.0, 0.0], "scale": GRID_SCALE}
    record = partial / "scene.json"
    if record.is_file():
        try:
            earlier = json.loads(record.read_text())
        except ValueError:
            raise InputError(f"{record}: is damaged; delete {partial} to start again") from None
        changed = [name for name in settings if earlier.get(name) != settings[name]]
        if changed:
            raise InputError(f"{partial}: holds unfinished work of other settings ({changed[0]} was "
                             f"{earlier.get(changed[0])}, now {settings[changed[0]]}); delete it or repeat them")
    partial.mkdir(parents=True, exist_ok=True)
    write_json(record, settings)
    return partial


def _render_views(scene: Path, surface: Surface, cam2world: dict[str, Float[np.ndarray, "_ 4 4"]],
                  intrinsics: SceneIntrinsics, args) -> None:
    """Renders the views that are missing, in parallel."""
    views = [(scene / split, index, pose) for split, poses in cam2world.items() for index, pose in enumerate(poses)]
    missing = [view for view in views if not _image_path(*view[:2]).exists()]
    spacing = (args.radius - 0.5) / (intrinsics.focal * args.supersampling)
    setup = (surface.prefiltered(spacing), intrinsics.matrix(args.sidelength), args.sidelength, args.supersampling)
    rays = len(missing) * (args.sidelength * args.supersampling) ** 2
    workers = args.workers or min(1 + rays // RAYS_PER_PROCESS, len(os.sched_getaffinity(0)))
    with tqdm(desc="render", total=len(views), initial=len(views) - len(missing), unit="view") as bar:
        if workers == 1:
            renderer = _Renderer(*setup)
            for view in missing:
                renderer.render(view)
                bar.update()
        else:
            for _ in _in_parallel(missing, setup, workers):
                bar.update()


def _in_parallel(views: list, setup: tuple, workers: int) -> Iterator[None]:
    """Renders views in processes that start afresh: a fork would inherit OpenCV's threads in a state that hangs."""
    with tempfile.TemporaryDirectory() as folder:
        # The surface travels in a file: through the pipe to a process that is still starting, it would keep us waiting.
        path = Path(folder) / "setup.pickle"
        path.write_bytes(pickle.dumps(setup))
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(workers, context, initializer=_start_worker, initargs=(path,)) as pool:
            # Workers inherit that Ctrl-C is ignored; it is the parent's to handle.
            handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
            finished = pool.map(_render_in_worker, views)
            signal.signal(signal.SIGINT, handler)
            try:
                yield from finished
            finally:
                pool.shutdown(cancel_futures=True)


class _Renderer:
    """Renders views of one surface into their files."""

    def __init__(self, surface: Surface, matrix: Float[np.ndarray, "3 3"], sidelength: int, supersampling: int):
        self.caster, self.matrix = RayCaster(surface), matrix
        self.sidelength, self.supersampling = sidelength, supersampling

    def render(self, view: tuple[Path, int, Float[np.ndarray, "4 4"]]) -> None:
        """The image is written last, as the sign that the view is finished."""
        folder, index, cam2world = view
        image = self.caster.render(cam2world, self.matrix, self.sidelength, self.supersampling)
        if (folder / "depth").is_dir():
            np.savez_compressed(folder / "depth" / f"{view_name(index)}.npz",
                                depth=self.caster.depth(cam2world, self.matrix, self.sidelength))
        write_image(_image_path(folder, index), image)


def _start_worker(setup: Path) -> None:
    global _renderer
    threading.Thread(target=_end_with_parent, daemon=True).start()
    cv2.setNumThreads(1)  # the processes are the parallelism
    _renderer = _Renderer(*pickle.loads(setup.read_bytes()))


def _end_with_parent() -> None:
    """A parent that was killed cannot tell its workers, who would wait for it forever."""
    multiprocessing.parent_process().join()
    os._exit(1)


def _render_in_worker(view: tuple[Path, int, Float[np.ndarray, "4 4"]]) -> None:
    _renderer.render(view)


def _image_path(folder: Path, index: int) -> Path:
    return folder / "rgb" / f"{view_name(index)}.png"


if __name__ == "__main__":
    run(PROG, main)
