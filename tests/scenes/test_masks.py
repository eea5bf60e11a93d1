"""Masks of the photographed object: which photo each is for, what they may look like, and what is
made of them."""

import numpy as np
import pycolmap
import pytest
from PIL import Image

from data_util import load_image, square_resize, write_image
from geometry.cameras import look_at
from scenes.capture.masks import Silhouette, cut_out, find_masks, import_mask, object_points
from util import InputError


@pytest.mark.parametrize(
    ("photos", "masks", "said"),
    [
        (["1.jpg"], ["1.png", "1.jpg.png"], r"1.jpg.png: and 1.png are masks for the same photo"),
        (
            ["1.jpg", "1.png"],
            ["1.png"],
            r"1.png: is the mask of 1.jpg and of 1.png; name it 1.png.png if",
        ),
        (["1.jpg", "1.png"], ["1.jpg.png", "1.png.png"], None),
        (["1.jpg"], ["1.png", "2.png", "2.jpg.png"], None),
    ],
)
def test_each_photo_has_one_mask_of_its_own(tmp_path, photos, masks, said):
    for mask in masks:
        Image.new("L", (6, 4), 255).save(tmp_path / mask)
    paths = [tmp_path / photo for photo in photos]
    if said is None:
        assert [mask.name for mask in find_masks(tmp_path, paths)] == masks[: len(photos)]
    else:
        with pytest.raises(InputError, match=said):
            find_masks(tmp_path, paths)


@pytest.mark.parametrize("mode", ["L", "1", "RGB", "I;16", "zero and one", "cut-out"])
def test_masks_of_any_tool_are_read(tmp_path, mode):
    """Gray, black and white, color, 16 bit, levels 0 and 1, or the object on a transparent
    background."""
    object_ = np.zeros((40, 60), bool)
    object_[10:30, 20:50] = True
    levels = {"I;16": object_ * np.uint16(65535), "zero and one": object_ * np.uint8(1)}
    mask = Image.fromarray(levels.get(mode, object_ * np.uint8(255)))
    if mode == "cut-out":
        mask = Image.merge("RGBA", [Image.new("L", (60, 40), 30)] * 3 + [mask])
    elif mode not in levels:
        mask = mask.convert(mode)
    mask.save(tmp_path / "photo.jpg.png")
    assert find_masks(tmp_path, [tmp_path / "photo.jpg"]) == [tmp_path / "photo.jpg.png"]
    import_mask(
        tmp_path / "photo.jpg.png",
        tmp_path / "photo.jpg",
        (60, 40),
        (30, 20),
        tmp_path / "placed" / "0.png",
    )
    np.testing.assert_array_equal(
        load_image(tmp_path / "placed" / "0.png")[..., 0], object_[::2, ::2] * 255
    )


def test_training_sees_the_background_around_the_object(tmp_path):
    """A red object before green: after shrinking, edge pixels hold no green, but red and the chosen
    background."""
    image = np.zeros((30, 30, 3), np.uint8)
    mask = np.zeros((30, 30), np.uint8)
    image[..., 1] = 200
    image[4:22, 4:22] = [200, 0, 0]
    mask[4:22, 4:22] = 255
    result = cut_out(image, mask, lambda pixels: square_resize(pixels, 10))
    share = mask.reshape(10, 3, 10, 3).mean(axis=(1, 3)) / 255
    np.testing.assert_allclose(result[..., 3] / 255, share, atol=0.01)
    write_image(tmp_path / "0.png", result)
    for background, level in (("white", 255), ("black", 0)):
        seen = load_image(tmp_path / "0.png", background)
        expected = share[..., None] * [200, 0, 0] + (1 - share[..., None]) * level
        np.testing.assert_allclose(seen, expected, atol=3)


def test_points_of_the_object_are_those_in_nearly_all_masks():
    """The center of the world is in all masks; a point behind it only in those of one side."""
    angles = np.radians(np.arange(0, 180, 20))
    centers = np.stack([np.cos(angles), np.sin(angles), 0.2 + 0 * angles], axis=1) * 3
    cam2world = look_at(centers, np.zeros(3), np.array([0.0, 0, 1]))
    camera = pycolmap.Camera(model="SIMPLE_PINHOLE", width=60, height=40, params=[50, 30, 20])
    mask = np.zeros((40, 60), np.uint8)
    mask[14:26, 24:36] = 255
    silhouettes = [Silhouette(mask, pose, camera) for pose in cam2world]
    points = np.array([[0, 0, 0], [0, -2, 0], [0, 0, 0.2], [0, 0, -100], [1e6, 0, 0]])
    found = object_points(points, silhouettes)
    assert found.tolist() == [True, False, True, False, False]


def test_a_mask_that_shrinking_makes_black_is_refused(tmp_path):
    """At once, by its own name: what is kept of it is read after structure from motion."""
    pixels = np.zeros((40, 60), np.uint8)
    pixels[20, 30] = 255
    Image.fromarray(pixels).save(tmp_path / "a.png")
    kept = tmp_path / "placed" / "0.png"
    with pytest.raises(InputError, match="a.png: shrunk to 30x20 pixels, has no white pixel"):
        import_mask(tmp_path / "a.png", tmp_path / "a.jpg", (60, 40), (30, 20), kept)
    import_mask(tmp_path / "a.png", tmp_path / "a.jpg", (60, 40), (60, 40), kept)
    assert load_image(kept).max() == 255
