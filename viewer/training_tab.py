"""The curves of a run that trains, in a browser."""

from collections.abc import Callable

import numpy as np
import viser
from viser import uplot

from viewer.shared import Shared
from viewer.summaries import Curves

CHARTS: tuple[
    tuple[str, str, Callable[[Curves], np.ndarray]], ...
] = (  # title, colour, rows of step and value
    ("Loss", "#1f6fb4", lambda curves: curves.points()[:, :2]),
    ("PSNR of the training views (dB)", "#c8501e", lambda curves: curves.points()[:, ::2]),
    ("PSNR of held-out views (dB)", "#2a8c4a", lambda curves: curves.validation()),
)


class TrainingTab:
    """Loss and PSNR over steps. Its charts are made where the caller's `gui` context is; one
    without values hides."""

    def __init__(self, client: viser.ClientHandle, shared: Shared):
        self.shared = shared
        self._charts = [
            client.gui.add_uplot(
                tuple(rows(shared.curves).T),
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
            values = rows(self.shared.curves)
            chart.data = tuple(values.T)
            chart.visible = len(values) > 0
