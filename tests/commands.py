"""Every command that writes files: its words for small input, and a check that what it leaves is
whole or gone."""

import importlib
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import imageio.v2 as imageio
import numpy as np
from scipy.spatial.transform import Rotation

from checkpoints import load_checkpoint
from data_util import list_images, list_poses, load_intrinsics, load_pose, write_image
from geometry.cameras import look_at, opengl2opencv
from machine import cli
from tests.conftest import SMALL
from tests.helpers import arguments, render_arguments, run, start_python

# A run's folder, named by its time, and a checkpoint's step: a signal saves wherever training is.
CHANGING = re.compile(r"\d\d_\d\d/\d\d-\d\d-\d\d[^/]*|epoch_\d+_iter_\d+")
# What a next try replaces, nobody reads, or does no harm without its last entry.
NOT_RESULTS = re.compile(r"(^|/)\.|\.partial/|(^|/)(log\.txt|events\..*)$")
# Their content depends on times, or on earlier tries; they must be whole all the same.
VARYING = {
    "options.json",
    "commands.json",
    "progress.json",
    "table.json",
    "occlusion.json",
    "sensitivity.json",
    "measured.json",
    "scaling.json",
    "scaling.png",
}


@dataclass(frozen=True)
class Command:
    """words: the arguments, from the folder of inputs and an output folder. mark: a pattern for
    what only exists when its folder (the mark itself, or the folder around a file) is complete.
    prepare: fills the output folder at first. exact: whether two runs write the same bytes.
    """

    name: str
    words: Callable[[Path, Path], list]
    mark: str = "scene"
    prepare: Callable[[Path, Path], object] = lambda inputs, out: None
    exact: bool = True

    def run(self, inputs: Path, out: Path) -> int:
        """Runs the command in this process and returns its exit code."""
        if self.name == "run_deepvoxels":
            return run(*self.words(inputs, out))
        module = importlib.import_module(self.name)
        try:
            return cli.exit_code(
                self.name, lambda: module.main([str(word) for word in self.words(inputs, out)])
            )
        except SystemExit as end:
            return end.code

    def start(self, inputs: Path, out: Path) -> subprocess.Popen:
        """Starts the command in a process, and a process group, of its own."""
        return start_python(
            *("-m", self.name, *self.words(inputs, out)),
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )

    def assert_whole(self, undisturbed: Path, out: Path) -> None:
        """Every file in `out` is as an undisturbed run's, but for tables and pictures of a study
        with gaps; and where the mark is, so is all that it stands for."""
        expected = contents(undisturbed)
        gaps = self.has_gaps(out)
        for name, content in contents(out).items():
            assert name in expected, name
            of_gaps = gaps and Path(name).parent == Path("study")
            assert content == expected[name] or not self.exact or of_gaps, name
        for mark in out.glob(self.mark):
            (same,) = undisturbed.glob(self.mark)
            assert (
                contents(mark if mark.is_dir() else mark.parent).keys()
                == contents(same if same.is_dir() else same.parent).keys()
            )

    def has_gaps(self, out: Path) -> bool:
        """Whether a study found runs that another process was carrying out, and left them out of
        its tables."""
        return any("(not done)" in table.read_text() for table in out.glob("study/*.md"))

    def assert_complete(self, undisturbed: Path, out: Path) -> None:
        """All that an undisturbed run leaves is there, and nothing else but abandoned tests."""
        self.assert_whole(undisturbed, out)
        assert contents(out).keys() == contents(undisturbed).keys()
        left_over = [
            path
            for path in out.rglob("*")
            if path.suffix == ".partial" or path.name.startswith(".")
        ]
        assert all(path.name == ".lock" or "test_traj" in path.parts for path in left_over), (
            left_over
        )


def contents(folder: Path) -> dict[str, bytes | None]:
    """The content of each result under the folder, None if it varies, by names without what changes
    in them."""
    names = {
        path: CHANGING.sub("N", path.relative_to(folder).as_posix())
        for path in folder.rglob("*")
        if path.is_file() and not path.is_symlink()
    }
    return {name: content(path) for path, name in names.items() if not NOT_RESULTS.search(name)}


def content(path: Path) -> bytes | None:
    """Fails if the file is not whole."""
    if path.suffix == ".pth":
        load_checkpoint(path)
    elif path.name in VARYING:
        imageio.imread(path) if path.suffix == ".png" else json.loads(path.read_text())
    else:
        return path.read_bytes()
    return None


def train_words(inputs: Path, out: Path) -> list:
    resumed = ["--resume", "latest"] if any(out.glob("logs/*/*/latest.pth")) else []
    return arguments(inputs / "scene", out, "--max_steps", 24, "--checkpoint_every", 3, *resumed)


def study(*more) -> Callable[[Path, Path], list]:
    return lambda inputs, out: [
        "--scenes",
        inputs / "scene",
        "--steps",
        2,
        "--out",
        out / "study",
        *SMALL,
        *more,
    ]


def copy_scene(inputs: Path, out: Path) -> None:
    shutil.copytree(inputs / "scene", out / "scene", dirs_exist_ok=True)


