"""Checks annotations while tests run; makes scene folders small enough to train on in seconds;
fixtures."""

import functools
import inspect
import os
import signal
from typing import get_args

import jaxtyping
from beartype import BeartypeConf, beartype
from jaxtyping import AbstractArray, install_import_hook, jaxtyped

CHECKED = [
    "projection",
    "deep_voxels",
    "custom_layers",
    "losses",
    "dataio",
    "data_util",
    "util",
    "checkpoints",
    "training",
    "evaluation",
    "pytorch_prototyping",
    "cpu_kernels",
    "scenes",
    "geometry",
    "machine",
    "files",
    "baselines",
    "experiments",
    "benchmarks",
    "viewer",
    "integrations",
]


# A wrong type is a TypeError, as jaxtyping's own error is: code that reads what strangers wrote
# catches those.
check_types = beartype(conf=BeartypeConf(violation_type=TypeError))


def has_shapes(annotation) -> bool:
    """Whether an annotation says the shape of an array, or something in it does."""
    if isinstance(annotation, type) and issubclass(annotation, AbstractArray):
        return True
    return any(map(has_shapes, get_args(annotation)))


def check_calls(function, typechecker):
    """Beartype alone checks the types. Where shapes are given, jaxtyping only compares sizes within
    a call: if it called beartype, each argument would be checked twice."""
    if not inspect.isfunction(function):
        return jaxtyped(function, typechecker=typechecker)
    if not any(map(has_shapes, function.__annotations__.values())):
        return check_types(function)
    # Without a type checker jaxtyping would stop checking what generators yield, everywhere.
    if inspect.isgeneratorfunction(function):
        return jaxtyped(function, typechecker=typechecker)
    checked = jaxtyped(check_types(function), typechecker=None)
    checked.__wrapped__ = function  # the source that cpu_kernels/written_for.py reads
    return checked


# What the hook decorates all functions with
jaxtyping.jaxtyped = lambda *, typechecker: functools.partial(check_calls, typechecker=typechecker)
install_import_hook(CHECKED, "beartype.beartype")

import imageio.v2 as imageio  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402

from training import memory  # noqa: E402
from training.options import Learning  # noqa: E402
from util import usable_cores  # noqa: E402

computed_needs = functools.cache(memory.training_needs)


def training_needs(architecture, learning):
    """Computed once for each size, from the options that decide it: it takes as long as two steps
    of a small model, half of a test's short run."""
    deciding = {
        name: getattr(learning, name)
        for name in ("model", "num_trgt", "optimizer", "average", "ssim_weight")
    }
    return computed_needs(architecture, Learning(**deciding))


memory.training_needs = training_needs
torch.set_num_threads(1)  # networks this small are no faster with more
os.environ["OMP_NUM_THREADS"] = (
    "1"  # of the processes that tests start: as many threads compute the same bits
)
# A shell that starts tests in the background ignores these, and the processes that tests start
# would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

SMALL = [
    "--img_sidelength",
    "64",
    "--proj_sidelength",
    "16",
    "--grid_dim",
    "8",
    "--num_grid_feats",
    "4",
    "--nf0",
    "4",
    "--device",
    "cpu",
]


def pytest_configure(config) -> None:
    """A warning that the project's own code causes is an error."""
    ours = "|".join([*CHECKED, "run_deepvoxels", "colmap_wrapper", "docs", "tests"])
    config.addinivalue_line("filterwarnings", rf"error:::({ours})(\.|$)")


def pytest_xdist_auto_num_workers() -> int:
    """How many processes share the tests with `-n auto`: pytest-xdist alone would count only the
    cores that differ physically, and those that this process may not use."""
    return usable_cores()


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def nothing_stays_running():
    """Ends the processes that a test started with `tests.helpers.start`."""
    from tests.helpers import STARTED  # after the hook above, as all that imports the project

    yield
    while STARTED:
        process = STARTED.pop()
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()


def look_at_origin(position) -> np.ndarray:
    """The cam2world pose of a camera at `position` that looks at the origin, world z up, OpenCV
    axes."""
    position = np.asarray(position, dtype=float)
    z = -position / np.linalg.norm(position)
    x = np.cross(z, [0, 0, 1])
    x /= np.linalg.norm(x)
    pose = np.eye(4)
    pose[:3] = np.column_stack([x, np.cross(z, x), z, position])
    return pose


