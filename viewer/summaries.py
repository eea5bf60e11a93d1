"""The loss and PSNR of a training run, read from its summaries while they grow."""

from pathlib import Path

import numpy as np
from jaxtyping import Float
from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader
from tensorboard.compat.proto.event_pb2 import SessionLog

MAX_POINTS = 1000  # of a curve, for a browser to draw


class Curves:
    """The curves of the run whose summaries lie in `folder`. `read` adds what is new."""

    def __init__(self, folder: Path, l1_weight: float):
        self.folder = folder
        self.l1_weight = l1_weight
        self._loaders: dict[Path, LegacyEventFileLoader] = {}
        self._values: dict[int, dict[str, float]] = {}

    def read(self) -> bool:
        """Reads what training has logged since the last call. Returns whether there was
        anything."""
        found = False
        for path in sorted(self.folder.glob("events.*")):
            if path not in self._loaders:
                self._loaders[path] = LegacyEventFileLoader(str(path))
            for event in self._loaders[path].Load():
                if (
                    event.session_log.status == SessionLog.START
                ):  # what a resumed run computes again is not shown twice
                    self._values = {
                        step: values for step, values in self._values.items() if step < event.step
                    }
                for value in event.summary.value:
                    if value.HasField("simple_value"):
                        self._values.setdefault(event.step, {})[value.tag] = value.simple_value
                        found = True
        return found

    def points(self) -> Float[np.ndarray, "points 3"]:
        """Rows of step, loss (as the progress bar shows it) and PSNR in dB, at most `MAX_POINTS`
        and the last."""
        return _thinned(
            [
                (step, self.l1_weight * values["l1"] + values["generator"], values["psnr"])
                for step, values in sorted(self._values.copy().items())
                if {"l1", "generator", "psnr"} <= values.keys()
            ],
            3,
        )

    def validation(self) -> Float[np.ndarray, "points 2"]:
        """Rows of step and PSNR in dB on the held-out views, where the run measures them
        (`--validate_every`)."""
        return _thinned(
            [
                (step, values["val/psnr"])
                for step, values in sorted(self._values.copy().items())
                if "val/psnr" in values
            ],
            2,
        )


def _thinned(rows: list[tuple], columns: int) -> Float[np.ndarray, "points columns"]:
    stride = -(-len(rows) // MAX_POINTS) or 1
    return np.array(rows[::-1][::stride][::-1], dtype=np.float64).reshape(-1, columns)


def summaries_of(checkpoint: Path, logging_root: Path) -> Path | None:
    """The folder of the summaries of the run that a checkpoint lies in, if that is a run under the
    logging root."""
    logs = (logging_root / "logs").resolve()
    run = checkpoint.resolve().parent
    return (
        logging_root / "runs" / run.relative_to(logs)
        if run.is_relative_to(logs) and run != logs
        else None
    )
