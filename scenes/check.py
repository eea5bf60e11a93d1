"""Checks a scene folder before hours of training on it, and draws its contents.

    python -m scenes.check data/mine

DIR is a scene (with train/ and test/) or one folder with pose/ and intrinsics.txt. Prints counts,
sizes, whether the poses are valid and which way their axes point, and what share of the grid each
view sees and its depth planes cover. DIR/check.png shows cameras, grid and sparse points from above
and from the side, and the grid's box over a few photos. In a folder that is read-only there is no
picture. The exit code is 1 if training cannot work.
"""

import errno
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Float

from data_util import (
    DEFAULT_NEAR_PLANE,
    SceneIntrinsics,
    list_images,
    list_poses,
    load_image,
    load_intrinsics,
    load_pose,
    pair_views,
    rounded_poses,
    scene_parts,
    write_image,
)
from files.images import may_be_transparent, orientation
from files.points import find_points, load_points
from geometry.coverage import covered_share, judge, seen_share
from machine.cli import Parser, number, run
from machine.pasted import REPOSITORY, command, shown_path
from machine.progress import Progress
from scenes.capture.listing import same_pictures
from scenes.capture.photos import brightness_stops, brightness_warning
from util import InputError

PROG = "scenes.check"
# A scene that is not the user's own can be checked
READ_ONLY = {errno.EACCES, errno.EPERM, errno.EROFS}


@dataclass
class Findings:
    """The contents of one scene folder, and what is wrong with it. names, cam2world: of the poses
    that can be read. readable: the images that can be loaded."""

    folder: Path
    intrinsics: SceneIntrinsics
    names: list[str] = field(default_factory=list)
    cam2world: Float[np.ndarray, "views 4 4"] = field(default_factory=lambda: np.zeros((0, 4, 4)))
    images: list[Path] = field(default_factory=list)
    readable: list[Path] = field(default_factory=list)
    facts: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


@contextmanager
def noted(lines: list[str]) -> Iterator[None]:
    """An `InputError` in the block is added to the lines, and the examination goes on."""
    try:
        yield
    except InputError as error:
        lines.append(str(error))


def main(argv: Sequence[str] | None = None) -> None:
    parser = Parser(PROG, __doc__)
    parser.add_argument("folder", type=Path, metavar="DIR", help="a scene, or one of its folders")
    parser.add_argument(
        "--near_plane",
        type=number(float, above=0),
        default=DEFAULT_NEAR_PLANE,
        help="near plane in world units if intrinsics.txt says 0, as for training (default: "
        f"{DEFAULT_NEAR_PLANE:.3f})",
    )
    args = parser.parse_args(argv)
    all_findings = [
        examine(part, args.near_plane, to_train_on=index == 0 and part.name != "test")
        for index, part in enumerate(scene_parts(args.folder))
    ]
    train, *others = all_findings
    if train.folder.name == "train":
        _find_leaks(train, others)
    points = np.zeros((0, 3))
    with noted(train.warnings):  # training does not read them
        points = sparse_points(args.folder)
    for findings in all_findings:
        print(findings.folder)
        for kind, lines in [
            ("", findings.facts),
            ("error: ", findings.errors),
            ("warning: ", findings.warnings),
        ]:
            for line in lines:
                print(f"  {kind}{line}")
    drawn = next((findings for findings in all_findings if findings.names), None)
    if drawn is not None:
        # here, because matplotlib takes long to import
        from scenes.capture.check_picture import draw_check

        picture = draw_check(drawn.cam2world, drawn.intrinsics, drawn.names, drawn.images, points)
        path = args.folder / "check.png"
        try:
            write_image(path, picture)
            print(f"{path}: {drawn.folder.name} views, grid and points")
        except OSError as error:
            if error.errno not in READ_ONLY:
                raise
            print(f"warning: {path}: cannot be written ({error.strerror})", file=sys.stderr)
    print(_verdict(all_findings))
    if any(findings.errors for findings in all_findings):
        sys.exit(1)
    if (args.folder / "train" / "rgb").is_dir():
        print("to try it, at 64 pixels:")
        print(_training_command(args.folder))


def _training_command(scene: Path) -> str:
    words = ["--train_test", "train", "--data_root", shown_path(scene / "train")]
    logs = scene.absolute().with_name(f"{scene.absolute().name}_logs")
    words += ["--logging_root", shown_path(logs)]
    words += ["--size", "small", "--recipe", "fast", "--max_steps", "1000"]
    held_out = scene / "validation", scene / "test"
    if any((folder / "rgb").is_dir() for folder in held_out):
        words += ["--validate_every", "250"]
    return command(shown_path(REPOSITORY / "run_deepvoxels.py"), *words)


def _verdict(all_findings: list[Findings]) -> str:
    errors = sum(len(findings.errors) for findings in all_findings)
    warnings = sum(len(findings.warnings) for findings in all_findings)
    if errors:
        return f"verdict: training cannot work ({errors} errors, {warnings} warnings)"
    if warnings:
        return f"verdict: training can work; {warnings} warnings say what costs quality"
    return "verdict: nothing is wrong"


