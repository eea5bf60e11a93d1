"""The method `deepvoxels` as NerfBaselines calls it: trains step by step, renders cameras, saves.

A checkpoint is a folder: `model.pth`, which all commands of the project read, and beside it
`pose/` and `intrinsics.txt` of the training views, so that the folder is a scene without images,
and `scene.json`, with the rotation from the data set's world to the scene's.
"""

import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nerfbaselines import Cameras, Dataset, Method, MethodInfo, ModelInfo

from checkpoints import load_checkpoint
from evaluation.trained import Checkpoint
from integrations.nerfbaselines.run import (
    MODEL,
    SteppedTraining,
    flags,
    kept_random_numbers,
    read_rotation,
)
from integrations.nerfbaselines.views import CameraRenderer
from machine.runtime import choose_device, flushed_denormals
from util import InputError


class Refused(InputError):
    """An `InputError` that NerfBaselines' commands show as one line, by `write_to_logger`."""

    def write_to_logger(self) -> None:
        logging.error(str(self))


@contextmanager
def refusals() -> Iterator[None]:
    """An `InputError` in the block is one that NerfBaselines shows as one line."""
    try:
        yield
    except InputError as error:
        raise Refused(str(error)) from None


class DeepVoxelsMethod(Method):
    """A run on a data set (`train_dataset`), new or continued from a checkpoint's folder, or the
    trained model of a checkpoint's folder.

    config_overrides: flags of run_deepvoxels.py without their dashes (`run.SETTINGS`).
    """

    def __init__(
        self,
        *,
        checkpoint: str | None = None,
        train_dataset: Dataset | None = None,
        config_overrides: dict[str, Any] | None = None,
    ):
        self._folder = checkpoint and Path(checkpoint)
        self._run = None
        self._renderer = None
        self._loaded_step = None
        with refusals(), flushed_denormals(), kept_random_numbers():
            settings = config_overrides or {}
            arguments = flags(settings)
            if train_dataset is not None:
                self._run = SteppedTraining.begin(train_dataset, arguments, self._folder)
                self._rotation = self._run.rotation
                if checkpoint:
                    self._loaded_step = self._run.step
                return
            if checkpoint is None:
                raise InputError("neither a checkpoint nor a data set to train on is given")
            path = self._folder / MODEL
            loaded = Checkpoint.of(load_checkpoint(path), path)
            self._rotation = read_rotation(self._folder)
            self._loaded_step = loaded.step
            self._settings = loaded.content.get("options", {})
            device = torch.device(choose_device(str(settings.get("device", "auto"))))
            scene = loaded.load_poses(self._folder)
            self._renderer = CameraRenderer(loaded.load_model(scene.intrinsics, device))

    @classmethod
    def get_method_info(cls) -> MethodInfo:
        """What NerfBaselines must know before it reads the data set: it undistorts what is no
        pinhole."""
        return {
            "method_id": "deepvoxels",
            "required_features": frozenset(("color", "points3D_xyz", "points3D_rgb")),
            "supported_camera_models": frozenset(("pinhole",)),
            "supported_outputs": ("color", "depth"),
            "can_resume_training": True,
        }

    def get_info(self) -> ModelInfo:
        """The same of this model, with its settings and its number of steps."""
        settings = self._run.settings if self._run else self._settings
        learns_depth = not settings.get("no_occlusion_net")
        return {
            **self.get_method_info(),
            "supported_outputs": ("color", "depth") if learns_depth else ("color",),
            "num_iterations": self._run.total_steps if self._run else self._loaded_step,
            "loaded_step": self._loaded_step,
            "loaded_checkpoint": str(self._folder) if self._folder else None,
            "batch_size": settings.get("num_trgt", 2),
            "eval_batch_size": 1,
            "hparams": settings,
        }

    def train_iteration(self, step: int) -> dict[str, float]:
        """Takes the next step. Returns the losses and PSNR (dB) of every `PROGRESS_EVERY`th one,
        nothing for the others, which then need not wait for the device. Raises `NotFinite`."""
        del step  # NerfBaselines counts as we do
        self._renderer = None
        with flushed_denormals():
            return self._run.take_step()

    def render(self, camera: Cameras, *, options: dict | None = None) -> dict[str, np.ndarray]:
        """The view from one camera: `color` in [0, 1] (h w 3) and, if the model learns depth,
        `depth` along z in the data set's units (h w)."""
        del options
        camera = camera.item()
        with flushed_denormals(), kept_random_numbers():
            if self._renderer is None:
                self._renderer = self._run.renderer()
            pose = np.eye(4)
            pose[:3] = self._rotation @ camera.poses[:3]
            color, depth = self._renderer.render(
                pose, tuple(camera.intrinsics.tolist()), tuple(camera.image_sizes.tolist())
            )
        return {"color": color} if depth is None else {"color": color, "depth": depth}

    def save(self, path: str) -> None:
        """Writes a checkpoint's folder. One that was only loaded is copied."""
        folder = Path(path)
        if self._run:
            folder.mkdir(parents=True, exist_ok=True)
            self._run.save(folder)
        else:
            ignored = shutil.ignore_patterns("nb-info.json")
            shutil.copytree(self._folder, folder, ignore=ignored, dirs_exist_ok=True)
