"""Curves as a picture: a few lines over a few measured values."""
from dataclasses import dataclass
from pathlib import Path

import cv2
import imageio.v2 as imageio
import numpy as np

WIDTH, HEIGHT = 720, 480
LEFT, RIGHT, TOP, BOTTOM = 80, 690, 50, 415  # of the axes
COLORS = [(31, 119, 180), (214, 90, 20), (44, 140, 44), (170, 40, 40), (120, 80, 170), (110, 80, 70)]
GRID, INK = (225, 225, 225), (40, 40, 40)


@dataclass(frozen=True)
class Curve:
    """A named line: at each x the mean of some values, between their least and greatest."""

    name: str
    x: list[float]
    values: list[list[float]]


def write_plot(path: Path, title: str, x_label: str, y_label: str, curves: list[Curve]) -> None:
    """Writes `draw_plot`'s picture."""
    imageio.imwrite(path, draw_plot(title, x_label, y_label, curves))


def draw_plot(title: str, x_label: str, y_label: str, curves: list[Curve], log: bool = False) -> np.ndarray:
    """The curves' means as points and lines, with whiskers from least to greatest value; `log`: on logarithmic axes."""
    picture = np.full((HEIGHT, WIDTH, 3), 255, np.uint8)
    x_marks = sorted({x for curve in curves for x in curve.x})
    y_bounds = bounds([value for curve in curves for values in curve.values for value in values])
    y_marks = powers_of_ten(*y_bounds) if log else round_marks(*y_bounds)
    axis = np.log10 if log else float
    to_column = scale(*bounds(x_marks), LEFT + 20, RIGHT - 20, axis)
    to_row = scale(y_marks[0], y_marks[-1], BOTTOM, TOP, axis)
    for y in y_marks:
        cv2.line(picture, (LEFT, to_row(y)), (RIGHT, to_row(y)), GRID, 1)
        write(picture, f"{y:g}", LEFT - 8, to_row(y) + 5, align=1.0)
    for x in x_marks:
        cv2.line(picture, (to_column(x), TOP), (to_column(x), BOTTOM), GRID, 1)
        write(picture, f"{x:g}", to_column(x), BOTTOM + 20, align=0.5)
    cv2.rectangle(picture, (LEFT, TOP), (RIGHT, BOTTOM), INK, 1)
    write(picture, title, WIDTH // 2, 30, align=0.5, size=0.6)
    write(picture, x_label, (LEFT + RIGHT) // 2, BOTTOM + 45, align=0.5)
    write(picture, y_label, 8, TOP - 10)
    for i, curve in enumerate(curves):
        color = COLORS[i % len(COLORS)]
        points = []
        for x, values in zip(curve.x, curve.values, strict=True):
            points.append((to_column(x), to_row(float(np.mean(values)))))
            cv2.line(picture, (to_column(x), to_row(min(values))), (to_column(x), to_row(max(values))), color, 1)
            cv2.circle(picture, points[-1], 4, color, -1, cv2.LINE_AA)
        cv2.polylines(picture, [np.array(points, np.int32).reshape(-1, 1, 2)], False, color, 2, cv2.LINE_AA)
        write(picture, curve.name, LEFT + 10 + 140 * (i % 4), HEIGHT - 10 - 16 * (i // 4), color=color)
    return picture


def write(picture: np.ndarray, text: str, column: int, row: int, align: float = 0.0, size: float = 0.45,
          color: tuple[int, int, int] = INK) -> None:
    """Text on its base line; `align` is the share of its length that lies left of `column`."""
    (length, _), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, size, 1)
    cv2.putText(picture, text, (round(column - align * length), row), cv2.FONT_HERSHEY_SIMPLEX, size, color, 1,
                cv2.LINE_AA)


def bounds(values: list[float]) -> tuple[float, float]:
    """The least and the greatest value, made to differ."""
    low, high = min(values), max(values)
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def round_marks(low: float, high: float) -> list[float]:
    """About five round numbers, evenly spaced, that enclose a range."""
    rough = (high - low) / 4
    step = 10.0 ** np.floor(np.log10(rough))
    step *= next(factor for factor in (1, 2, 5, 10) if factor * step >= rough * 0.999)
    first, last = int(np.floor(low / step + 1e-9)), int(np.ceil(high / step - 1e-9))
    return [round(i * step, 10) for i in range(first, last + 1)]


def powers_of_ten(low: float, high: float) -> list[float]:
    """Powers of ten that enclose a range of positive numbers."""
    first, last = int(np.floor(np.log10(low))), int(np.ceil(np.log10(high)))
    return [10.0 ** i for i in range(first, max(last, first + 1) + 1)]


def scale(low: float, high: float, first: int, last: int, axis=float):
    """The map from values to pixels, linear in `axis` of the value."""
    return lambda value: round(first + (axis(value) - axis(low)) / (axis(high) - axis(low)) * (last - first))
