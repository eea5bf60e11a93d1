"""What a training run tells in tensorboard: scalars, and pictures of the source, the output, depth and the gates."""
import time
from pathlib import Path

import numpy as np
import torch
from tensorboardX import summary
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from torch import Tensor

from data_util import color_depth
from deep_voxels import Integration, Rendering


class TensorboardLog:
    """Event files of one run folder, written at once and in order, so that what a checkpoint follows is on disk.

    A folder that cannot be written does not stop training: the entries are lost, and a new file is begun once it can
    be written again. On resuming, `first_step` hides what an earlier process logged beyond its last checkpoint.
    """

    def __init__(self, folder: Path, first_step: int):
        self.folder, self.first_step, self._file = folder, first_step, None
        self._write(step=first_step, session_log=SessionLog(status=SessionLog.START))

    def scalars(self, values: dict[str, float], step: int) -> None:
        for name, value in values.items():
            self._write(step=step, summary=summary.scalar(name, value))

    def picture(self, name: str, picture: np.ndarray, step: int) -> None:
        """A picture (height, width, 3) or (height, width, 1), values in [0, 1]."""
        self._write(step=step, summary=summary.image(name, picture, dataformats="HWC"))

    def _write(self, **content) -> None:
        try:
            if self._file is None:
                # Numbered, so that processes that begin within one second do not overwrite each other's file.
                number = len(list(self.folder.glob("events.*")))
                self._file = EventsWriter(str(self.folder / "events"), filename_suffix=f".{number:04d}")
            self._file.write_event(Event(wall_time=time.time(), **content))
            self._file.flush()
        except OSError:
            self._file = None


def log_pictures(log: TensorboardLog, step: int, source: Tensor, targets: Tensor, rendering: Rendering,
                 integration: Integration | None) -> None:
    """Source, output beside truth for every target, depth, and the gates of the GRU, averaged along z, y and x.

    source (1, 3, s, s) and targets (v, 3, s, s) in [-1/2, 1/2].
    """
    def rows(images: Tensor) -> np.ndarray:
        """Images one above the other, in [0, 1]."""
        return torch.cat(list((images.detach().float().cpu() + 0.5).clamp(0, 1).permute(0, 2, 3, 1))).numpy()

    log.picture("source", rows(source), step)
    log.picture("output_and_truth", np.concatenate([rows(rendering.images), rows(targets)], axis=1), step)
    if rendering.depth is not None:
        depth = torch.cat(list(rendering.depth[:, 0].detach().float().cpu())).numpy()
        log.picture("depth", color_depth(depth, float(depth.min()), float(depth.max())) / 255, step)
    if integration is None:
        return
    for name, gate in [("update_gate", integration.update_gate), ("reset_gate", integration.reset_gate)]:
        gate = gate.detach().float().cpu()[0, 0]
        log.picture(name, torch.cat([gate.mean(dim=axis) for axis in range(3)], dim=1)[..., None].numpy(), step)
