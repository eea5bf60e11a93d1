"""The curves of a run that trains, in a browser."""
import numpy as np
import viser
from viser import uplot

from viewer.shared import Shared

CHARTS = ((1, "Loss", "#1f6fb4"), (2, "PSNR (dB)", "#c8501e"))  # column of the points, title, colour


class TrainingTab:
    """Loss and PSNR over steps. Its charts are made where the caller's `gui` context is."""

    def __init__(self, client: viser.ClientHandle, shared: Shared):
        self.shared = shared
        self._charts = [client.gui.add_uplot(
            self._data(column), title=title, aspect=1.6, legend=uplot.Legend(show=False),
            scales={"x": uplot.Scale(time=False)},
            series=(uplot.Series(label="step"), uplot.Series(label=title, stroke=color, width=1.5)))
            for column, title, color in CHARTS]

    def update(self) -> None:
        """Shows what the run has logged by now."""
        for chart, (column, *_) in zip(self._charts, CHARTS, strict=True):
            chart.data = self._data(column)

    def _data(self, column: int) -> tuple[np.ndarray, np.ndarray]:
        points = self.shared.curves.points()
        return points[:, 0], points[:, column]
