"""Captures that tests write as other programs do, and import."""

import json
import shutil

import numpy as np
from PIL import Image

from data_util import list_images, load_image
from geometry.cameras import look_at, opengl2opencv
from scenes import transforms_json

WIDTH = 54
HEIGHT = 64


def poses(count):
    """OpenGL poses on an arc around the origin, 4 away."""
    angles = np.linspace(0, 2, count)
    centers = 4 * np.stack([np.cos(angles), np.sin(angles), 0.3 + 0 * angles], axis=1)
    return opengl2opencv(look_at(centers, np.zeros(3), np.array([0.0, 0.0, 1.0])))


def write_capture(folder, count=4, suffix="png", size=(WIDTH, HEIGHT), **fields):
    """Images of one gray level each, and the content of a transforms.json that lists them."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    frames = []
    for number, pose in enumerate(poses(count)):
        name = f"images/{number:04d}.{suffix}"
        Image.new("RGB", size, (10 * number,) * 3).save(folder / name)
        frames.append({"file_path": name, "transform_matrix": pose.tolist()})
    return {"w": WIDTH, "h": HEIGHT, "fl_x": 60.0, **fields, "frames": frames}


def imported(folder, content, *flags, name="transforms.json"):
    (folder / name).write_text(json.dumps(content))
    shutil.rmtree(folder / "scene", ignore_errors=True)
    transforms_json.main([str(folder), str(folder / "scene"), "--up", "none", *flags])
    return folder / "scene"


def levels(folder):
    """The gray levels of a split's images, in tens."""
    return [int(load_image(path)[0, 0, 0]) // 10 for path in list_images(folder / "rgb")]


def warnings(capsys):
    lines = capsys.readouterr().err.splitlines()
    return [line.removeprefix("warning: ") for line in lines if line.startswith("warning: ")]
