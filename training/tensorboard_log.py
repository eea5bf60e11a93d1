"""What a training run shows in tensorboard: scalars and pictures (source, output, depth, gates).

Needs tensorboardX, which a run can do without: `recorder` imports this where it is installed.
"""

import time
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from tensorboardX import summary
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.summary_pb2 import Summary
from torch import Tensor

from data_util import color_depth, encode_png
from training.data import Batch
from training.step import Step


class TensorboardLog:
    """Event files in one folder. Each entry is written at once, so that all entries before a
    checkpoint are on disk.

    If the folder cannot be written, entries are lost but training goes on; a new file is begun when
    it can be written again. (tensorboardX's SummaryWriter writes in a thread that ends on a full
    disk, and training then hangs.)

    first_step: what was logged before of this step and later ones is hidden.
    """

    def __init__(self, folder: Path, first_step: int):
        self.folder = folder
        self._file = None
        self._write(step=first_step, session_log=SessionLog(status=SessionLog.START))

    def scalars(self, values: dict[str, float], step: int) -> None:
        for name, value in values.items():
            self._write(step=step, summary=summary.scalar(name, value))

    def picture(self, name: str, picture: UInt8[np.ndarray, "h w *c"], step: int) -> None:
        """A picture, RGB or gray."""
        height, width = picture.shape[:2]
        image = Summary.Image(
            height=height,
            width=width,
            colorspace=3 if picture.ndim == 3 else 1,
            encoded_image_string=bytes(encode_png(picture)),
        )
        self._write(step=step, summary=Summary(value=[Summary.Value(tag=name, image=image)]))

    def step_pictures(self, step: int, batch: Batch, result: Step) -> None:
        """Logs the source, output beside truth for every target, depth, and the GRU's gates, if
        there are any, averaged along z, y and x."""
        rendering = result.rendering
        integration = result.integration

        def rows(images: Float[Tensor, "v 3 s s"]) -> UInt8[np.ndarray, "_ s 3"]:
            """Images in [-1/2, 1/2], one above the other."""
            return levels(torch.cat(list(images.float().permute(0, 2, 3, 1) + 0.5)))

        self.picture("train/source", rows(batch.source_image), step)
        output_and_truth = [rows(rendering.images), rows(batch.target_images)]
        self.picture("train/output_and_truth", np.concatenate(output_and_truth, axis=1), step)
        if rendering.depth is not None:
            depth = torch.cat(list(rendering.depth[:, 0].detach().float().cpu())).numpy()
            self.picture(
                "train/depth", color_depth(depth, float(depth.min()), float(depth.max())), step
            )
        if integration is None:
            return
        for name, gate in [
            ("train/update_gate", integration.update_gate),
            ("train/reset_gate", integration.reset_gate),
        ]:
            if gate is None:
                continue
            means = [gate[0, 0].mean(dim=axis) for axis in range(3)]
            self.picture(name, levels(torch.cat(means, dim=1)), step)

    def close(self) -> None:
        """Ends the file. A later entry would begin a new one."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _write(self, **content) -> None:
        try:
            if self._file is None:
                # Numbered, so that processes that start within one second do not overwrite each
                # other's file.
                number = len(list(self.folder.glob("events.*")))
                self._file = EventsWriter(
                    str(self.folder / "events"), filename_suffix=f".{number:04d}"
                )
            self._file.write_event(Event(wall_time=time.time(), **content))
            self._file.flush()
        except OSError:
            self._file = None


def levels(values: Float[Tensor, "*size"]) -> UInt8[np.ndarray, "*size"]:
    """Values in [0, 1] as 0 to 255, on the host."""
    return (255 * values.detach().float().clamp(0, 1)).round().byte().cpu().numpy()
