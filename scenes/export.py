"""Writes a scene for other programs: nerfstudio, instant-ngp, readers of COLMAP, or a camera path.

    python -m scenes.export data/mine mine_ns --to transforms    # nerfstudio, instant-ngp
    python -m scenes.export data/mine mine_gs --to colmap        # gsplat, 3D Gaussian splatting
    python -m scenes.export data/mine_orbit path --to camera_path    # ns-render camera-path

SCENE is a scene or one of its folders; for camera_path a folder with poses. `transforms` writes
OUT/transforms.json, which names the splits, OUT/images and the sparse points; `colmap` the same
images and OUT/sparse/0 as text, without splits, which that format lacks; `camera_path`
OUT/camera_path.json. The voxel grid has no place in these formats.
"""

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8
from scipy.spatial.transform import Rotation

from data_util import SceneIntrinsics, read_views, scene_parts
from files.folders import new_folder, refuse_existing
from files.images import picture_size
from files.points import find_points, load_points, save_points
from geometry.cameras import opengl2opencv
from machine.cli import Parser, number, run
from scenes.capture.camera_path import camera_path_content, read_dataparser
from scenes.capture.transforms import SPLIT_FIELDS
from util import InputError, write_text

PROG = "scenes.export"
POINTS = "sparse_pc.ply"  # nerfstudio's name
FPS = 24


@dataclass(frozen=True)
class _View:
    """name: in OUT/images. cam2world: OpenCV axes."""

    name: str
    split: str
    image: Path
    cam2world: Float[np.ndarray, "4 4"]
    intrinsics: SceneIntrinsics


def main(argv: Sequence[str] | None = None) -> None:
    parser = Parser(PROG, __doc__)
    parser.add_argument("scene", type=Path, metavar="SCENE", help="a scene, or one of its folders")
    parser.add_argument("target", type=Path, metavar="OUT", help="the folder to make")
    parser.add_argument(
        "--to", choices=["transforms", "colmap", "camera_path"], required=True, help="the format"
    )
    parser.add_argument(
        "--dataparser",
        type=Path,
        metavar="FILE",
        help="camera_path: nerfstudio's dataparser_transforms.json of the run that is to render "
        "the path (default: the scene's coordinates)",
    )
    parser.add_argument(
        "--fps",
        type=number(int, 1),
        help=f"camera_path: frames a second (default: {FPS})",
    )
    args = parser.parse_args(argv)
    for flag in ("dataparser", "fps"):
        if getattr(args, flag) is not None and args.to != "camera_path":
            parser.error(f"--{flag}: is for --to camera_path")
    refuse_existing(args.target)
    if args.to == "camera_path":
        path = read_views(scene_parts(args.scene)[0], with_images=False)
        to_nerfstudio = read_dataparser(args.dataparser)
        fps = args.fps or FPS
        content = camera_path_content(path.cam2world, path.intrinsics, to_nerfstudio, fps)
        with new_folder(args.target) as folder:
            write_text(folder / "camera_path.json", json.dumps(content, indent=1) + "\n")
        print(f"{args.target / 'camera_path.json'}: {len(path.names)} poses")
        return
    views = _list_views(args.scene)
    positions, colors = _read_points(args.scene)
    with new_folder(args.target) as folder:
        (folder / "images").mkdir()
        for view in views:
            shutil.copyfile(view.image, folder / "images" / view.name)
        if args.to == "transforms":
            if len(positions):
                save_points(folder / POINTS, positions, colors)
            _write_transforms(folder, views)
        else:
            _write_colmap(folder / "sparse" / "0", views)
            _write_colmap_points(folder / "sparse" / "0" / "points3D.txt", positions, colors)
    splits = {view.split for view in views}
    counts = " and ".join(
        f"{sum(view.split == split for view in views)} {split}"
        for split in SPLIT_FIELDS
        if split in splits
    )
    print(
        f"{args.target}: {counts} views and {len(positions)} sparse points for {args.to}; "
        "the voxel grid has no place there"
    )


