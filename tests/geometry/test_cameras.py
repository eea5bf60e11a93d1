"""Camera poses of the paper's protocol, paths and noise."""

from pathlib import Path

import numpy as np
import pytest

from dataio import load_scene
from geometry.cameras import hemisphere, look_at, near_plane, opengl2opencv, spiral
from geometry.coverage import Grid, Pinhole, covered_share, world2pixels
from geometry.paths import around, interpolate
from scenes.noise import main as add_noise
from scenes.noise import rotate_randomly
from scenes.path import main as make_path
from util import InputError

UP = np.array([0.0, 0.0, 1.0])
MATRIX = np.array([[60.0, 0, 32], [0, 60, 32], [0, 0, 1]])


def assert_rigid(cam2world):
    rotation = cam2world[:, :3, :3]
    np.testing.assert_allclose(rotation @ rotation.transpose(0, 2, 1) - np.eye(3), 0, atol=1e-12)
    np.testing.assert_allclose(np.linalg.det(rotation), 1)


def test_look_at_has_the_target_in_the_middle_and_up_upwards():
    cam2world = look_at(np.array([[3.0, 0, 0], [0, -2, 1]]), np.zeros(3), UP)
    assert_rigid(cam2world)
    pixels, depth = world2pixels(np.array([[0, 0, 0], [0, 0, 0.1]]), cam2world, MATRIX)
    np.testing.assert_allclose(pixels[:, 0], 32, atol=1e-9)
    np.testing.assert_allclose(depth[:, 0], [3, np.sqrt(5)])
    assert (pixels[:, 1, 1] < 32).all()  # image rows count downwards
    pixels, _ = world2pixels(np.array([[0, 0.1, 0]]), cam2world[:1], MATRIX)
    assert pixels[0, 0, 0] > 32  # from +x, the y axis points right


def test_hemisphere_is_uniform_and_seeded():
    """Paper, section 4: training poses uniformly distributed on the northern hemisphere."""
    centers = hemisphere(479, 2.0, seed=0)
    np.testing.assert_allclose(np.linalg.norm(centers, axis=1), 2)
    assert (centers[:, 2] > 0).all()
    # Archimedes: equal slabs of height hold equal area; and so do the quadrants
    np.testing.assert_allclose(
        np.histogram(centers[:, 2], bins=4, range=(0, 2))[0], 479 / 4, atol=2
    )
    quadrants = np.bincount((centers[:, 0] > 0) * 2 + (centers[:, 1] > 0))
    np.testing.assert_allclose(quadrants, 479 / 4, atol=6)
    np.testing.assert_array_equal(centers, hemisphere(479, 2.0, seed=0))
    assert not np.allclose(centers, hemisphere(479, 2.0, seed=1))


def test_spiral_climbs_evenly_from_equator_to_pole():
    """Paper, section 4: an Archimedean spiral, the polar angle linear in the azimuth."""
    centers = spiral(1000, 1.5)
    np.testing.assert_allclose(np.linalg.norm(centers, axis=1), 1.5)
    polar = np.arccos(centers[:, 2] / 1.5)
    azimuth = np.unwrap(np.arctan2(centers[:, 1], centers[:, 0]))
    np.testing.assert_allclose(np.diff(polar), np.diff(polar)[0], rtol=1e-6)
    np.testing.assert_allclose(np.diff(azimuth), np.diff(azimuth)[0], rtol=1e-6)
    assert polar[0] == pytest.approx(np.pi / 2) and 0 < polar[-1] < 0.01
    assert np.ptp(azimuth) == pytest.approx(20, rel=2e-3)  # radians, as in the original's test sets


def test_opengl2opencv_is_its_own_inverse_and_turns_the_view_around():
    pose = look_at(np.array([[1.0, 2, 3]]), np.zeros(3), UP)
    np.testing.assert_array_equal(opengl2opencv(opengl2opencv(pose)), pose)
    np.testing.assert_allclose(opengl2opencv(pose)[0, :3, 2], -pose[0, :3, 2])


def test_depth_planes_from_the_near_plane_cover_the_grid_from_every_camera():
    centers = hemisphere(50, 2.0, seed=0)
    near = near_plane(2.0, 1.1)
    assert near == pytest.approx(2 - np.sqrt(3) / 2 * 1.1)
    covered = covered_share(
        look_at(centers, np.zeros(3), UP), Pinhole(MATRIX, 64), Grid(np.zeros(3), 1.1, near)
    )
    np.testing.assert_array_equal(covered, 1)


def test_interpolation_joins_the_two_poses_with_rotations():
    """Paper, section 4: linear interpolation of two training poses; re-orthonormalised here."""
    first, second = look_at(hemisphere(2, 2.0, seed=3), np.zeros(3), UP)
    path = interpolate(first, second, 11)
    assert_rigid(path)
    np.testing.assert_allclose(path[[0, -1]], [first, second], atol=1e-12)
    np.testing.assert_allclose(path[5, :3, 3], (first[:3, 3] + second[:3, 3]) / 2)
    turned = second @ np.diag([-1.0, 1, -1, 1])
    with pytest.raises(ValueError, match="opposite"):
        interpolate(second, turned, 11)


