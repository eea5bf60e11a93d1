"""A run whose steps somebody else asks for, on a data set of NerfBaselines."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from checkpoints import restore_rng_states, rng_states, save_checkpoint
from data_util import write_scene_folder
from deep_voxels import Architecture
from evaluation.trained import Checkpoint
from integrations.nerfbaselines.views import CameraRenderer
from machine.options import RUN_PATHS
from machine.ranks import ALONE
from machine.runtime import Machine, keep_freed_memory
from run_deepvoxels import resolve_options
from scenes.capture.options import require_pycolmap
from training.data import training_triplets
from training.guard import MAX_SKIPPED_STEPS, NotFinite, SkippedSteps
from training.loop import learning_rate, set_up, take_step
from training.options import PROGRESS_EVERY, Learning
from training.state import Training, snapshot
from util import InputError, read_json, write_json

MODEL = "model.pth"
SCENE = "scene.json"
# What `--set` takes: those flags of run_deepvoxels.py that decide what is learned, and on what
SETTINGS = {"size"} | {
    declared.name for part in (Learning, Architecture, Machine) for declared in fields(part)
} - {"model", "start_epoch"}


class SteppedTraining:
    """A training whose steps somebody else asks for: it computes what run_deepvoxels.py computes
    with the same flags on the same scene folder, to the bit, whatever is drawn at random between
    its steps."""

    def __init__(self, training: Training, rotation: Float[np.ndarray, "3 3"]):
        self.rotation = rotation
        self._training = training
        self._views = training.scene.on(torch.device(training.options.machine.device))
        self._rate = learning_rate(training)
        self._skipped = SkippedSteps(training.scene.names, training.progress.skipped_in_a_row)
        self._unread = False
        learning = training.options.learning
        self._triplets = training_triplets(
            training.scene, learning.num_trgt, learning.seed, training.steps
        )
        self._last_step = training.steps.stop
        self._random_numbers = rng_states()
        training.networks.model.train()
        training.networks.discriminator.train()

    @classmethod
    def begin(
        cls, dataset: dict[str, Any], arguments: list[str], resume: Path | None
    ) -> "SteppedTraining":
        """Writes the data set, a `nerfbaselines.Dataset`, as a scene folder, reads it, and deletes
        it. resume: the checkpoint's folder to continue from."""
        require_pycolmap()
        # here, because it imports pycolmap, which rendering does without
        from integrations.nerfbaselines.scene import background_of, write_dataset

        with TemporaryDirectory(prefix="deepvoxels_") as name:
            folder = Path(name)
            arguments = [*arguments, f"--background={background_of(dataset)}"]
            if resume:
                arguments.append(f"--resume={resume / MODEL}")
            places = [f"--data_root={folder / 'train'}", f"--logging_root={folder}"]
            options, checkpoint = resolve_options(["--train_test=train", *places, *arguments])
            logging.info(write_dataset(dataset, folder))
            keep_freed_memory()
            training, _ = set_up(options, checkpoint, ALONE)
            return cls(training, read_rotation(folder))

    @property
    def step(self) -> int:
        return self._training.progress.step

    @property
    def total_steps(self) -> int:
        return self._last_step

    @property
    def settings(self) -> dict[str, Any]:
        """Every flag's value by its name, but for folders that are gone."""
        values = self._training.options.flags.items()
        return {name: value for name, value in values if name not in RUN_PATHS}

    def take_step(self) -> dict[str, float]:
        """Takes the next step; returns what `DeepVoxelsMethod.train_iteration` says."""
        step, triplet = next(self._triplets)
        with kept_random_numbers():
            restore_rng_states(self._random_numbers)
            _, result = take_step(self._training, self._views, self._rate, step, triplet)
            self._random_numbers = rng_states()
        self._skipped.add(step, triplet, result.finite)
        self._unread = True
        self._training.progress.step = step
        if step % PROGRESS_EVERY and step != self._last_step:
            return {}
        self._read_skipped()
        if self._skipped.in_a_row:
            return {}
        losses = result.losses.on_host()
        weights = self._training.options.learning.loss_weights
        return {"loss": weights.total(losses), **losses}

    def _read_skipped(self) -> None:
        """Logs the steps that were skipped. Raises `NotFinite` after too many in a row. Waits for
        the device."""
        if not self._unread:
            return
        for line in self._skipped.read():
            logging.warning(line)
        self._unread = False
        progress = self._training.progress
        progress.skipped_in_a_row = self._skipped.in_a_row
        if self._skipped.in_a_row == MAX_SKIPPED_STEPS:
            raise NotFinite(
                f"{MAX_SKIPPED_STEPS} steps in a row before step {progress.step} were not finite; "
                "a checkpoint of before can be continued with half the learning rate"
            )

    def _content(self) -> dict:
        """What a checkpoint of now holds."""
        self._read_skipped()
        training = self._training
        content = snapshot(training.networks, training.progress, training.scene, self.settings)
        content["epoch"] = max(content["epoch"], 0)  # before the first step
        content["rng"] = self._random_numbers
        return content

    def save(self, folder: Path) -> None:
        """Writes a checkpoint into a folder that exists."""
        scene = self._training.scene
        save_checkpoint(folder / MODEL, self._content())
        write_scene_folder(folder, scene.intrinsics, scene.cam2world)
        write_json(folder / SCENE, {"rotation": self.rotation.tolist()})

    def renderer(self) -> CameraRenderer:
        """Renders with a copy of the weights as they are: what a checkpoint of now would."""
        content = {"average": {}, **self._content()}
        checkpoint = Checkpoint.of(content, Path("the run"))
        device = torch.device(self._training.options.machine.device)
        intrinsics = self._training.scene.intrinsics
        return CameraRenderer(checkpoint.load_model(intrinsics, device))


def flags(settings: dict[str, Any]) -> list[str]:
    """Settings as the command line of run_deepvoxels.py. Raises `InputError` for one that it does
    not take here."""
    arguments = []
    for name, value in settings.items():
        if name not in SETTINGS:
            raise InputError(f"--set {name}={value}: unknown; choose {', '.join(sorted(SETTINGS))}")
        if str(value) == "True":
            arguments.append(f"--{name}")
        elif value is not None and str(value) != "False":
            arguments.append(f"--{name}={value}")
    return arguments


def read_rotation(folder: Path) -> Float[np.ndarray, "3 3"]:
    """The rotation from the data set's world to the scene's. Raises `InputError` if there is
    none."""
    path = folder / SCENE
    content = read_json(path)
    try:
        rotation = np.array(content["rotation"], dtype=np.float64)
    except (KeyError, TypeError, ValueError):
        rotation = np.zeros(0)
    if rotation.shape != (3, 3) or not np.allclose(rotation @ rotation.T, np.eye(3)):
        raise InputError(f"{path}: holds no rotation")
    return rotation


@contextmanager
def kept_random_numbers() -> Iterator[None]:
    """PyTorch's random generators are the same after the block as before it."""
    states = rng_states()
    try:
        yield
    finally:
        restore_rng_states(states)
