"""The automatic grid, the checks before training, and `scenes.check`."""

import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from scipy.optimize import linprog

from data_util import (
    SceneIntrinsics,
    load_image,
    load_pose,
    write_image,
    write_pose,
    write_scene_folder,
)
from dataio import load_scene
from geometry.cameras import focus_point, hemisphere, look_at, opengl2opencv
from geometry.coverage import (
    Grid,
    Pinhole,
    covered_share,
    frustum_meets_grid,
    judge,
    misread_poses,
    seen_share,
    world2pixels,
)
from geometry.grid import choose_grid, choose_near_plane
from scenes import check
from tests.helpers import ENVIRONMENT, ROOT
from util import InputError

UP = np.array([0.0, 0.0, 1.0])
MATRIX = np.array([[60.0, 0, 32], [0, 60, 32], [0, 0, 1]])
CAMERA = Pinhole(MATRIX, 64)
ORIGIN = np.array([5.0, -3.0, 2.0])
INTRINSICS = SceneIntrinsics(60.0, 32.0, 32.0, (5.0, -3.0, 2.0), 1.0, 1.1, 64, 64)
NAMES = [f"{index:06d}" for index in range(40)]


@pytest.fixture
def cam2world():
    """Cameras around ORIGIN at a distance of 2."""
    return look_at(hemisphere(40, 2.0, seed=0) + ORIGIN, ORIGIN, UP)


def test_projection_of_known_points(cam2world):
    """A camera at the origin that looks along z: docs/design.md, section 3."""
    pixels, depth = world2pixels(np.array([[0.5, -0.25, 2.0], [0, 0, -1]]), np.eye(4)[None], MATRIX)
    np.testing.assert_allclose(pixels[0, 0], [32 + 15, 32 - 7.5])
    np.testing.assert_allclose(depth[0], [2, -1])
    points = cam2world[:, :3, 3] + 3 * cam2world[:, :3, 2]  # on each camera's axis
    pixels, depth = world2pixels(points, cam2world, MATRIX)
    np.testing.assert_allclose(pixels[np.arange(40), np.arange(40)], 32)
    np.testing.assert_allclose(np.diag(depth), 3)


def test_corners_differ_along_one_axis_where_their_indices_differ_in_one_bit():
    corners = Grid(ORIGIN, 2.0, 1.0).corners()
    np.testing.assert_allclose(corners.mean(axis=0), ORIGIN)
    for bit, axis in [(4, 0), (2, 1), (1, 2)]:
        np.testing.assert_allclose(corners[bit] - corners[0], 2 * np.eye(3)[axis])


def test_focus_is_where_most_cameras_look(cam2world):
    np.testing.assert_allclose(focus_point(cam2world), ORIGIN, atol=1e-4)
    strays = look_at(hemisphere(6, 2.0, seed=1) + ORIGIN, ORIGIN + [4.0, 4, 0], UP)
    np.testing.assert_allclose(focus_point(np.concatenate([cam2world, strays])), ORIGIN, atol=0.15)


def test_grid_holds_the_object_not_the_room(cam2world):
    """Points on an object of size 1 and five times as many on far walls: the grid belongs to the
    object."""
    random = np.random.default_rng(0)
    thing = random.uniform(-0.5, 0.5, (400, 3)) + ORIGIN + [0.1, 0, 0]
    walls = random.uniform(-6, 6, (2000, 3))
    walls[np.arange(2000), random.integers(0, 3, 2000)] = 6
    grid, _ = choose_grid(cam2world, CAMERA, np.concatenate([thing, walls + ORIGIN]))
    np.testing.assert_allclose(grid.origin, ORIGIN + [0.1, 0, 0], atol=0.1)
    assert 0.9 < grid.scale < 1.4
    assert (covered_share(cam2world, CAMERA, grid) == 1).all()


def test_grid_without_points_is_what_the_cameras_see(cam2world):
    grid, _ = choose_grid(cam2world, CAMERA, np.zeros((0, 3)))
    np.testing.assert_allclose(grid.origin, ORIGIN, atol=1e-3)
    assert grid.scale == pytest.approx(0.9 * 2 * 64 / 60, rel=1e-3)
    assert covered_share(cam2world, CAMERA, grid).min() > 0.95


def test_near_plane_covers_as_much_as_any_could():
    """Cameras at distances from 1.5 to 4: no near plane covers all; none covers more than the
    chosen one."""
    centers = hemisphere(30, 1.0, seed=0) * np.linspace(1.5, 4, 30)[:, None]
    cam2world = look_at(centers, np.zeros(3), UP)
    near, covered = choose_near_plane(cam2world, CAMERA, np.zeros(3), 1.0)
    assert 0.3 < covered < 1
    for other in np.linspace(0.05, 4, 60):
        share = covered_share(cam2world, CAMERA, Grid(np.zeros(3), 1.0, other))
        weights = seen_share(cam2world, CAMERA, Grid(np.zeros(3), 1.0, near))
        assert (share * weights).sum() / weights.sum() <= covered + 1e-3


