"""Pictures for people to look at: pixels enlarged without blur, depth in colours, captioned
grids."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, UInt8

from data_util import color_depth, crop_border
from util import one_line

CELL = 224  # pixels a side of a grid's picture, about
GAP_PIXELS = 4  # white, between pictures
MISSING = 235  # the gray in place of a missing picture


def to_uint8(image: Float[np.ndarray, "*n"]) -> UInt8[np.ndarray, "*n"]:
    """An image in [0, 1] in 8 bits."""
    return np.round(255 * image).astype(np.uint8)


def enlarge(
    pictures: UInt8[np.ndarray, "*b h w 3"], sidelength: int
) -> UInt8[np.ndarray, "*b h2 w2 3"]:
    """Square pictures at the whole multiple of their size nearest to `sidelength`: each pixel
    becomes a square."""
    factor = max(1, round(sidelength / pictures.shape[-2]))
    return pictures.repeat(factor, axis=-3).repeat(factor, axis=-2)


def depth_pictures(
    depth: Float[np.ndarray, "*b m m"],
    sidelength: int,
    nearest: float,
    farthest: float,
) -> UInt8[np.ndarray, "*b h h 3"]:
    """Depth maps in colours, at the size and crop of frames whose images have `sidelength` pixels;
    white where depth is infinite. Each pixel of a map becomes a square about where its ray is in
    the image (docs/design.md, section 3).
    """
    factor = sidelength // depth.shape[-1]
    half = factor // 2
    depth = depth.repeat(factor, axis=-2).repeat(factor, axis=-1)[..., half:, half:]
    depth = crop_border(np.pad(depth, [(0, 0)] * (depth.ndim - 2) + [(0, half)] * 2, mode="edge"))
    return np.where(
        np.isinf(depth)[..., None], np.uint8(255), color_depth(depth, nearest, farthest)
    )


def evenly_spread(count: int, shown: int) -> list[int]:
    """At most `shown` of `count` views, spread evenly over the path."""
    shown = min(shown, count)
    return [(2 * i + 1) * count // (2 * shown) for i in range(shown)]


def tile_pictures(
    rows: Sequence[Sequence[UInt8[np.ndarray, "s s 3"] | None]],
) -> UInt8[np.ndarray, "h w 3"]:
    """Rows of equally many pictures of one size, enlarged; gray where there is none."""
    cells = [picture for row in rows for picture in row]
    missing = np.full_like(next(cell for cell in cells if cell is not None), MISSING)
    cells = enlarge(np.stack([missing if cell is None else cell for cell in cells]), CELL)
    margin = (GAP_PIXELS // 2, GAP_PIXELS // 2)
    cells = np.pad(cells, ((0, 0), margin, margin, (0, 0)), constant_values=255)
    side = cells.shape[1]
    return (
        cells.reshape(len(rows), -1, side, side, 3).swapaxes(1, 2).reshape(len(rows) * side, -1, 3)
    )


def captions(texts: Sequence[str], width: int) -> UInt8[np.ndarray, "h w 3"]:
    """A white strip with each text in the middle of its share of the width, smaller where it would
    not fit.

    The strip is an even number of pixels high, about a ninth of a share.
    """
    from matplotlib.backends.backend_agg import (
        FigureCanvasAgg,
    )  # takes half a second; only pictures need it
    from matplotlib.figure import Figure

    # a power of two: sizes in inches are exact
    share = width / len(texts)
    dpi = 64
    height = int(share / 18) * 2
    canvas = FigureCanvasAgg(Figure((width / dpi, height / dpi), dpi, facecolor="white"))
    for i, text in enumerate(texts):
        font_size = 0.55 * height * 72 / dpi  # in points
        label = canvas.figure.text(
            (i + 0.5) / len(texts),
            0.5,
            one_line(text),
            ha="center",
            va="center",
            fontsize=font_size,
            color="black",
            parse_math=False,
        )
        length = label.get_window_extent(canvas.get_renderer()).width
        label.set_fontsize(font_size * min(1, 0.9 * share / max(length, 1)))
    canvas.draw()
    return np.array(canvas.buffer_rgba())[..., :3]


def picture_grid(
    columns: Sequence[str],
    rows: Sequence[tuple[str, Sequence[UInt8[np.ndarray, "s s 3"] | None]]],
) -> UInt8[np.ndarray, "h w 3"]:
    """A grid of pictures, titled above each column and, turned by 90 degrees, left of each row."""
    grid = tile_pictures([pictures for _, pictures in rows])
    names = np.rot90(captions([name for name, _ in reversed(rows)], len(grid)))
    titles = np.pad(
        captions(columns, grid.shape[1]), ((0, 0), (names.shape[1], 0), (0, 0)), constant_values=255
    )
    return np.concatenate([titles, np.concatenate([names, grid], axis=1)])
