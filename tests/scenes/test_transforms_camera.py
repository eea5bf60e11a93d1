"""The cameras of a transforms.json as other programs write it: what a field says shows in the
camera, or a line names the field."""

import contextlib
import io
import json
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from scenes import nerf_synthetic, transforms_json
from scenes.capture.transforms import read_transforms_file
from scenes.capture.transforms_camera import SPECIAL_CASES
from tests.scenes.captures import HEIGHT, WIDTH, imported, warnings, write_capture
from util import InputError


@pytest.mark.parametrize(
    ("fields", "focal_x", "focal_y"),
    [
        ({"fl_x": 50, "fl_y": 55}, 50, 55),
        ({"fl_x": 50}, 50, 50),
        ({"camera_angle_x": 2 * np.arctan(0.5)}, WIDTH, WIDTH),
        ({"camera_angle_x": 2 * np.arctan(0.5), "camera_angle_y": 2 * np.arctan(0.4)}, 54, 80),
        ({"camera_angle_y": 2 * np.arctan(0.5)}, HEIGHT, HEIGHT),
        ({"x_fov": 90, "y_fov": 90}, WIDTH / 2, HEIGHT / 2),
        ({"fx": 50, "fy": 55}, 50, 55),
        ({"K": [[50, 0, 20], [0, 55, 30], [0, 0, 1]]}, 50, 55),
    ],
)
@pytest.mark.parametrize("per_frame", [False, True])
def test_every_way_to_give_a_focal_length(tmp_path, fields, focal_x, focal_y, per_frame, capsys):
    """As instant-ngp, nerfstudio and TensoRF read them: fov in degrees, camera_angle in radians."""
    content = write_capture(tmp_path)
    del content["fl_x"]
    if per_frame:
        content["fl_x"] = 500  # the frame's own come first
        for frame in content["frames"]:
            frame.update(fields)
    else:
        content.update(fields)
    (tmp_path / "transforms.json").write_text(json.dumps(content))
    for frame in read_transforms_file(tmp_path / "transforms.json").frames:
        assert frame.camera.focal_x == pytest.approx(
            500 if per_frame and not has_x(fields) else focal_x
        )
        assert frame.camera.focal_y == pytest.approx(focal_y)
        if "K" in fields:
            assert (frame.camera.center_x, frame.camera.center_y) == (20, 30)
    assert not warnings(capsys)


def has_x(fields):
    return any(name in fields for name in ("fl_x", "fx", "K", "x_fov", "camera_angle_x"))


VALUES = {
    **dict.fromkeys(["fl_x", "fl_y", "fx", "fy"], st.floats(40, 80)),
    **dict.fromkeys(["x_fov", "y_fov"], st.floats(20, 120)),
    **dict.fromkeys(["camera_angle_x", "camera_angle_y"], st.floats(0.2, 2.5)),
    **dict.fromkeys(["cx", "cy"], st.floats(10, 50)),
    **dict.fromkeys(["w", "h"], st.integers(40, 80)),
    **dict.fromkeys(["k1", "k2", "k3", "k4", "k5", "k6", "p1", "p2", "sx1"], st.floats(0.01, 0.1)),
    "K": st.floats(40, 80).map(lambda focal: [[focal, 0, 20], [0, focal + 1, 30], [0, 0, 1]]),
    "camera_model": st.sampled_from(["PINHOLE", "SIMPLE_RADIAL", "OPENCV", "OPENCV_FISHEYE"]),
    "is_fisheye": st.booleans(),
    **dict.fromkeys(["aabb_scale", "scale", "offset"], st.integers(0, 9)),
}
FIELD = st.sampled_from(sorted(VALUES)).flatmap(lambda name: st.tuples(st.just(name), VALUES[name]))


@settings(max_examples=200, derandomize=True, deadline=None)
@given(st.lists(FIELD, max_size=4).map(dict), FIELD, st.booleans())
@example({}, ("sx1", 0.0625), True)
def test_a_field_shows_in_the_camera_or_is_named(fields, field, in_frame):
    """One field more changes a camera, or a line names it, or the file is refused."""
    name, value = field

    def read(*, more):
        content = json.loads(json.dumps(base))
        if more:
            (content["frames"][0] if in_frame else content)[name] = value
        (folder / "transforms.json").write_text(json.dumps(content))
        with contextlib.redirect_stderr(io.StringIO()) as error:
            frames = read_transforms_file(folder / "transforms.json").frames
        line = error.getvalue().partition(": not used: ")[2]
        return frames[0].camera, line.strip().split(", ")

    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory)
        base = {"fl_x": 60.0, **write_capture(folder, 2), **fields}
        base.pop(name, None)
        try:
            before, _ = read(more=False)
            after, named = read(more=True)
        except InputError:
            return
    assert after != before or name in named or says_nothing(name, value, before)


