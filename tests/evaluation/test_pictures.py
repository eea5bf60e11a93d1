"""Pictures and plots: true colours, square pixels, captions where they belong."""

import imageio.v2 as imageio
import numpy as np
import pytest

from data_util import color_depth
from evaluation.picture_grid import (
    captions,
    depth_pictures,
    enlarge,
    evenly_spread,
    picture_grid,
    tile_pictures,
    to_uint8,
)
from experiments.figures import Curve, Plot, write_plots


def random_picture(side: int = 54) -> np.ndarray:
    return np.random.default_rng(side).integers(
        0, 255, (side, side, 3), dtype=np.uint8
    )  # never white


def ink(picture: np.ndarray) -> np.ndarray:
    return (picture < 128).any(axis=-1)


@pytest.mark.parametrize(("side", "factor"), [(54, 4), (118, 2), (246, 1), (502, 1)])
def test_each_pixel_becomes_a_square(side, factor):
    picture = random_picture(side)
    enlarged = enlarge(picture, 224)
    assert enlarged.shape == (factor * side, factor * side, 3)
    for row in range(factor):
        for column in range(factor):
            np.testing.assert_array_equal(enlarged[row::factor, column::factor], picture)


def test_pictures_are_tiled_in_order_and_missing_ones_are_gray():
    first = random_picture()
    second = 255 - random_picture()
    tiles = tile_pictures([[first, None], [None, second]])
    assert tiles.shape == (440, 440, 3)
    cells = {
        (row, column): tiles[220 * row + 2 : 220 * row + 218, 220 * column + 2 : 220 * column + 218]
        for row in (0, 1)
        for column in (0, 1)
    }
    np.testing.assert_array_equal(cells[0, 0], enlarge(first, 216))
    np.testing.assert_array_equal(cells[1, 1], enlarge(second, 216))
    assert (cells[0, 1] == 235).all()
    assert (cells[1, 0] == 235).all()
    assert (tiles[218:222] == 255).all()
    assert (tiles[:, 218:222] == 255).all()


def test_captions_stand_in_the_middle_of_their_share():
    strip = ink(captions(["truth", "", "render"], 660))
    assert strip.shape == (24, 660)
    assert not strip[:, 220:440].any()
    for share in (strip[:, :220], strip[:, 440:]):
        columns = np.flatnonzero(share.any(axis=0))
        assert columns.mean() == pytest.approx(110, abs=3)
    assert not strip[[0, -1]].any()


def test_long_captions_are_made_smaller():
    strip = ink(captions(["a caption far too long for so narrow a column", ""], 440))
    columns = np.flatnonzero(strip.any(axis=0))
    assert 0 < columns.min() < 20
    assert 200 < columns.max() < 220


@pytest.mark.parametrize("name", ["$x$", "a $", "caf\udce9", "tab\t", "$\\frac$"])
def test_any_file_name_can_be_a_caption(name, tmp_path):
    assert ink(captions([name], 200)).any()
    write_plots(tmp_path / "plot.png", [Plot("title", "x", "y", [Curve(name, [1.0], [[2.0]])])])


def test_a_grid_has_titles_above_and_names_at_the_left():
    picture = random_picture()
    grid = picture_grid(["truth", ""], [("000007", [picture, picture]), ("", [picture, None])])
    assert grid.shape == (24 + 440, 24 + 440, 3)
    np.testing.assert_array_equal(
        grid[24:, 24:], tile_pictures([[picture, picture], [picture, None]])
    )
    titles = ink(grid[:24])
    names = ink(grid[24:, :24])
    assert titles[:, 24:244].any()
    assert not titles[:, 244:].any()
    assert names[:220].any()
    assert not names[220:].any()


def test_depth_is_shown_as_its_frame_is():
    """A map pixel's ray goes through the image where map and image coordinates are 0, 4, 8 ...: its
    square lies about it (docs/design.md, section 3). The border is cropped."""
    depth = np.random.default_rng(0).uniform(1, 2, (16, 16)).astype(np.float32)
    depth[5, 6] = np.inf
    shown = depth_pictures(depth, 64, 1.0, 2.0)
    assert shown.shape == (54, 54, 3)
    colors = color_depth(depth, 1.0, 2.0)
    colors[5, 6] = 255
    for row, column in [(0, 0), (14, 18), (15, 19), (20, 5), (53, 53)]:
        np.testing.assert_array_equal(
            shown[row, column], colors[min(15, (row + 7) // 4), min(15, (column + 7) // 4)]
        )


@pytest.mark.parametrize(
    ("count", "shown", "expected"),
    [(1, 3, [0]), (3, 3, [0, 1, 2]), (4, 3, [0, 2, 3]), (60, 3, [10, 30, 50]), (7, 1, [3])],
)
def test_views_shown_are_spread_over_the_path(count, shown, expected):
    assert evenly_spread(count, shown) == expected


def test_floats_are_rounded_to_8_bits():
    np.testing.assert_array_equal(
        to_uint8(np.array([0.0, 0.4 / 255, 0.6 / 255, 1.0])), [0, 0, 1, 255]
    )


BLUE = (31, 119, 180)
ORANGE = (255, 127, 14)


def count_pixels(picture: np.ndarray, color: tuple[int, int, int]) -> int:
    return int((picture[..., :3] == color).all(axis=-1).sum())


def test_a_plot_has_a_line_for_each_curve_and_bars_for_their_spread(tmp_path):
    def draw(*curves, **options) -> np.ndarray:
        write_plots(tmp_path / "plot.png", [Plot("title", "x", "y", list(curves), **options)])
        return imageio.imread(tmp_path / "plot.png")

    point = draw(Curve("one", [3.0], [[20.0]]))
    assert point.shape[:2] == (480, 720)
    assert count_pixels(point, BLUE) > 0
    assert count_pixels(point, ORANGE) == 0
    exact = draw(
        Curve("cube", [1.0, 2.0], [[20.0], [22.0]]), Curve("lego", [1.0, 2.0], [[18.0], [25.0]])
    )
    assert count_pixels(exact, ORANGE) > 100
    spread_out = draw(
        Curve("cube", [1.0, 2.0], [[19.0, 21.0], [22.0]]),
        Curve("lego", [1.0, 2.0], [[18.0], [25.0]]),
    )
    assert count_pixels(spread_out, BLUE) > count_pixels(exact, BLUE) + 10
    curve = Curve("cube", [1.0, 10.0, 100.0], [[1.0], [10.0], [100.0]])
    assert (draw(curve, log_x=True, log_y=True) != draw(curve)).any()


def test_plots_stand_side_by_side(tmp_path):
    write_plots(
        tmp_path / "plots.png",
        3 * [Plot("title", "x", "y", [Curve("one", [1.0, 2.0], [[1.0], [2.0]])])],
    )
    assert imageio.imread(tmp_path / "plots.png").shape[:2] == (480, 3 * 720)
