"""Files from elsewhere at random, most of them damaged or hostile, as hypothesis strategies.

A writer is a function that puts such files into a folder, given its path. Each starts from whole
files, which programs of others wrote or could have written, and changes bytes, words, numbers or
structure.
"""

import contextlib
import functools
import io
import json
import os
import struct
import tempfile
from pathlib import Path

import numpy as np
import pycolmap
import trimesh
from hypothesis import strategies as st
from PIL import Image

from tests.conftest import hemisphere_poses

SECRET = "secret.png"  # a picture beside the folder, which nothing may read
ODD_NUMBERS = [
    0,
    -1,
    1,
    2,
    7,
    0.5,
    255,
    1e-300,
    1e7,
    1e30,
    1e300,
    2**31,
    2**60,
    2**64 - 1,
    float("nan"),
    float("inf"),
    -float("inf"),
    int("9" * 400),
]
ODD_PATHS = [
    "",
    ".",
    "/",
    f"../{SECRET}",
    f"./../{SECRET}",
    f"images/../../{SECRET}",
    "/etc/passwd",
    "1" * 5000,
    "a\0b",
    "a\nb",
    "\ud800",
    "images",
    "pipe.png",
    "postscript.png",
    "0.png",
    "./0.png",
    "~/x.png",
    "a" * 300,
    "http://localhost/x.png",
    "file:///etc/passwd",
]
numbers = st.one_of(st.sampled_from(ODD_NUMBERS), st.floats(), st.integers(-10, 10))
paths = st.sampled_from(ODD_PATHS)


def picture(image_format="PNG", size=(8, 8), mode="RGB", **kwargs):
    file = io.BytesIO()
    Image.new(mode, size, 77 if mode in ("L", "P", "1", "I;16") else None).save(
        file, image_format, **kwargs
    )
    return file.getvalue()


def counted(value):
    return struct.pack("<Q", value)


# Changes of bytes, and of the words of a text. `position` is a share of the length.
shares = st.floats(0, 1, exclude_max=True)
byte_changes = st.one_of(
    st.tuples(st.just("cut"), shares, st.just(b"")),
    st.tuples(st.just("cut end"), st.integers(1, 9), st.just(b"")),
    st.tuples(st.just("flip"), shares, st.binary(min_size=1, max_size=4)),
    st.tuples(st.sampled_from(["insert", "remove"]), shares, st.binary(max_size=9)),
    st.tuples(
        st.just("flip"), shares, st.sampled_from([0, 1, 2**31, 2**60, 2**64 - 1]).map(counted)
    ),
    st.tuples(
        st.just("flip"), st.just(0.0), st.sampled_from([0, 1, 9, 2**60, 2**64 - 1]).map(counted)
    ),
    st.just(("replace", 0, b"")),
    st.tuples(st.just("replace"), st.just(0), st.binary(max_size=50)),
)
odd_words = st.one_of(
    numbers.map(str), st.sampled_from(["", "x", "-", "#", "\0", "1e400", "\n", "9" * 5000]), paths
)
word_changes = st.lists(st.tuples(shares, odd_words), min_size=1, max_size=3)


def change_bytes(content, change):
    kind, where, new = change
    start = int(where * len(content)) if kind != "cut end" else 0
    return {
        "cut": lambda: content[:start],
        "cut end": lambda: content[:-where],
        "replace": lambda: new,
        "flip": lambda: content[:start] + new + content[start + len(new) :],
        "insert": lambda: content[:start] + new + content[start:],
        "remove": lambda: content[:start] + content[start + len(new) :],
    }[kind]()


def change_words(content, changes):
    """Replaces words; what separates them stays."""
    words = content.decode().split(" ")
    for share, new in changes:
        words[int(share * len(words))] = new
    return " ".join(words).encode(errors="surrogatepass")


changes = st.one_of(
    byte_changes.map(lambda change: functools.partial(change_bytes, change=change)),
    word_changes.map(lambda change: functools.partial(change_words, changes=change)),
)


