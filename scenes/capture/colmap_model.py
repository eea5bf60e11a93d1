"""Captures of COLMAP's models: of one in files, and of one that structure from motion has just
made."""

import math
from pathlib import Path

import numpy as np
import pycolmap
from jaxtyping import Float
from scipy.spatial.transform import Rotation

from data_util import require_rigid
from files.untrusted import inside
from scenes.capture.capture import Capture
from scenes.capture.colmap_files import FILES, ImageRecord, read_files
from scenes.capture.listing import natural_order, require_files
from util import InputError


def find_model(folder: Path) -> Path:
    """The folder of the model: `folder` itself, or sparse/0 or sparse in it."""
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    for candidate in (folder, folder / "sparse" / "0", folder / "sparse"):
        if any(
            all((candidate / f"{file}{suffix}").is_file() for file in FILES)
            for suffix in (".bin", ".txt")
        ):
            return candidate
    raise InputError(
        f"{folder}: holds no COLMAP model (cameras, images and points3D, as .bin or .txt)"
    )


def find_images(model: Path) -> Path:
    """The folder `images` in the model's folder or up to two folders above it."""
    for folder in (model, *model.absolute().parents[:2]):
        if (folder / "images").is_dir():
            return folder / "images"
    raise InputError(
        f"{model}: no folder `images` in it or above it; give the photos' folder with --images"
    )


def read_colmap(folder: Path, image_dir: Path) -> Capture:
    """The images of the model in `folder`, sorted by name, and its points. Raises InputError with
    what is wrong."""
    model = read_files(folder)
    if not model.images:
        raise InputError(f"{folder}: the model has no registered images")
    images = sorted(model.images, key=lambda image: natural_order(image.name))
    paths = [inside(image_dir, image.name, named_by=folder) for image in images]
    first = {}
    for image, path in zip(images, paths, strict=True):
        if first.setdefault(path, image) is not image:
            raise InputError(f"{folder}: {image.name} is there twice (first as {first[path].name})")
    require_files(paths, folder)
    for image in images:
        if image.camera_id not in model.cameras:
            raise InputError(
                f"{folder}: {image.name} has camera {image.camera_id}, which the model lacks"
            )
    return Capture(
        paths,
        [image.name for image in images],
        np.stack([_cam2world(image, folder) for image in images]),
        [model.cameras[image.camera_id] for image in images],
        model.points,
        model.colors,
    )


def capture_of(model: pycolmap.Reconstruction, image_dir: Path, named_by: Path) -> Capture:
    """The registered views of a model, sorted by name, and its points. `named_by` names the model
    in messages."""
    views = sorted(
        (model.images[index] for index in model.reg_image_ids()),
        key=lambda view: natural_order(view.name),
    )
    cam2world = np.tile(np.eye(4), (len(views), 1, 1))
    cam2world[:, :3] = [view.cam_from_world().inverse().matrix() for view in views]
    for view, pose in zip(views, cam2world, strict=True):
        require_rigid(pose, f"{named_by}: the pose of {view.name}")
    points = list(model.points3D.values())
    return Capture(
        [image_dir / view.name for view in views],
        [view.name for view in views],
        cam2world,
        [model.cameras[view.camera_id] for view in views],
        np.array([point.xyz for point in points], dtype=np.float64).reshape(-1, 3),
        np.array([point.color for point in points], dtype=np.uint8).reshape(-1, 3),
    )


def _cam2world(image: ImageRecord, folder: Path) -> Float[np.ndarray, "4 4"]:
    subject = f"{folder}: the pose of {image.name}"
    length = math.hypot(*image.rotation)  # not numpy's norm, which warns where a square overflows
    if not 1e-9 < length < 1e9:
        raise InputError(
            f"{subject} is not a rigid transform: its quaternion has the length {length:g}"
        )
    w, *xyz = np.array(image.rotation) / length
    pose = np.eye(4)
    pose[:3, :3] = Rotation.from_quat([*xyz, w]).as_matrix().T
    with np.errstate(over="ignore", invalid="ignore"):  # refused in the next line
        pose[:3, 3] = -pose[:3, :3] @ image.translation
    require_rigid(pose, subject)
    return pose