def _find_leaks(train: Findings, others: list[Findings]) -> None:
    """Warns in the other folders of images that are training images too."""
    seen = train.readable
    for findings in others:
        images = seen + findings.readable
        leaks = [pair for pair in same_pictures(images) if pair[0] < len(seen) <= pair[1]]
        if leaks:
            trained_on, held_out = (images[index].name for index in leaks[0])
            findings.warnings.append(
                f"{len(leaks)} of {len(findings.images)} images are trained on too: {held_out} is "
                f"the same picture as {trained_on}"
            )


def sparse_points(folder: Path) -> Float[np.ndarray, "points 3"]:
    """The scene's sparse points, perhaps none."""
    path = find_points(folder)
    return np.zeros((0, 3)) if path is None else load_points(path)[0]


def examine(
    folder: Path, default_near_plane: float = DEFAULT_NEAR_PLANE, to_train_on: bool = False
) -> Findings:
    """Reads one scene folder as far as possible. Raises InputError only if nothing is left to
    examine.

    to_train_on: whether too few views to train on are an error, if there are images.
    """
    findings = Findings(folder, load_intrinsics(folder / "intrinsics.txt"))
    paths = list_poses(folder / "pose")
    poses = []
    for path in paths:
        with noted(findings.errors):
            poses.append(load_pose(path))
            findings.names.append(path.stem)
    if len(poses) == len(paths) and (line := rounded_poses(paths)):
        findings.warnings.append(line)
    _examine_images(findings, paths)
    if poses:
        findings.cam2world = findings.intrinsics.to_cam2world(np.stack(poses))
        seeing = _examine_geometry(findings, default_near_plane)
        if to_train_on and (folder / "rgb").is_dir() and seeing < 2:
            findings.errors.append(
                f"{folder}: has {seeing} views that see the grid, training needs two; check "
                "origin, scale and near plane in intrinsics.txt"
            )
    return findings


def _examine_images(findings: Findings, poses: list[Path]) -> None:
    intrinsics = findings.intrinsics
    folder = findings.folder
    findings.facts.append(f"{len(poses)} poses, {len(findings.names)} of them valid")
    if not (folder / "rgb").is_dir():
        findings.facts.append(
            "no images (rgb/): can be rendered, but not trained on or measured against"
        )
        return
    findings.images = list_images(folder / "rgb")
    with noted(findings.errors):
        findings.images = pair_views(folder, findings.images, poses)
    sizes = {}
    turned = []
    stops = {}
    for path in Progress(
        findings.images, desc=f"{folder.name} images", unit="image", leave=False, delay=2
    ):
        with noted(findings.errors):
            sizes.setdefault(load_image(path).shape[:2], path)
            findings.readable.append(path)
            if orientation(path) != 1:
                turned.append(path.name)
            if not may_be_transparent(path):
                stops[path.name] = brightness_stops(path)
    if line := brightness_warning(stops):
        findings.warnings.append(line)
    if turned:
        findings.warnings.append(
            f"{len(turned)} images have an EXIF orientation, the first {turned[0]}: training sees "
            "them as they are stored, whatever a viewer shows"
        )
    findings.facts.append(
        f"{len(findings.images)} images of "
        + ", ".join(f"{width}x{height}" for height, width in sizes)
        + " pixels; intrinsics for "
        f"{intrinsics.width}x{intrinsics.height}, focal length {intrinsics.focal:.5g}"
    )
    if len(sizes) > 1:
        findings.errors.append(
            f"images differ in size: {', '.join(path.name for path in sizes.values())}"
        )
    elif sizes:
        (((height, width), path),) = sizes.items()
        with noted(findings.errors):
            intrinsics.require_fits(path, height, width)


def _examine_geometry(findings: Findings, default_near_plane: float) -> int:
    """Judges poses and grid; returns the number of views that see the grid."""
    intrinsics = findings.intrinsics
    camera = intrinsics.pinhole(min(intrinsics.width, intrinsics.height))
    grid = intrinsics.grid(default_near_plane)
    verdict = judge(findings.cam2world, camera, grid, findings.names)
    findings.errors += verdict.errors
    findings.warnings += verdict.warnings
    distances = np.linalg.norm(findings.cam2world[:, :3, 3] - grid.origin, axis=1)
    seen = seen_share(findings.cam2world, camera, grid)
    covered = covered_share(findings.cam2world, camera, grid)
    findings.facts += [
        f"grid of sidelength {grid.scale:.4g} about "
        f"{' '.join(f'{value:.4g}' for value in grid.origin)}; cameras "
        f"{distances.min():.4g} to {distances.max():.4g} from it; depth planes from "
        f"{grid.near_plane:.4g} to {grid.far_plane:.4g}",
        f"share of the grid that a view sees: {_median_and_minimum(seen, findings.names)}",
        "share of that covered by its depth planes: "
        f"{_median_and_minimum(covered, findings.names)}",
    ]
    return len(findings.names) - len(verdict.blind)


def _median_and_minimum(shares: Float[np.ndarray, "views"], names: list[str]) -> str:
    lowest = names[int(shares.argmin())]
    return f"median {np.median(shares):.0%}, minimum {shares.min():.0%} ({lowest})"


if __name__ == "__main__":
    run(PROG, main)
