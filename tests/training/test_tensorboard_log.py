"""What training logs for tensorboard is what it showed the networks and what they made of it."""

import cv2
import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from deep_voxels import Integration, Rendering
from training.data import Batch
from training.step import Step
from training.tensorboard_log import TensorboardLog


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_pictures_hold_the_images_and_gates_of_a_step(tmp_path, dtype):
    """In RGB and to the level, also where a network's output has 16 bits."""
    torch.manual_seed(0)
    source, first, second = (torch.rand(3, 1, 3, 16, 16) - 0.5).unbind()
    poses = torch.eye(4).repeat(2, 1, 1)
    outputs = ((torch.rand(2, 3, 16, 16) - 0.5) * 1.2).to(dtype)  # some beyond black and white
    gate = torch.rand(1, 1, 4, 4, 4)
    log = TensorboardLog(tmp_path, 1)
    log.step_pictures(
        1,
        Batch(source, poses[:1], torch.cat([first, second]), poses),
        Step(None, Rendering(outputs, None), Integration(None, gate, None), None),
    )
    log.close()
    events = EventAccumulator(str(tmp_path)).Reload()

    def logged(name: str) -> np.ndarray:
        (picture,) = events.Images(name)
        encoded = np.frombuffer(picture.encoded_image_string, np.uint8)
        pixels = cv2.imdecode(encoded, cv2.IMREAD_UNCHANGED)
        assert (picture.height, picture.width) == pixels.shape[:2]
        return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB) if pixels.ndim == 3 else pixels

    def expected(image: torch.Tensor) -> np.ndarray:
        return np.round(255 * (image.float() + 0.5).clamp(0, 1).permute(1, 2, 0).numpy())

    assert events.Tags()["images"] == [
        "train/source",
        "train/output_and_truth",
        "train/update_gate",
    ]
    np.testing.assert_array_equal(logged("train/source"), expected(source[0]))
    rows = [
        np.concatenate([expected(output), expected(truth[0])], axis=1)
        for output, truth in zip(outputs, (first, second), strict=True)
    ]
    np.testing.assert_array_equal(logged("train/output_and_truth"), np.concatenate(rows))
    means = [gate[0, 0].mean(dim=axis).numpy() for axis in range(3)]
    np.testing.assert_array_equal(
        logged("train/update_gate"), np.round(255 * np.concatenate(means, axis=1))
    )
