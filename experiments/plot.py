"""Curves with error bars, by matplotlib."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from util import new_file, one_line


@dataclass(frozen=True)
class Curve:
    """A named line: at each x the mean of some values, with a bar from the smallest to the largest.
    Where there are no values the line is broken.

    style: color, marker and line as matplotlib's format strings say them.
    """

    name: str
    x: list[float]
    values: list[list[float]]
    style: str = "o-"


@dataclass(frozen=True)
class Plot:
    """Curves in one pair of axes; `log`: both logarithmic."""

    title: str
    x_label: str
    y_label: str
    curves: list[Curve]
    log: bool = False


def write_plots(path: Path, plots: Sequence[Plot]) -> None:
    """Writes plots as PNG side by side, 720 x 480 pixels each, with a common y axis and one
    legend."""
    from matplotlib.figure import Figure  # takes half a second; only pictures need it

    figure = Figure((7.2 * len(plots), 4.8), dpi=100, layout="constrained")
    legend = {}
    for axes, plot in zip(
        figure.subplots(1, len(plots), sharey=True, squeeze=False)[0], plots, strict=True
    ):
        axes.set_title(plot.title)
        axes.set_xlabel(plot.x_label)
        axes.set_ylabel(plot.y_label)
        if plot.log:
            axes.set_xscale("log")
            axes.set_yscale("log")
        for curve in plot.curves:
            known = [values or [np.nan] for values in curve.values]
            mean = np.array([np.mean(values) for values in known])
            bars = (
                mean - [min(values) for values in known],
                [max(values) for values in known] - mean,
            )
            name = one_line(curve.name).replace("$", r"\$")  # which would start a formula
            legend[name] = axes.errorbar(
                curve.x, mean, np.maximum(bars, 0), fmt=curve.style, capsize=3
            )
        measured = sorted({x for curve in plot.curves for x in curve.x})
        axes.set_xticks(measured, [f"{x:g}" for x in measured])
        axes.set_xticks([], minor=True)
        axes.grid(alpha=0.3)
        axes.label_outer()
    figure.legend(
        legend.values(), legend.keys(), loc="outside lower center", ncols=4, frameon=False
    )
    with new_file(path) as file:
        figure.savefig(file, format="png")