def _list_views(scene: Path) -> list[_View]:
    """The views with images of all the scene's folders, with the intrinsics of their images. Of
    several folders each must be a split; a single one may have any name."""
    views = []
    parts = [part for part in scene_parts(scene) if (part / "rgb").is_dir()]
    for part in parts:
        split = part.name if part.name in SPLIT_FIELDS else "train"
        if len(parts) > 1 and part.name != split:
            raise InputError(
                f"{part}: is none of {', '.join(SPLIT_FIELDS)}, the folders of a scene; export it "
                "by itself"
            )
        folder = read_views(part)
        for index, (image, pose) in enumerate(zip(folder.images, folder.cam2world, strict=True)):
            width, height = picture_size(image)
            folder.intrinsics.require_fits(image, height, width)
            intrinsics = folder.intrinsics.resized(height, width)
            name = f"{split}_{index:06d}{image.suffix.lower()}"
            views.append(_View(name, split, image, pose, intrinsics))
    if not views:
        raise InputError(f"{scene}: has no images to export")
    return views


def _read_points(
    scene: Path,
) -> tuple[Float[np.ndarray, "points 3"], UInt8[np.ndarray, "points 3"]]:
    """The scene's sparse points and their colors, perhaps none."""
    path = find_points(scene)
    return (np.zeros((0, 3)), np.zeros((0, 3), np.uint8)) if path is None else load_points(path)


def _write_transforms(folder: Path, views: list[_View]) -> None:
    """nerfstudio's format (https://docs.nerf.studio/quickstart/data_conventions.html): OpenGL axes,
    intrinsics for each frame. Names the points if they lie in the folder."""
    content = {"camera_model": "OPENCV"}
    if (folder / POINTS).is_file():
        content["ply_file_path"] = POINTS
    frames = []
    for view in views:
        intrinsics = view.intrinsics
        frames.append(
            {
                "file_path": f"images/{view.name}",
                "transform_matrix": opengl2opencv(view.cam2world).tolist(),
                "w": intrinsics.width,
                "h": intrinsics.height,
                "fl_x": intrinsics.focal,
                "fl_y": intrinsics.focal,
                "cx": intrinsics.cx,
                "cy": intrinsics.cy,
            }
        )
    for split, name in SPLIT_FIELDS.items():
        listed = [f"images/{view.name}" for view in views if view.split == split]
        if listed:
            content[name] = listed
    if "val_filenames" not in content and "test_filenames" in content:
        content["val_filenames"] = content["test_filenames"]  # nerfstudio asks for both
    text = json.dumps({**content, "frames": frames}, indent=1)
    write_text(folder / "transforms.json", text + "\n")


def _write_colmap(folder: Path, views: list[_View]) -> None:
    """A text model (https://colmap.github.io/format.html): world-to-camera poses."""
    folder.mkdir(parents=True)
    cameras = {}
    lines = []
    for number_, view in enumerate(views, start=1):
        camera_id = cameras.setdefault(_pinhole(view.intrinsics), len(cameras) + 1)
        rotation = Rotation.from_matrix(view.cam2world[:3, :3]).inv()
        x, y, z, w = rotation.as_quat().tolist()
        translation = (-rotation.as_matrix() @ view.cam2world[:3, 3]).tolist()
        numbers = " ".join(map(repr, (w, x, y, z, *translation)))
        lines.append(f"{number_} {numbers} {camera_id} {view.name}\n\n")
    write_text(folder / "images.txt", "".join(lines))
    write_text(
        folder / "cameras.txt",
        "".join(f"{camera_id} PINHOLE {text}\n" for text, camera_id in cameras.items()),
    )


def _write_colmap_points(
    path: Path, positions: Float[np.ndarray, "points 3"], colors: UInt8[np.ndarray, "points 3"]
) -> None:
    lines = []
    for number_, (position, color) in enumerate(
        zip(positions.tolist(), colors.tolist(), strict=True), start=1
    ):
        words = [number_, *position, *color, 0]
        lines.append(" ".join(map(repr, words)) + "\n")
    write_text(path, "".join(lines))


def _pinhole(intrinsics: SceneIntrinsics) -> str:
    """Size and parameters of COLMAP's PINHOLE."""
    focal = float(intrinsics.focal)
    params = [focal, focal, float(intrinsics.cx), float(intrinsics.cy)]
    return " ".join(map(repr, [int(intrinsics.width), int(intrinsics.height), *params]))


if __name__ == "__main__":
    run(PROG, main)
