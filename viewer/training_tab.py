"""The loss and PSNR of a run, read from its summaries while they grow, and shown in a browser."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import viser
from jaxtyping import Float
from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader
from tensorboard.compat.proto.event_pb2 import SessionLog
from viser import uplot

from files.runs import grouped_tag
from losses import LossWeights

MAX_CURVE_POINTS = 1000  # of a curve, for a browser to draw


class Curves:
    """The curves of the run whose summaries lie in `folder`. `read` adds what is new."""

    def __init__(self, folder: Path, weights: LossWeights):
        self.folder = folder
        self.weights = weights
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
                # What a resumed run computes again is not shown twice.
                if event.session_log.status == SessionLog.START:
                    self._values = {
                        step: values for step, values in self._values.items() if step < event.step
                    }
                for value in event.summary.value:
                    if value.HasField("simple_value"):
                        self._values.setdefault(event.step, {})[grouped_tag(value.tag)] = (
                            value.simple_value
                        )
                        found = True
        return found

    def points(self) -> Float[np.ndarray, "points 3"]:
        """Rows of step, loss (as the progress bar shows it) and PSNR in dB: at most
        `MAX_CURVE_POINTS` and the last."""
        return _thinned(
            [
                (step, self.weights.total(losses), losses["psnr"])
                for step, losses in self._training_losses()
                if {"l1", "generator", "psnr"} <= losses.keys()
            ],
            3,
        )

    def _training_losses(self) -> Iterator[tuple[int, dict[str, float]]]:
        """Steps and their losses by the names in `training.step.Losses`."""
        for step, values in sorted(self._values.copy().items()):
            group = "train/"
            yield (
                step,
                {
                    tag.removeprefix(group): value
                    for tag, value in values.items()
                    if tag.startswith(group)
                },
            )

    def validation(self) -> Float[np.ndarray, "points 2"]:
        """Rows of step and PSNR in dB on the held-out views, where the run measures them
        (`--validate_every`)."""
        return _thinned(
            [
                (step, values["validation/psnr"])
                for step, values in sorted(self._values.copy().items())
                if "validation/psnr" in values
            ],
            2,
        )


def _thinned(rows: list[tuple], columns: int) -> Float[np.ndarray, "points columns"]:
    stride = -(-len(rows) // MAX_CURVE_POINTS) or 1
    return np.array(rows[::-1][::stride][::-1], dtype=np.float64).reshape(-1, columns)


def summaries_of(checkpoint: Path, logging_root: Path) -> Path | None:
    """The folder of the summaries of the run that a checkpoint lies in, if that is a run under the
    logging root."""
    logs = (logging_root / "logs").resolve()
    run = checkpoint.resolve().parent
    if run == logs or not run.is_relative_to(logs):
        return None
    return logging_root / "runs" / run.relative_to(logs)


# title, colour, rows of step and value
CHARTS: tuple[tuple[str, str, Callable[[Curves], np.ndarray]], ...] = (
    ("Loss", "#1f6fb4", lambda curves: curves.points()[:, :2]),
    ("PSNR of the training views (dB)", "#c8501e", lambda curves: curves.points()[:, ::2]),
    ("PSNR of held-out views (dB)", "#2a8c4a", lambda curves: curves.validation()),
)


class TrainingTab:
    """Loss and PSNR over steps. Its charts are made where the caller's `gui` context is; one
    without values hides."""

    def __init__(self, client: viser.ClientHandle, curves: Curves):
        self.curves = curves
        self._charts = [
            client.gui.add_uplot(
                tuple(rows(curves).T),
                title=title,
                aspect=1.6,
                legend=uplot.Legend(show=False),
                scales={"x": uplot.Scale(time=False)},
                series=(
                    uplot.Series(label="step"),
                    uplot.Series(label=title, stroke=color, width=1.5),
                ),
            )
            for title, color, rows in CHARTS
        ]
        self.update()

    def update(self) -> None:
        """Shows what the run has logged by now."""
        for chart, (_, _, rows) in zip(self._charts, CHARTS, strict=True):
            values = rows(self.curves)
            chart.data = tuple(values.T)
            chart.visible = len(values) > 0
