"""Fisheyes and panoramas: what of their view a scene keeps, and what is refused."""

import json

import numpy as np
import pycolmap
import pytest

from data_util import list_images, load_image, load_intrinsics, write_image
from scenes import colmap, transforms_json
from util import InputError

SIZE = 120
MIDDLE = SIZE / 2
RAY = np.array([0.3, -0.2])  # x and y of a point at depth 1

# Parameters of COLMAP's models, of a fisheye that sees 180 degrees across
FOCAL = MIDDLE / (np.pi / 2)
EQUIDISTANT = {
    "SIMPLE_RADIAL_FISHEYE": [FOCAL, MIDDLE, MIDDLE, 0],
    "RADIAL_FISHEYE": [FOCAL, MIDDLE, MIDDLE, 0, 0],
    "OPENCV_FISHEYE": [FOCAL, FOCAL, MIDDLE, MIDDLE, 0, 0, 0, 0],
    "THIN_PRISM_FISHEYE": [FOCAL, FOCAL, MIDDLE, MIDDLE, 0, 0, 0, 0, 0, 0, 0, 0],
}


def write_model(folder, model, params):
    """Three views of a dot far away, along RAY, by a camera whose image grows with the angle."""
    (folder / "images").mkdir(parents=True)
    (folder / "sparse" / "0").mkdir(parents=True)
    lines = []
    angle = np.arctan(np.hypot(*RAY))
    x, y = MIDDLE + FOCAL * angle * RAY / np.hypot(*RAY)
    row, column = np.mgrid[:SIZE, :SIZE] + 0.5
    dot = np.uint8(250 * np.exp(-((column - x) ** 2 + (row - y) ** 2) / 4))
    for number in range(3):
        write_image(folder / "images" / f"{number}.png", np.dstack([dot] * 3))
        lines.append(f"{number + 1} 1 0 0 0 {number / 1000} 0 4 1 {number}.png\n\n")
    sparse = folder / "sparse" / "0"
    camera = " ".join(map(repr, map(float, params)))
    (sparse / "cameras.txt").write_text(f"1 {model} {SIZE} {SIZE} {camera}\n")
    (sparse / "images.txt").write_text("".join(lines))
    (sparse / "points3D.txt").write_text("")


@pytest.mark.parametrize("model", EQUIDISTANT)
def test_a_fisheye_of_180_degrees_is_cut_where_pixels_would_stretch(tmp_path, model, capsys):
    """The image grows by f per radian; a pinhole's by f / cos^2, twice that at 45 degrees, which
    the corners see."""
    write_model(tmp_path, model, EQUIDISTANT[model])
    colmap.main([str(tmp_path), str(tmp_path / "scene"), "--up", "none", "--test_every", "0"])
    train = tmp_path / "scene" / "train"
    read = load_intrinsics(train / "intrinsics.txt")
    assert read.focal == pytest.approx(np.hypot(MIDDLE, MIDDLE), rel=0.01)
    assert "warning: fisheye images are cut to 71 degrees, 39% of their width" in (
        capsys.readouterr().err
    )
    dot = load_image(list_images(train / "rgb")[0])[..., 0].astype(float)
    row, column = np.mgrid[:SIZE, :SIZE] + 0.5
    seen_at = [(dot * axis).sum() / dot.sum() for axis in (column, row)]
    np.testing.assert_allclose(seen_at, MIDDLE + read.focal * RAY, atol=0.2)


@pytest.mark.parametrize("binary", [False, True])
def test_a_panorama_is_refused(tmp_path, binary):
    write_model(tmp_path / "model", "EQUIRECTANGULAR", [SIZE, SIZE])
    if binary:
        sparse = tmp_path / "model" / "sparse" / "0"
        pycolmap.Reconstruction(sparse).write_binary(sparse)
    with pytest.raises(InputError, match="camera 1 is of model EQUIRECTANGULAR, which cannot"):
        colmap.main([str(tmp_path / "model"), str(tmp_path / "scene")])
    frame = {"file_path": "images/0.png", "transform_matrix": np.eye(4).tolist()}
    content = {"fl_x": 50, "camera_model": "EQUIRECTANGULAR", "frames": [frame]}
    (tmp_path / "model" / "transforms.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match="camera_model EQUIRECTANGULAR is not one that can be"):
        transforms_json.main([str(tmp_path / "model"), str(tmp_path / "scene")])
    assert not (tmp_path / "scene").exists()
