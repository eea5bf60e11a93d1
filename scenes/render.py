"""Renders a synthetic scene by the paper's protocol: one object, training views around it, a test
path.

    python -m scenes.render --out data/cube
    python -m scenes.render --out data/small --sidelength 64 --train_views 150 --test_views 60
    python -m scenes.render --mesh bust.glb --out data/bust

The object is centered and scaled into the unit cube. Training and validation cameras are uniform on
the northern hemisphere, test cameras on an Archimedean spiral over it; images are rendered at twice
their size and area-averaged. The true depth of the test views (z, world units, infinite where there
is nothing) is kept in test/depth/*.npz. The same command continues an interrupted run.
"""

import json
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
from jaxtyping import Float

from data_util import SceneIntrinsics, write_intrinsics, write_poses
from files.folders import finish_folder, held_folder, real_path, refuse_existing
from geometry.cameras import hemisphere, look_at, near_plane, spiral
from machine.cli import Parser, number, run
from scenes.synthetic.mesh_file import default_up, load_surface
from scenes.synthetic.objects import OBJECTS
from scenes.synthetic.raycast import RayCaster
from scenes.synthetic.render_views import RenderSettings, View, render_views
from scenes.synthetic.surface import Surface, fit_unit_cube
from util import InputError, one_line, read_text, write_json

PROG = "scenes.render"
GRID_SCALE = 1.1  # a little larger than the unit cube, so that no surface lies on the grid's border
# a look at a mesh before hours of rendering
LOOK_VIEWS = 8
LOOK_SIDELENGTH = 64
IMAGE_MARGIN = 1.05  # room around the object's bounding sphere in the image


def main(argv: Sequence[str] | None = None) -> None:
    args = _parse(argv)
    refuse_existing(args.out)
    surface, mesh_files = _surface(args)
    if args.radius <= surface.radius():
        raise InputError(
            f"--radius {args.radius:g}: is inside the object, which reaches {surface.radius():.3f}"
        )
    centers = {
        "train": hemisphere(args.train_views, args.radius, args.seed),
        "test": spiral(args.test_views, args.radius),
    }
    if args.val_views:
        centers["validation"] = hemisphere(args.val_views, args.radius, args.seed + 1)
    cam2world = {
        split: look_at(positions, target=np.zeros(3), up=np.array([0.0, 0.0, 1.0]))
        for split, positions in centers.items()
    }
    intrinsics = _intrinsics(surface.radius(), args.radius, args.sidelength)
    if args.mesh:
        _require_visible(args.mesh, surface, cam2world["train"], intrinsics)
    with held_folder(_partial(args.out)) as partial:
        refuse_existing(args.out)  # again: another process may have finished it meanwhile
        _start_or_continue(partial, _settings(args, mesh_files))
        _warn_of_missing(args.mesh, mesh_files or {})
        for split, poses in cam2world.items():
            write_poses(partial / split, poses)
            write_intrinsics(partial / split / "intrinsics.txt", intrinsics)
            (partial / split / "rgb").mkdir(exist_ok=True)
        (partial / "test" / "depth").mkdir(exist_ok=True)
        sample_spacing = (args.radius - 0.5) / (intrinsics.focal * args.supersampling)
        render_views(
            [
                View(partial / split, index, pose)
                for split, poses in cam2world.items()
                for index, pose in enumerate(poses)
            ],
            RenderSettings(
                surface.prefiltered(sample_spacing),
                intrinsics.pinhole(args.sidelength),
                args.supersampling,
            ),
            args.workers,
            scratch=partial / ".setup",
        )
        finish_folder(partial, args.out)
    validation = f", {args.val_views} validation" if args.val_views else ""
    print(
        f"{args.out}: {args.train_views} training{validation} and {args.test_views} test views of "
        f"{args.sidelength} pixels, "
        f"grid of sidelength {GRID_SCALE:g} about the origin, near plane "
        f"{intrinsics.near_plane:.4f}"
    )


def _partial(out: Path) -> Path:
    """The folder of unfinished work."""
    destination = real_path(out)
    return destination.with_name(f"{destination.name}.partial")


def _parse(argv: Sequence[str] | None):
    parser = Parser(PROG, __doc__)
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="DIR",
        help="the scene to make: DIR/train, DIR/test",
    )
    source = parser.add_mutually_exclusive_group()
    source.add_argument(
        "--object", choices=sorted(OBJECTS), default="cube", help="what to render (default: cube)"
    )
    source.add_argument(
        "--mesh",
        type=Path,
        metavar="FILE",
        help="a mesh (glb, gltf, obj, off, ply, stl), with its texture or vertex colors; files "
        "that it "
        "names must lie in its folder",
    )
    parser.add_argument(
        "--mesh_up", choices="xyz", help="the mesh's up axis (default: y for glTF and OBJ, else z)"
    )
    parser.add_argument(
        "--sidelength", type=number(int, 1), default=512, help="image size in pixels (default: 512)"
    )
    parser.add_argument(
        "--supersampling",
        type=number(int, 1),
        default=2,
        help="render at this multiple of the size, then average (default: 2)",
    )
    parser.add_argument("--train_views", type=number(int, 1), default=479, help="default: 479")
    parser.add_argument("--test_views", type=number(int, 1), default=1000, help="default: 1000")
    parser.add_argument(
        "--val_views",
        type=number(int, 0),
        default=0,
        help="validation views, which --validate_every measures, so that the test views choose no "
        "checkpoint (default: 0)",
    )
    parser.add_argument(
        "--radius",
        type=number(float, above=0),
        default=2.0,
        help="distance of the cameras from the center of the object, whose size is 1 (default: 2)",
    )
    parser.add_argument(
        "--seed", type=number(int, 0), default=0, help="rotates the training cameras (default: 0)"
    )
    parser.add_argument(
        "--workers",
        type=number(int, 1),
        help="processes (default: one per core, fewer if there is little to do)",
    )
    return parser.parse_args(argv)


