"""The pictures that a browser gets, without a browser."""

import numpy as np

from data_util import BORDER, color_depth
from evaluation.picture_grid import to_uint8
from evaluation.render import Frame
from tests.viewer.client import connected
from viewer import picture_choices
from viewer.camera import Canvas, edge_color


def test_around_the_picture_is_the_scenes_colour(serve, viewed):
    first = viewed.model.render_view(viewed.scene.views.cam2world[viewed.scene.first])
    expected = edge_color(to_uint8(first.image)).astype(int)
    with connected(serve().server.get_port()) as client:
        client.look(width=128)
        client.wait_for(lambda client: client.picture is not None and client.picture.shape[1] > 64)
        sides = np.concatenate([client.picture[:, :24], client.picture[:, -24:]], axis=1)
        assert np.abs(sides - expected).max() <= 4  # it is a JPEG


def test_colours_of_depth_span_what_is_in_view(viewed):
    """Not the depth planes, of which the object takes few, nor the border, which training never
    sees."""
    lens = viewed.scene.lens
    depth = np.full((64, 64), 9.0, np.float32)
    edge = BORDER - 1  # a pixel of the image lies between two of the map
    depth[edge:-edge, edge:-edge] = np.linspace(3, 4, 64 - 2 * edge)
    image = np.zeros((64, 64, 3), np.float32)
    shot = picture_choices.Shot(Frame(0, image, depth), np.full(3, 255, np.uint8))
    near, far = shot.depth_range(lens)
    assert 3 <= near < 3.1
    assert 3.9 < far <= 4
    drawn = picture_choices.draw(picture_choices.DEPTH, shot, lens, Canvas(54, 54))
    for column, end in ((0, 0.0), (-1, 1.0)):
        np.testing.assert_array_equal(
            drawn[27, column], color_depth(np.full((1, 1), end), 0.0, 1.0)[0, 0]
        )


def test_the_range_of_depth_in_view_is_said(serve):
    with connected(serve().server.get_port()) as client:
        client.click("Picture", value=picture_choices.DEPTH)
        client.wait_for(lambda client: "(yellow) to" in client.text())


def test_the_box_shows_when_it_is_wanted(serve):
    with connected(serve().server.get_port()) as client:
        client.wait_for(lambda client: client.control("Grid box"))
        assert not any("/scene/box" in text for text in client.texts)
        client.click("Grid box", value=True)
        client.wait_for(lambda client: any("/scene/box" in text for text in client.texts))