@pytest.mark.parametrize(
    ("misread", "named"),
    [
        (opengl2opencv, "OpenGL"),
        (np.linalg.inv, "world-to-camera: invert"),
        (lambda poses: np.linalg.inv(opengl2opencv(poses)), "world-to-camera with OpenGL"),
    ],
)
def test_misread_poses_are_called_out_with_the_fix(cam2world, misread, named):
    assert misread_poses(cam2world, ORIGIN) is None
    assert named in misread_poses(misread(cam2world), ORIGIN)
    assert judge(misread(cam2world), CAMERA, Grid(ORIGIN, 1.1, 1.0), NAMES).errors


def test_impossible_scenes_are_errors_and_poor_ones_warnings(cam2world):
    fine = judge(cam2world, CAMERA, Grid(ORIGIN, 1.1, 1.0), NAMES)
    assert not fine.errors and not fine.warnings
    assert (
        "no view sees the grid"
        in judge(cam2world, CAMERA, Grid(ORIGIN + 100, 1.1, 1.0), NAMES).errors[0]
    )
    assert "near plane" in judge(cam2world, CAMERA, Grid(ORIGIN, 1.1, 9.0), NAMES).errors[0]
    same_place = judge(cam2world[[0] * 40], CAMERA, Grid(ORIGIN, 1.1, 1.0), NAMES)
    assert "same place" in same_place.errors[0]
    late = judge(cam2world, CAMERA, Grid(ORIGIN, 1.1, 2.0), NAMES)
    assert not late.errors and "000000" in late.warnings[0]
    cam2world[7] = cam2world[7] @ np.diag([-1.0, 1, -1, 1])
    turned = judge(cam2world, CAMERA, Grid(ORIGIN, 1.1, 1.0), NAMES)
    assert not turned.errors and "000007" in turned.warnings[0]


def half_spaces_intersect(cam2world, camera, grid):
    """Whether a point satisfies the inequalities of a frustum and of the grid's cube, by linear
    programming."""
    rotation = cam2world[:3, :3]
    center = cam2world[:3, 3]
    (focal_x, _, cx), (_, focal_y, cy), _ = camera.matrix
    sidelength = camera.sidelength
    half = grid.scale / 2
    normals = np.array(
        [
            [-focal_x, 0, -cx],
            [focal_x, 0, cx - sidelength],
            [0, -focal_y, -cy],
            [0, focal_y, cy - sidelength],
            [0, 0, -1],
            [0, 0, 1],
        ]
    )  # in camera axes
    rows = normals @ rotation.T
    limits = np.array([0, 0, 0, 0, -grid.near_plane, grid.far_plane]) + rows @ center
    bounds = np.stack([grid.origin - half, grid.origin + half], 1)
    return linprog(np.zeros(3), rows, limits, bounds=bounds).success


def test_blind_views_are_those_whose_frustum_misses_the_grid(cam2world):
    random = np.random.default_rng(0)
    rotation = np.linalg.qr(random.standard_normal((200, 3, 3)))[0]
    poses = np.tile(np.eye(4), (200, 1, 1))
    poses[:, :3, :3] = rotation * np.linalg.det(rotation)[:, None, None]
    poses[:, :3, 3] = (
        ORIGIN
        - random.uniform(0.2, 1.4, (200, 1)) * poses[:, :3, 2]
        + random.normal(0, 0.3, (200, 3))
    )
    grid = Grid(ORIGIN, 0.2, 0.5)
    truth = [half_spaces_intersect(pose, CAMERA, grid) for pose in poses]
    assert 40 < sum(truth) < 160
    assert frustum_meets_grid(poses, CAMERA, grid).tolist() == truth
    assert judge(cam2world, CAMERA, Grid(ORIGIN, 1.1, 1.0), NAMES).blind == []
    cam2world[7] = cam2world[7] @ np.diag([-1.0, 1, -1, 1])
    assert judge(cam2world, CAMERA, Grid(ORIGIN, 1.1, 1.0), NAMES).blind == [7]


@pytest.fixture
def folder(tmp_path, cam2world):
    images = [np.full((64, 64, 3), 255, np.uint8) for _ in cam2world]
    write_scene_folder(tmp_path / "scene" / "train", INTRINSICS, cam2world, images)
    return tmp_path / "scene"


def test_check_reports_and_draws(folder, capsys):
    check.main([str(folder)])
    report = capsys.readouterr().out
    assert "40 poses, 40 of them valid" in report and "64x64" in report and "error" not in report
    picture = load_image(folder / "check.png")
    red = (picture == [214, 40, 40]).all(axis=2)
    assert red[:720].any() and red[720:].any()  # the grid from the sides, and over the photos


