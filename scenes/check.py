"""Checks a scene folder before hours of training on it, and draws what it holds.

    python -m scenes.check data/mine

DIR is a scene (with train/ and test/) or one folder with pose/ and intrinsics.txt. Prints counts, sizes, the validity
and handedness of the poses, and what share of the grid each view sees and its depth planes cover. DIR/check.png shows
cameras, grid box and sparse points from above and from the side, and the grid box drawn over a few photos. Where
something is wrong that training cannot work with, the exit code is 1.
"""
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Float
from PIL import Image

from cli import Parser, run
from data_util import SceneIntrinsics, list_images, list_poses, load_intrinsics, load_pose
from scenes.capture.check_picture import draw_check
from scenes.capture.points import load_points
from scenes.folder import write_image
from scenes.geometry.coverage import covered_share, judge, seen_share
from util import InputError

PROG = "scenes.check"
DEFAULT_NEAR_PLANE = np.sqrt(3) / 2  # where the file says 0


@dataclass
class Findings:
    """What one scene folder holds, and what is wrong with it. Poses that cannot be read are left out."""

    folder: Path
    intrinsics: SceneIntrinsics
    names: list[str] = field(default_factory=list)
    cam2world: Float[np.ndarray, "views 4 4"] = field(default_factory=lambda: np.zeros((0, 4, 4)))
    images: list[Path] = field(default_factory=list)
    facts: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def main(argv: Sequence[str] | None = None) -> None:
    parser = Parser(PROG, __doc__)
    parser.add_argument("folder", type=Path, metavar="DIR", help="a scene, or one of its folders")
    args = parser.parse_args(argv)
    parts = scene_parts(args.folder)
    all_findings = [examine(part) for part in parts]
    for findings in all_findings:
        print(findings.folder)
        for kind, lines in [("", findings.facts), ("error: ", findings.errors), ("warning: ", findings.warnings)]:
            for line in lines:
                print(f"  {kind}{line}")
    drawn = next((findings for findings in all_findings if len(findings.names)), None)
    if drawn is not None:
        picture = draw_check(drawn.cam2world, drawn.intrinsics, drawn.images, sparse_points(args.folder))
        write_image(args.folder / "check.png", picture)
        print(f"{args.folder / 'check.png'}: {drawn.folder.name} views, grid and points")
    if any(findings.errors for findings in all_findings):
        sys.exit(1)


def scene_parts(folder: Path) -> list[Path]:
    """The folders with poses: the one named, or those directly in it."""
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    if (folder / "pose").is_dir():
        return [folder]
    parts = sorted((part for part in folder.iterdir() if (part / "pose").is_dir()),
                   key=lambda part: (part.name != "train", part.name))
    if not parts:
        raise InputError(f"{folder}: holds no scene: neither pose/ nor a folder with pose/, such as train/")
    return parts


def sparse_points(folder: Path) -> Float[np.ndarray, "points 3"]:
    """The points kept beside the scene (points.ply), none where there are none."""
    for path in (folder / "points.ply", folder.absolute().parent / "points.ply"):
        if path.is_file():
            return load_points(path)[0]
    return np.zeros((0, 3))


def examine(folder: Path) -> Findings:
    """Reads one scene folder as far as it can be read. Raises InputError only for what leaves nothing to examine."""
    findings = Findings(folder, load_intrinsics(folder / "intrinsics.txt"))
    paths = list_poses(folder / "pose")
    poses = []
    for path in paths:
        try:
            poses.append(load_pose(path))
            findings.names.append(path.stem)
        except InputError as error:
            findings.errors.append(str(error))
    _examine_images(findings, len(paths))
    if poses:
        cam2world = np.stack(poses)
        findings.cam2world = np.linalg.inv(cam2world) if findings.intrinsics.world2cam else cam2world
        _examine_geometry(findings)
    return findings


def _examine_images(findings: Findings, pose_count: int) -> None:
    intrinsics, folder = findings.intrinsics, findings.folder
    findings.facts.append(f"{pose_count} poses, {len(findings.names)} of them valid")
    if not (folder / "rgb").is_dir():
        findings.facts.append("no images (rgb/): can be rendered, not trained on or measured against")
        return
    findings.images = list_images(folder / "rgb")
    if len(findings.images) != pose_count:
        findings.errors.append(f"{folder}: rgb holds {len(findings.images)} images, pose {pose_count} poses")
    sizes = {}
    for path in findings.images:
        try:
            with Image.open(path) as image:
                sizes.setdefault(image.size, path)
        except (OSError, ValueError, SyntaxError) as error:
            findings.errors.append(f"{path}: is not a readable image ({error})")
    findings.facts.append(f"{len(findings.images)} images of "
                          + ", ".join(f"{width}x{height}" for width, height in sizes) + " pixels; intrinsics for "
                          f"{intrinsics.width}x{intrinsics.height}, focal length {intrinsics.focal:.5g}")
    if len(sizes) > 1:
        findings.errors.append(f"images differ in size: {', '.join(path.name for path in sizes.values())}")
    elif sizes and (intrinsics.width, intrinsics.height) not in sizes:
        findings.errors.append(f"{folder / 'intrinsics.txt'}: is for {intrinsics.width}x{intrinsics.height} pixels, "
                               f"the images have {'x'.join(map(str, next(iter(sizes))))}")


def _examine_geometry(findings: Findings) -> None:
    intrinsics = findings.intrinsics
    square = min(intrinsics.width, intrinsics.height)
    near = intrinsics.near_plane or DEFAULT_NEAR_PLANE
    where = (findings.cam2world, intrinsics.matrix(square), square, np.array(intrinsics.grid_origin), intrinsics.scale)
    verdict = judge(*where, near, findings.names)
    findings.errors += verdict.errors
    findings.warnings += verdict.warnings
    distances = np.linalg.norm(findings.cam2world[:, :3, 3] - where[3], axis=1)
    findings.facts += [
        f"grid of sidelength {intrinsics.scale:.4g} about {' '.join(f'{value:.4g}' for value in where[3])}; cameras "
        f"{distances.min():.4g} to {distances.max():.4g} from it; depth planes from {near:.4g} to "
        f"{near + 2 * intrinsics.scale:.4g}",
        f"share of the grid that views see: {_spread(seen_share(*where), findings.names)}",
        f"share of that within their depth planes: {_spread(covered_share(*where, near), findings.names)}"]


def _spread(shares: np.ndarray, names: list[str]) -> str:
    return f"median {np.median(shares):.0%}, least {shares.min():.0%} ({names[int(shares.argmin())]})"


if __name__ == "__main__":
    run(PROG, main)