def hemisphere_poses(count: int, radius: float = 1.9) -> np.ndarray:
    angles = np.linspace(0, 2 * np.pi, count, endpoint=False)
    return np.stack(
        [look_at_origin(radius * np.array([np.cos(a) * 0.8, np.sin(a) * 0.8, 0.6])) for a in angles]
    )


def write_scene(folder, views: int, sidelength: int = 64, images: bool = True):
    """A scene folder: a disc that shifts and changes colour with the camera's angle, on white."""
    (folder / "pose").mkdir(parents=True)
    focal = sidelength * 1.1
    center = sidelength / 2
    (folder / "intrinsics.txt").write_text(
        f"{focal} {center} {center} 0.\n0 0 0\n1.0\n1.0\n{sidelength} {sidelength}\n"
    )
    row, column = np.mgrid[:sidelength, :sidelength] - sidelength / 2
    for i, pose in enumerate(hemisphere_poses(views)):
        (folder / "pose" / f"{i:06d}.txt").write_text(" ".join(map(str, pose.ravel())) + "\n")
        if images:
            (folder / "rgb").mkdir(exist_ok=True)
            image = np.full((sidelength, sidelength, 3), 255, np.uint8)
            inside = np.hypot(row - 6 * pose[0, 2], column - 6 * pose[1, 2]) < sidelength / 4
            image[inside] = (100 + 100 * pose[:3, 2]).astype(np.uint8)
            imageio.imwrite(folder / "rgb" / f"{i:06d}.png", image)
    return folder


@pytest.fixture
def scene(tmp_path):
    """`scene/train` of 8 views and `scene/test` of 3."""
    write_scene(tmp_path / "scene" / "train", views=8)
    write_scene(tmp_path / "scene" / "test", views=3)
    return tmp_path / "scene"


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """A scene, the logging root of a run of two steps on it, and their checkpoint. Not to be
    changed."""
    from tests.helpers import (
        arguments,
        final_checkpoint,
        run,
    )  # after the hook above, as all that imports the project

    folder = tmp_path_factory.mktemp("trained")
    write_scene(folder / "scene" / "train", views=8)
    assert run(*arguments(folder / "scene", folder / "logs", "--max_steps", 2)) == 0
    return folder / "scene", folder / "logs", final_checkpoint(folder / "logs", 2)[1]


@pytest.fixture
def logs(tmp_path):
    """A logging root that does not exist yet."""
    return tmp_path / "logs"


@pytest.fixture
def train_arguments(scene, logs):
    """The command line of two training steps."""
    from tests.helpers import arguments

    return arguments(scene, logs, "--max_steps", 2)


@pytest.fixture
def assert_refused(capfd, logs):
    """Runs a command, which must end with exit code 2 and one line that holds `*words`, having
    written nothing."""
    from tests.helpers import assert_one_line, run

    def check(command, *words):
        capfd.readouterr()
        assert run(*command) == 2
        error = capfd.readouterr().err
        assert error.startswith("run_deepvoxels.py: error: "), error
        assert_one_line(error, *words)
        assert not logs.exists()

    return check


@pytest.fixture(scope="session")
def worker(tmp_path_factory):
    """A process that runs commands, and may crash or hang."""
    from tests.fuzz_worker import Worker

    worker = Worker(tmp_path_factory.mktemp("worker"))
    yield worker
    worker.stop()


@pytest.fixture(scope="session")
def viewed(trained):
    """The scene and the model of `trained` as the viewer has them. `save(folder, path)` saves a
    camera path."""
    from types import SimpleNamespace

    from evaluation.trained import Checkpoint
    from viewer.paths import save_path
    from viewer.scene import load_scene_in_view, load_viewed_model

    root, _, content = trained
    checkpoint = Checkpoint.of({"average": {}, **content}, root / "model.pth")
    scene = load_scene_in_view(checkpoint, None)
    model = load_viewed_model(checkpoint, scene, torch.device("cpu"))
    return SimpleNamespace(
        scene=scene, model=model, save=lambda folder, path: save_path(folder, path, scene, model)
    )