def _intrinsics(object_radius: float, camera_radius: float, sidelength: int) -> SceneIntrinsics:
    """A camera whose image just fits the object's bounding sphere."""
    half_angle = np.arcsin(object_radius / camera_radius)
    focal = sidelength / 2 / (np.tan(half_angle) * IMAGE_MARGIN)
    near = near_plane(camera_radius, GRID_SCALE)
    return SceneIntrinsics(
        focal,
        sidelength / 2,
        sidelength / 2,
        (0.0, 0.0, 0.0),
        near,
        GRID_SCALE,
        sidelength,
        sidelength,
    )


def _surface(args) -> tuple[Surface, dict[str, str | None] | None]:
    """What to render, and the hashes of the files that it comes from; None for an object of this
    project."""
    if not args.mesh:
        return Surface.from_meshes(fit_unit_cube(OBJECTS[args.object]())), None
    args.mesh_up = args.mesh_up or _mesh_up(args.mesh, _partial(args.out) / "scene.json")
    return load_surface(args.mesh, args.mesh_up)


def _mesh_up(mesh: Path, record: Path) -> str:
    """The up axis of a mesh for which the user gives none. Says which one is taken where the format
    does not.

    record: of unfinished work. Of an OBJ whose frames there are z up, the others will be too.
    """
    up = default_up(mesh)
    if mesh.suffix.lower() == ".obj" and record.exists():
        with suppress(ValueError, RecursionError, AttributeError, TypeError):
            if _recorded(record).get("mesh_up") == "z":
                print(f"{mesh}: z is taken as up, as in the frames of {record.parent}")
                return "z"
    if up == "z":
        print(f"{mesh}: does not say which way is up; z is taken, or what --mesh_up says")
    return up


def _warn_of_missing(mesh: Path | None, mesh_files: dict[str, str | None]) -> None:
    for name, content in mesh_files.items():
        if content is None:
            print(
                f"warning: {mesh}: names {one_line(name[:200])}, which is not in its folder; "
                "rendered without",
                file=sys.stderr,
            )


def _require_visible(
    mesh: Path,
    surface: Surface,
    cam2world: Float[np.ndarray, "views 4 4"],
    intrinsics: SceneIntrinsics,
) -> None:
    """Raises InputError if the first cameras see nothing: no pixel shows a triangle so thin or so
    far from the rest."""
    caster = RayCaster(surface)
    size = min(intrinsics.width, LOOK_SIDELENGTH)
    if not any(
        np.isfinite(caster.depth(pose, intrinsics.matrix(size), size)).any()
        for pose in cam2world[:LOOK_VIEWS]
    ):
        raise InputError(
            f"{mesh}: nothing of it can be seen: its triangles are too thin, or far apart from "
            "each other"
        )


def _settings(args, mesh_files: dict[str, str | None] | None) -> dict:
    """Everything that a view depends on."""
    return {
        "source": "scenes.render",
        "object": None if args.mesh else args.object,
        "mesh": str(args.mesh.absolute()) if args.mesh else None,
        "mesh_files": mesh_files,
        "mesh_up": args.mesh_up,
        "sidelength": args.sidelength,
        "supersampling": args.supersampling,
        "train_views": args.train_views,
        "test_views": args.test_views,
        "val_views": args.val_views,
        "radius": args.radius,
        "seed": args.seed,
        "origin": [0.0, 0.0, 0.0],
        "scale": GRID_SCALE,
    }


def _recorded(record: Path) -> dict:
    """The settings of unfinished work. Earlier versions made no validation views, recorded no axis
    unless one was given, and took all meshes but glTF as z up. Raises many errors if the record is
    damaged."""
    earlier = {"val_views": 0, **json.loads(read_text(record))}
    mesh = earlier.get("mesh")
    if mesh and not earlier.get("mesh_up"):
        is_gltf = Path(mesh).suffix.lower() in (".glb", ".gltf")
        earlier["mesh_up"] = "y" if is_gltf else "z"
    return earlier


def _start_or_continue(partial: Path, settings: dict) -> None:
    """Records the settings in the folder of unfinished work. Raises InputError if it was begun with
    others."""
    record = partial / "scene.json"
    if record.exists():
        try:
            earlier = _recorded(record)
            changed = [name for name in settings if earlier.get(name) != settings[name]]
            before = earlier.get("mesh_files") or {}
            now = settings["mesh_files"] or {}
            files = sorted(
                name for name in before.keys() | now.keys() if before.get(name) != now.get(name)
            )
        except (ValueError, RecursionError, AttributeError, TypeError):
            raise InputError(
                f"{record}: is damaged. If the same command made the frames beside it, delete this "
                "file "
                f"alone to go on; else delete {partial}"
            ) from None
        if changed[:1] == ["mesh_files"]:
            raise InputError(
                f"{partial}: holds unfinished work with other files ({', '.join(files)} changed "
                "since); "
                "delete it or bring them back"
            )
        if changed:
            raise InputError(
                f"{partial}: holds unfinished work with other settings ({changed[0]} was "
                f"{earlier.get(changed[0])}, now {settings[changed[0]]}); delete it or repeat them"
            )
    write_json(record, settings)


if __name__ == "__main__":
    run(PROG, main)