COMMANDS = {
    "train": Command("run_deepvoxels", train_words, mark="no mark"),
    "test": Command(
        "run_deepvoxels",
        lambda inputs, out: render_arguments(inputs / "scene" / "test", out, inputs / "model.pth"),
        mark="test_traj/*/*/metrics.json",
    ),
    "render": Command(
        "scenes.render",
        lambda inputs, out: [
            "--out",
            out / "scene",
            "--sidelength",
            64,
            "--train_views",
            20,
            "--test_views",
            8,
        ],
    ),
    "path": Command(
        "scenes.path",
        lambda inputs, out: [
            "spiral",
            "--scene",
            inputs / "scene",
            "--out",
            out / "scene",
            "--frames",
            50,
        ],
    ),
    "noise": Command(
        "scenes.noise",
        lambda inputs, out: ["--scene", inputs / "scene", "--out", out / "scene", "--degrees", 2],
    ),
    "check": Command(
        "scenes.check", lambda inputs, out: [out / "scene"], "scene/check.png", copy_scene
    ),
    "colmap": Command(
        "scenes.colmap",
        lambda inputs, out: [
            inputs / "colmap",
            out / "scene",
            "--images",
            inputs / "scene" / "train" / "rgb",
        ],
    ),
    "nerf_synthetic": Command(
        "scenes.nerf_synthetic", lambda inputs, out: [inputs / "scene", out / "scene"]
    ),
    "transforms_json": Command(
        "scenes.transforms_json",
        lambda inputs, out: [
            inputs / "scene" / "transforms_train.json",
            out / "scene",
            "--sidelength",
            256,
        ],
    ),
    "colmap_wrapper": Command(
        "colmap_wrapper",
        lambda inputs, out: [
            "--img_dir",
            inputs / "photos",
            "--trgt_dir",
            out / "scene",
            "--test_every",
            0,
        ],
        exact=False,
    ),
    "table1": Command("experiments.table1", study("--models", "deepvoxels"), mark="no mark"),
    "occlusion": Command("experiments.occlusion", study(), mark="no mark"),
    "sensitivity": Command(
        "experiments.sensitivity", study("--studies", "noise", "--degrees", 1), mark="no mark"
    ),
    "speed": Command(
        "benchmarks.speed",
        lambda inputs, out: ["--device", "cpu", "--repeats", 1, "--json", out / "measured.json"],
        mark="no mark",
    ),
    "kernels": Command(
        "benchmarks.kernels",
        lambda inputs, out: ["--turns", 2, "--only", "few_pixels", "--json", out / "measured.json"],
        mark="no mark",
    ),
    "scaling": Command(
        "benchmarks.scaling",
        lambda inputs, out: ["--device", "cpu", "--repeats", 1, "--out", out],
        mark="no mark",
    ),
}


def make_inputs(folder: Path, scene: Path, checkpoint: Path) -> None:
    """The scene with transforms_train.json and transforms_test.json, its training views as a COLMAP
    model, photos, and the checkpoint as model.pth."""
    shutil.copytree(scene, folder / "scene")
    shutil.copy(checkpoint, folder / "model.pth")
    for split in ("train", "test"):
        views = zip(
            list_images(scene / split / "rgb"), list_poses(scene / split / "pose"), strict=True
        )
        focal = load_intrinsics(scene / split / "intrinsics.txt").focal
        (folder / "scene" / f"transforms_{split}.json").write_text(
            json.dumps(
                {
                    "camera_angle_x": 2 * np.arctan(32 / focal),
                    "frames": [
                        {
                            "file_path": f"{split}/rgb/{image.name}",
                            "transform_matrix": opengl2opencv(load_pose(pose)).tolist(),
                        }
                        for image, pose in views
                    ],
                }
            )
        )
    (folder / "colmap").mkdir()
    (folder / "colmap" / "cameras.txt").write_text(f"1 SIMPLE_PINHOLE 64 64 {focal!r} 32 32\n")
    lines = []
    for number, pose in enumerate(list_poses(scene / "train" / "pose"), start=1):
        world2cam = np.linalg.inv(load_pose(pose))
        x, y, z, w = Rotation.from_matrix(world2cam[:3, :3]).as_quat()
        numbers = " ".join(repr(float(value)) for value in (w, x, y, z, *world2cam[:3, 3]))
        lines.append(f"{number} {numbers} 1 {pose.stem}.png\n1.0 1.0 1 2.0 2.0 2\n")
    (folder / "colmap" / "images.txt").write_text("".join(lines))
    (folder / "colmap" / "points3D.txt").write_text(
        "1 0.1 0.2 0.3 255 0 0 0.5 1 0 2 0\n2 0 0 0 0 255 0 0.5 1 1 2 1\n"
    )
    write_photos(folder / "photos")


def write_photos(folder: Path) -> None:
    """Eight pictures of a cloud of coloured balls, from an arc around it."""
    rng = np.random.default_rng(0)
    count = 400
    balls = rng.uniform(-0.5, 0.5, (count, 3))
    radii = rng.uniform(0.01, 0.05, count)
    colors = rng.integers(0, 255, (count, 3)).tolist()
    angles = np.radians(np.arange(0, 64, 8))
    centers = 2 * np.stack([0.85 * np.cos(angles), 0.85 * np.sin(angles), np.full(8, 0.53)], axis=1)
    folder.mkdir()
    for index, pose in enumerate(look_at(centers, np.zeros(3), np.array([0.0, 0.0, 1.0]))):
        world2cam = np.linalg.inv(pose)
        image = np.full((320, 320, 3), 128, np.uint8)
        seen = balls @ world2cam[:3, :3].T + world2cam[:3, 3]
        for ball in np.argsort(-seen[:, 2]):
            x, y = np.round(160 + 400 * seen[ball, :2] / seen[ball, 2]).astype(int).tolist()
            cv2.circle(
                image,
                (x, y),
                round(400 * radii[ball] / seen[ball, 2]),
                colors[ball],
                -1,
                cv2.LINE_AA,
            )
        write_image(folder / f"{index}.png", image)