def says_nothing(name, value, camera):
    """Whether the camera would be the same without the field, because that is what it says."""
    agrees = {
        "w": camera.width,
        "h": camera.height,
        "cx": camera.center_x,
        "cy": camera.center_y,
    }
    if name in ("x_fov", "camera_angle_x"):
        radians = np.radians(value) if name == "x_fov" else value
        return abs(camera.width / 2 / np.tan(radians / 2) / camera.focal_x - 1) < 0.011
    if name in ("y_fov", "camera_angle_y"):
        radians = np.radians(value) if name == "y_fov" else value
        return abs(camera.height / 2 / np.tan(radians / 2) / camera.focal_y - 1) < 0.011
    if name in ("fl_x", "fx", "fl_y", "fy"):
        focal = camera.focal_x if name.endswith("x") else camera.focal_y
        return abs(value / focal - 1) < 0.011
    if name == "camera_model":
        return camera.model.endswith(SPECIAL_CASES.get(value, value))  # FULL_OPENCV by its k3
    if name == "is_fisheye":
        return not value or camera.model == "OPENCV_FISHEYE"
    return agrees.get(name) == value


def test_fields_that_are_not_used_are_named(tmp_path, capsys):
    content = write_capture(tmp_path, camera_angle_x=0.3, aabb_scale=16, k3=0, k1=0.0, p1=0.0)
    content["frames"][2]["sharpness"] = 30
    content["frames"][1]["rotation"] = 0.06  # NeRF-synthetic's, which asks for nothing
    imported(tmp_path, content)
    path = tmp_path / "transforms.json"
    assert warnings(capsys) == [f"{path}: not used: aabb_scale, camera_angle_x, sharpness"]


def test_fields_that_agree_are_used(tmp_path, capsys):
    imported(tmp_path, write_capture(tmp_path, camera_angle_x=2 * np.arctan(WIDTH / 120)))
    assert not warnings(capsys)


@pytest.mark.parametrize("lens", ["latlong", "ftheta_p0"])
def test_lenses_without_a_pinhole_are_refused(tmp_path, lens):
    with pytest.raises(InputError, match=f"{lens} of images/0000.png is not a lens"):
        imported(tmp_path, write_capture(tmp_path, **{lens: 1.5}))


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("fl_x", True, "true is no number"),
        ("k1", False, "false is no number"),
        ("is_fisheye", "false", 'is_fisheye is "false", neither true nor false'),
    ],
)
def test_values_of_another_kind_are_named(tmp_path, field, value, words):
    with pytest.raises(InputError, match=words):
        imported(tmp_path, write_capture(tmp_path, **{field: value}))


def test_a_principal_point_that_can_hardly_be_in_pixels_is_named(tmp_path, capsys):
    """Some tools write cx and cy as shares of the image."""
    content = write_capture(tmp_path, cx=0.5, cy=0.5)
    (tmp_path / "transforms.json").write_text(json.dumps(content))
    read_transforms_file(tmp_path / "transforms.json")
    (line,) = warnings(capsys)
    assert "far from the middle" in line and "cx and cy are taken as pixels" in line


def test_no_warning_stands_beside_an_error(tmp_path, capsys):
    with pytest.raises(InputError, match="focal length of 1e-09"):
        imported(tmp_path, write_capture(tmp_path, aabb_scale=1, fl_y=1e-9))
    assert not warnings(capsys)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"w": 0, "h": 0}, "is for images of 0x0 pixels"),
        ({"w": -64}, "is for images of -64x64 pixels"),
        ({"fl_x": 0}, "has a focal length of 0 pixels, in images of 64x64"),
        ({"fl_x": -60}, "has a focal length of -60 pixels"),
        ({"fl_x": 1e300}, r"has a focal length of 1e\+300 pixels"),
        ({"fl_x": float("nan")}, "has a focal length of nan pixels"),
        ({"fl_y": 1e-9}, "has a focal length of 1e-09 pixels"),
        ({"fl_y": 601}, "has focal lengths of 60 and 601 pixels"),
    ],
)
@pytest.mark.parametrize("layout", ["transforms.json", "NeRF-synthetic"])
def test_cameras_that_cannot_be_meant_are_named(tmp_path, layout, fields, said):
    """Square and centered, so that NeRF-synthetic's are taken without COLMAP's library."""
    content = write_capture(tmp_path, size=(64, 64), w=64, h=64) | fields
    name = "transforms.json" if layout == "transforms.json" else "transforms_train.json"
    importer = transforms_json if layout == "transforms.json" else nerf_synthetic
    (tmp_path / name).write_text(json.dumps(content))
    with pytest.raises(InputError, match=f"{name}: the camera of images/0000.png {said}"):
        importer.main([str(tmp_path), str(tmp_path / "scene")])
    assert not (tmp_path / "scene").exists()
