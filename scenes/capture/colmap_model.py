"""COLMAP models: reads one, and makes a capture of its registered views."""
from pathlib import Path

import numpy as np
import pycolmap

from data_util import require_rigid
from scenes.capture.capture import Capture, natural_order, require_files
from util import InputError


def read_model(folder: Path) -> pycolmap.Reconstruction:
    """Reads a model; raises InputError if it is damaged or has no registered images."""
    try:
        model = pycolmap.Reconstruction(folder)
    except Exception as error:  # the library raises several kinds for damaged files
        reason = " ".join(str(error).split())
        raise InputError(f"{folder}: is not a readable COLMAP model ({reason})") from None
    if not model.num_reg_images():
        raise InputError(f"{folder}: the model has no registered images")
    return model


def model_capture(model: pycolmap.Reconstruction, image_dir: Path, named_by: Path) -> Capture:
    """The registered views of a model, sorted by name, and its points. `named_by` names the model in messages."""
    views = sorted((model.images[index] for index in model.reg_image_ids()), key=lambda view: natural_order(view.name))
    paths = [image_dir / view.name for view in views]
    require_files(paths, named_by)
    cam2world = np.tile(np.eye(4), (len(views), 1, 1))
    cam2world[:, :3] = [view.cam_from_world().inverse().matrix() for view in views]
    for view, pose in zip(views, cam2world, strict=True):
        require_rigid(pose, f"{named_by}: the pose of {view.name}")
    points = list(model.points3D.values())
    return Capture(paths, [view.name for view in views], cam2world, [model.cameras[view.camera_id] for view in views],
                   np.array([point.xyz for point in points], dtype=np.float64).reshape(-1, 3),
                   np.array([point.color for point in points], dtype=np.uint8).reshape(-1, 3))