@pytest.mark.skipif(sys.platform != "linux", reason="file systems elsewhere take only text")
def test_check_draws_photos_whose_names_are_no_text(folder):
    for part, suffix in (("rgb", b".png"), ("pose", b".txt")):
        first = min((folder / "train" / part).iterdir())
        first.rename(first.with_name(os.fsdecode(b"0\xff\n$" + suffix)))
    check.main([str(folder)])
    assert (folder / "check.png").is_file()


def test_check_takes_the_near_plane_that_training_is_given(folder, capsys):
    path = folder / "train" / "intrinsics.txt"
    path.write_text(path.read_text().replace("\n1.0\n", "\n0\n"))
    check.main([str(folder)])
    assert "depth planes from 0.866 to 3.066" in capsys.readouterr().out
    with pytest.raises(SystemExit) as exit_info:
        check.main([str(folder), "--near_plane", "9"])
    assert exit_info.value.code == 1
    assert "they span 9 to 11.2 from the camera; the near plane is wrong" in capsys.readouterr().out


@pytest.mark.parametrize("seeing", [0, 1, 2])
def test_check_refuses_what_training_refuses(folder, capsys, seeing):
    """Of the views, so many see the grid; test views may be few, and so may views without
    images."""
    train = folder / "train"
    test = folder / "test"
    shutil.copytree(train, test)
    for path in sorted((test / "pose").iterdir())[1:]:
        path.unlink()
        (test / "rgb" / f"{path.stem}.png").unlink()
    for path in sorted((train / "pose").iterdir())[seeing:]:
        write_pose(path, load_pose(path) @ np.diag([-1.0, 1, -1, 1]))
    words = f"train: has {seeing} views that see the grid, training needs two"
    assert any(words in error for error in check.examine(train, to_train_on=True).errors) == (
        seeing < 2
    )
    if seeing == 1:
        with pytest.raises(SystemExit) as exit_info:
            check.main([str(folder)])
        assert exit_info.value.code == 1
    report = capsys.readouterr().out
    assert (words in report) == (seeing == 1) and "test: has 1 view" not in report
    shutil.rmtree(train / "rgb")
    assert not any(words in error for error in check.examine(train, to_train_on=True).errors)


def test_check_names_everything_that_is_wrong(folder, capsys):
    (folder / "train" / "pose" / "000003.txt").write_text("1 2 3")
    (folder / "train" / "rgb" / "000039.png").unlink()
    write_image(folder / "train" / "rgb" / "000004.png", np.zeros((32, 64, 3), np.uint8))
    (folder / "train" / "rgb" / "000005.png").write_bytes(b"not an image")
    with pytest.raises(SystemExit) as exit_info:
        check.main([str(folder / "train")])
    assert exit_info.value.code == 1
    report = capsys.readouterr().out
    for culprit in (
        "000003.txt: holds 3 numbers",
        "39 images, pose holds 40 poses",
        "differ in size",
        "000005.png: is not",
    ):
        assert culprit in report


@pytest.mark.parametrize(
    ("height", "width", "fits"),
    [(32, 32, True), (128, 128, True), (200, 201, True), (64, 65, False), (32, 64, False)],
)
def test_images_of_another_size_are_checked_as_training_takes_them(folder, height, width, fits):
    """Another size is a fact, another aspect ratio an error."""
    for path in (folder / "train" / "rgb").iterdir():
        write_image(path, np.full((height, width, 3), 255, np.uint8))
    findings = check.examine(folder / "train")
    assert any(
        f"40 images of {width}x{height} pixels; intrinsics for 64x64" in fact
        for fact in findings.facts
    )
    if fits:
        assert findings.errors == []
        assert len(load_scene(folder / "train", 64)) == 40
    else:
        (error,) = findings.errors
        assert (
            f"000000.png: is {width}x{height} pixels, whose aspect ratio differs from the 64x64 of"
            in error
        )
        with pytest.raises(InputError, match="whose aspect ratio differs"):
            load_scene(folder / "train", 64)


@pytest.mark.skipif(not shutil.which("setpriv"), reason="needs setpriv")
@pytest.mark.parametrize("code", [0, 1])
def test_a_read_only_scene_is_checked_without_a_picture(folder, code):
    if code:
        (folder / "train" / "pose" / "000003.txt").write_text("1 2 3")
    folder.chmod(0o500)
    without_roots_power = (
        [] if os.geteuid() else ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]
    )
    ended = subprocess.run(
        [*without_roots_power, sys.executable, "-m", "scenes.check", folder],
        cwd=ROOT,
        text=True,
        env=ENVIRONMENT,
        capture_output=True,
    )
    folder.chmod(0o700)
    assert ended.returncode == code
    assert f"40 poses, {40 - code} of them valid" in ended.stdout
    assert (
        ended.stderr == f"warning: {folder / 'check.png'}: cannot be written (Permission denied)\n"
    )
    assert not list(folder.glob("*check.png*"))


def test_check_needs_a_scene(tmp_path):
    with pytest.raises(InputError, match="holds no scene"):
        check.main([str(tmp_path)])