@pytest.mark.parametrize("climb", [False, True])
def test_paths_stay_where_the_training_cameras_are(climb):
    """All around if the cameras surround the object, else on their side."""
    origin = np.array([1.0, 2, 3])
    centers = hemisphere(200, 2.0, seed=0)
    everywhere = around(look_at(centers + origin, origin, UP), origin, 100, climb)
    assert_rigid(everywhere)
    np.testing.assert_allclose(np.linalg.norm(everywhere[:, :3, 3] - origin, axis=1), 2)
    azimuth = np.arctan2(*(everywhere[:, :3, 3] - origin)[:, 1::-1].T)
    assert np.ptp(azimuth) > np.pi
    front = centers[centers[:, 0] > 1]
    one_sided = around(look_at(front + origin, origin, UP), origin, 100, climb)
    assert ((one_sided[:, :3, 3] - origin)[:, 0] > 0.2).all()
    stray = 2 * np.array([[-0.8, 0.6, 0]])  # one camera alone elsewhere, and close-ups
    poses = look_at(np.concatenate([front, stray, front[::3] / 2]) + origin, origin, UP)
    most = around(poses, origin, 100, climb)[:, :3, 3] - origin
    assert (most[:, 0] > 0.2).all()
    np.testing.assert_allclose(np.linalg.norm(most, axis=1), 2)


@pytest.mark.parametrize("climb", [False, True])
def test_a_camera_at_the_grids_center_leads_no_path_astray(climb):
    origin = np.array([1.0, 2, 3])
    poses = look_at(hemisphere(9, 2.0, seed=0) + origin, origin, UP)
    at_center = poses[:1].copy()
    at_center[:, :3, 3] = origin
    path = around(np.concatenate([at_center, poses]), origin, 20, climb)
    assert_rigid(path)
    np.testing.assert_allclose(np.linalg.norm(path[:, :3, 3] - origin, axis=1), 2)
    with pytest.raises(InputError, match="--scene: all its cameras stand at the grid's center"):
        around(at_center, origin, 20, climb)


def test_noise_turns_cameras_in_place_by_the_angle_asked_for():
    clean = look_at(hemisphere(2000, 2.0, seed=0), np.zeros(3), UP)
    noisy = rotate_randomly(clean, 2.0, seed=0)
    assert_rigid(noisy)
    np.testing.assert_array_equal(noisy[:, :3, 3], clean[:, :3, 3])
    relative = clean[:, :3, :3].transpose(0, 2, 1) @ noisy[:, :3, :3]
    angles = np.degrees(np.arccos(np.clip((np.trace(relative, axis1=1, axis2=2) - 1) / 2, -1, 1)))
    assert np.sqrt((angles**2).mean()) == pytest.approx(2.0, rel=0.05)
    np.testing.assert_array_equal(noisy, rotate_randomly(clean, 2.0, seed=0))


def test_a_read_only_scene_gets_a_copy_with_noise_that_can_be_written(scene, tmp_path):
    (scene / "test" / "points.ply").symlink_to("intrinsics.txt")
    names = {path.relative_to(scene) for path in scene.rglob("*")}
    for path in (scene, *scene.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    add_noise(["--scene", str(scene), "--out", str(tmp_path / "noisy"), "--degrees", "2"])
    for path in (scene, *scene.rglob("*")):
        path.chmod(0o755)  # so that pytest can remove it
    copied = [tmp_path / "noisy", *(tmp_path / "noisy").rglob("*")]
    assert all(path.stat().st_mode & 0o200 and not path.is_symlink() for path in copied)
    assert {path.relative_to(tmp_path / "noisy") for path in copied[1:]} == names | {
        Path("noise.json")
    }
    clean, noisy = (load_scene(root / "train", 64) for root in (scene, tmp_path / "noisy"))
    assert (clean.images == noisy.images).all() and not np.allclose(
        clean.cam2world, noisy.cam2world
    )
    assert (tmp_path / "noisy" / "test" / "points.ply").read_text() == (
        scene / "test" / "intrinsics.txt"
    ).read_text()


def test_noise_is_not_written_into_the_scene_that_is_copied(scene):
    for root in (scene, scene / ".." / "scene"):
        with pytest.raises(InputError, match="is inside the scene"):
            add_noise(["--scene", str(root), "--out", str(scene / "noisy"), "--degrees", "2"])


def test_a_walk_follows_the_training_cameras(scene, tmp_path):
    make_path(["walk", "--scene", str(scene), "--out", str(tmp_path / "walk"), "--frames", "50"])
    walk, training = (
        load_scene(folder, 64, with_images=False).cam2world
        for folder in (tmp_path / "walk", scene / "train")
    )
    assert len(walk) == 50
    np.testing.assert_allclose(walk[[0, -1]], training[[0, -1]], atol=1e-6)
    steps = np.linalg.norm(np.diff(walk[:, :3, 3], axis=0), axis=1)
    assert steps.max() < 0.5 * np.linalg.norm(np.diff(training[:, :3, 3], axis=0), axis=1).mean()
    to_walk = np.linalg.norm(training[:, None, :3, 3] - walk[None, :, :3, 3], axis=2).min(axis=1)
    assert to_walk.max() < steps.max()  # it passes by each of the 8 cameras
