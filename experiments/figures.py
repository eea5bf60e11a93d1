"""Figures of several runs: curves with error bars, frames side by side, and a video of a whole test
path."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from data_util import write_image
from dataio import Scene, load_scene
from evaluation.metrics import true_image
from evaluation.output import read_frame
from evaluation.picture_grid import captions, picture_grid, tile_pictures, to_uint8
from evaluation.video_writer import VideoWriter
from experiments.plan import SceneData
from experiments.status import Result
from util import new_file, one_line

VIEWS_SHOWN = 3  # of each scene, in a figure
MAX_TICKS = 12  # with more values on an x axis, its ticks do not name each


@dataclass(frozen=True)
class Curve:
    """A named line: at each x the mean of some values, with a bar from the smallest to the largest.
    Where there are no values the line is broken.

    style: color, marker and line as one of matplotlib's format strings.
    """

    name: str
    x: list[float]
    values: list[list[float]]
    style: str = "o-"


@dataclass(frozen=True)
class Plot:
    """Curves in one pair of axes. log_x, log_y: logarithmic axes. line_at: the y of a black
    line."""

    title: str
    x_label: str
    y_label: str
    curves: list[Curve]
    log_x: bool = False
    log_y: bool = False
    line_at: float | None = None


def write_plots(path: Path, plots: Sequence[Plot]) -> None:
    """Writes plots as PNG side by side, 720 x 480 pixels each, with one legend, and says where.
    Plots with the same label share the y axis. If there are none, an earlier file is removed."""
    if not plots:
        path.unlink(missing_ok=True)
        return
    from matplotlib.figure import Figure  # takes half a second; only pictures need it

    figure = Figure((7.2 * len(plots), 4.8), dpi=100, layout="constrained")
    share_y = len({plot.y_label for plot in plots}) == 1
    all_axes = figure.subplots(1, len(plots), sharey=share_y, squeeze=False)[0]
    legend = {}
    for axes, plot in zip(all_axes, plots, strict=True):
        draw_plot(axes, plot, legend)
        if share_y:
            axes.label_outer()
    figure.legend(
        legend.values(), legend.keys(), loc="outside lower center", ncols=4, frameon=False
    )
    with new_file(path) as file:
        figure.savefig(file, format="png")
    print(f"look at {path}")


def draw_plot(axes, plot: Plot, legend: dict) -> None:
    """Draws a plot, and adds what its legend shows, by name."""
    axes.set_title(plot.title)
    axes.set_xlabel(plot.x_label)
    axes.set_ylabel(plot.y_label)
    if plot.log_x:
        axes.set_xscale("log")
    if plot.log_y:
        axes.set_yscale("log")
    if plot.line_at is not None:
        axes.axhline(plot.line_at, color="black", linewidth=1)
    for curve in plot.curves:
        known = [values or [np.nan] for values in curve.values]
        mean = np.array([np.mean(values) for values in known])
        name = one_line(curve.name).replace("$", r"\$")  # which would start a formula
        if all(len(values) == 1 for values in known):
            (legend[name],) = axes.plot(curve.x, mean, curve.style)
            continue
        below = mean - [min(values) for values in known]
        above = [max(values) for values in known] - mean
        legend[name] = axes.errorbar(
            curve.x, mean, np.maximum((below, above), 0), fmt=curve.style, capsize=3
        )
    measured = sorted({x for curve in plot.curves for x in curve.x})
    if len(measured) <= MAX_TICKS:
        axes.set_xticks(measured, [f"{x:g}" for x in measured])
        axes.set_xticks([], minor=True)
    axes.grid(alpha=0.3)


def load_test_views(data: SceneData, result: Result) -> Scene:
    """The test views of a scene as a run was measured with."""
    protocol = result.metrics["protocol"]
    return load_scene(data.test, protocol["sidelength"], background=protocol["background"])


def truth_and_frames(
    views: Scene,
    view: int,
    results: Sequence[Result | None],
) -> list[UInt8[np.ndarray, "h w 3"] | None]:
    """A view's true image and the frame of each run; None for a run that failed."""
    return [
        to_uint8(true_image(views, view)),
        *(result and read_frame(result.folder, view) for result in results),
    ]


def write_figure(path: Path, columns: Sequence[str], rows: Sequence[tuple[str, list]]) -> None:
    """Writes the rows of pictures (see `picture_grid`) and says where. If there are none, as no run
    is done, a figure of an earlier call is removed."""
    if rows:
        write_image(path, picture_grid(columns, rows))
        print(f"look at {path}")
    else:
        path.unlink(missing_ok=True)


def write_path_video(
    path: Path, columns: Sequence[str], views: Scene, results: Sequence[Result | None]
) -> None:
    """The test path: the truth and the frames of each run side by side, under the columns'
    titles."""
    titles = None
    with VideoWriter(path) as video:
        for view in range(len(views)):
            row = tile_pictures([truth_and_frames(views, view, results)])
            if titles is None:
                titles = captions(columns, row.shape[1])
            video.add(np.concatenate([titles, row]))