def changed(content, change):
    with contextlib.suppress(UnicodeDecodeError):  # words of a binary file
        return change(content)
    return content[: len(content) // 2]


def write_decoys(folder, count=3):
    """Pictures, and what only looks like one: PostScript, a named pipe."""
    for number in range(count):
        (folder / f"{number}.png").write_bytes(picture())
    (folder / "postscript.png").write_bytes(
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n"
    )
    os.mkfifo(folder / "pipe.png")


# transforms.json


def transforms():
    poses = hemisphere_poses(3) * [1, -1, -1, 1]
    return {
        "camera_angle_x": 0.9,
        "fl_x": 9.0,
        "fl_y": 9.0,
        "cx": 4.0,
        "cy": 4.0,
        "w": 8,
        "h": 8,
        "k1": 0.01,
        "camera_model": "OPENCV",
        "ply_file_path": "points.ply",
        "frames": [
            {"file_path": f"{number}.png", "transform_matrix": pose.tolist()}
            for number, pose in enumerate(poses)
        ],
    }


def places(value, place=()):
    """Where something stands in a JSON value, the value itself first."""
    yield place
    for key in (
        value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    ):
        yield from places(value[key], (*place, key))


def put(value, place, new):
    if not place:
        return new
    for key in place[:-1]:
        value = value[key]
    value[place[-1]] = new
    return None


PLACES = list(places(transforms()))
json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), numbers, paths, st.text(max_size=5)),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=5,
)
likely = [place for place in PLACES if "transform_matrix" not in place] + [
    ("frames", 0, "transform_matrix"),
    ("frames", 1, "transform_matrix", 1, 3),
]
json_changes = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(likely), numbers),
        st.tuples(st.sampled_from(likely), json_values),
        st.tuples(
            st.sampled_from(
                [("frames", 0, "file_path"), ("frames", 2, "file_path"), ("ply_file_path",)]
            ),
            paths,
        ),
        st.tuples(
            st.sampled_from([("k1",), ("k2",), ("p1",), ("k3",), ("frames", 0, "fl_y")]), numbers
        ),
        st.tuples(st.sampled_from(PLACES), json_values),
    ),
    min_size=1,
    max_size=3,
)


def transforms_text(edits, text_change):
    content = transforms()
    for place, new in edits:
        with contextlib.suppress(LookupError, TypeError):  # an earlier edit removed the place
            content = put(content, place, new) or content
    text = json.dumps(content).encode()
    return changed(text, text_change) if text_change else text


deep = st.sampled_from(
    [
        b"[" * 100_000,
        b'{"frames":' * 100_000,
        b'{"frames": [' + b"1" * 5000 + b"]}",
        b"",
        b'{"frames": [{"file_path": "0.png", "transform_matrix": '
        + b"[" * 900
        + b"]" * 900
        + b"}]}",
    ]
)


def write_transforms(content, points):
    def write(folder):
        write_decoys(folder)
        for name in ("transforms.json", "transforms_train.json", "transforms_test.json"):
            (folder / name).write_bytes(content)
        (folder / "points.ply").write_bytes(points)

    return write


def points_ply(encoding):
    cloud = trimesh.PointCloud(
        np.random.default_rng(0).uniform(-0.3, 0.3, (60, 3)), colors=np.full((60, 3), 99)
    )
    return cloud.export(file_type="ply", encoding=encoding)


clouds = st.builds(
    lambda encoding, change: (
        changed(points_ply(encoding), change) if change else points_ply(encoding)
    ),
    st.sampled_from(["ascii", "binary"]),
    st.none() | changes,
)
transforms_files = st.builds(
    write_transforms,
    st.one_of(
        st.builds(transforms_text, json_changes, st.none()),
        st.builds(transforms_text, st.just([]), changes),
        deep,
    ),
    clouds,
)


# COLMAP models


@functools.cache
def colmap_files():
    """A model of three views as COLMAP's own library writes it, binary and text."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "cameras.txt").write_text(
            "1 OPENCV 8 8 9 9 4 4 0.01 0 0 0\n2 PINHOLE 8 8 9 9 4 4\n"
        )
        lines = []
        for number, pose in enumerate(np.linalg.inv(hemisphere_poses(3))):
            x, y, z, w = trimesh.transformations.quaternion_from_matrix(pose)[[1, 2, 3, 0]]
            numbers = " ".join(map(str, [w, x, y, z, *pose[:3, 3]]))
            lines.append(
                f"{number + 1} {numbers} {number % 2 + 1} {number}.png\n1.0 1.0 1 2.0 2.0 2 3.0 "
                "3.0 -1\n"
            )
        (folder / "images.txt").write_text("".join(lines))
        (folder / "points3D.txt").write_text(
            "1 0.1 0.2 0.3 255 0 0 0.5 1 0 2 0\n2 0 0 0 0 255 0 0.5 1 1 2 1\n"
        )
        model = pycolmap.Reconstruction(folder)
        model.write_binary(folder)
        model.write_text(folder)
        return {path.name: path.read_bytes() for path in folder.iterdir()}


def write_colmap(suffix, edits):
    def write(folder):
        (folder / "images").mkdir()
        write_decoys(folder / "images")
        files = {name: content for name, content in colmap_files().items() if name.endswith(suffix)}
        for name, change in edits:
            files[name + suffix] = changed(files[name + suffix], change)
        for name, content in files.items():
            (folder / name).write_bytes(content)

    return write


colmap_models = st.builds(
    write_colmap,
    st.sampled_from([".bin", ".txt"]),
    st.lists(
        st.tuples(
            st.sampled_from(["cameras", "images", "images", "points3D", "frames", "rigs"]), changes
        ),
        min_size=1,
        max_size=2,
    ),
)


# Depth maps


# Images
