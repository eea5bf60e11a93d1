"""Captures of COLMAP's models: of one in files, and of one that structure from motion has just
made."""

import math
from pathlib import Path

import numpy as np
import pycolmap
from jaxtyping import Float
from scipy.spatial.transform import Rotation

from data_util import require_rigid
from scenes.capture.capture import Capture
from scenes.capture.colmap_files import ImageRecord, count_images, has_model, read_files
from scenes.capture.listing import ImageFinder, natural_order, warn, warn_of_missing
from util import InputError


def find_model(folder: Path) -> Path:
    """The folder of the model: `folder` itself, or the largest one in `sparse` or `colmap/sparse`
    or their numbered folders. A warning names the others."""
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    if has_model(folder):
        return folder
    models = []
    for sparse in (folder / "sparse", folder / "colmap" / "sparse"):
        if sparse.is_dir():
            models += [path for path in (sparse, *sorted(sparse.iterdir())) if has_model(path)]
    if not models:
        raise InputError(
            f"{folder}: holds no COLMAP model (cameras and images, as .bin or .txt), nor do "
            "sparse/ and colmap/sparse/ in it"
        )
    if len(models) > 1:
        counts = {path: count_images(path) for path in models}
        models.sort(key=counts.get, reverse=True)
        others = ", ".join(f"{path.relative_to(folder)} ({counts[path]})" for path in models[1:6])
        warn(f"{models[0]}: is taken, the largest ({counts[models[0]]} images); not used: {others}")
    return models[0]


def find_images(model: Path) -> Path:
    """The folder `images` in the model's folder or up to three folders above it."""
    for folder in (model, *model.absolute().parents[:3]):
        if (folder / "images").is_dir():
            return folder / "images"
    raise InputError(
        f"{model}: no folder `images` in it or above it; give the photos' folder with --images"
    )


def read_colmap(folder: Path, image_dir: Path) -> Capture:
    """The images of the model in `folder`, sorted by name, and its points. Images without a file
    are left out, with a warning. Raises InputError with what is wrong."""
    model = read_files(folder)
    if not model.images:
        raise InputError(f"{folder}: the model has no registered images")
    finder = ImageFinder(image_dir)
    images = []
    paths = []
    missing = []
    first = {}
    for image in sorted(model.images, key=lambda image: natural_order(image.name)):
        path = finder.find(image.name, named_by=folder)
        if path is None:
            missing.append(str(image_dir / image.name))
        elif first.setdefault(path, image) is not image:
            raise InputError(f"{folder}: {image.name} is there twice (first as {first[path].name})")
        elif image.camera_id not in model.cameras:
            raise InputError(
                f"{folder}: {image.name} has camera {image.camera_id}, which the model lacks"
            )
        else:
            images.append(image)
            paths.append(path)
    warn_of_missing(missing, len(model.images), folder)
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
