"""Imported scenes stand upright: z is up, whatever way the source's world lay."""

import json

import numpy as np
import pytest
import trimesh
from scipy.spatial.transform import Rotation

from data_util import list_poses, load_intrinsics, load_pose, write_image
from geometry.cameras import (
    look_at,
    opengl2opencv,
    rotation_to_z,
    scene_axes,
    up_direction,
    upright_rotation,
)
from scenes import path, transforms_json

UP = np.array([0.0, 0.0, 1.0])
VIEWS = 12


def handheld(arc=150, elevation=30, roll=3.0):
    """Cameras along an arc (degrees) around the origin that look down at it, held level up to
    `roll` degrees."""
    random = np.random.default_rng(0)
    azimuth = np.radians(np.linspace(0, arc, VIEWS))
    height = np.radians(elevation)
    centers = 2 * np.stack(
        [
            np.cos(azimuth) * np.cos(height),
            np.sin(azimuth) * np.cos(height),
            np.full(VIEWS, np.sin(height)),
        ],
        axis=1,
    )
    cam2world = look_at(centers, np.zeros(3), UP)
    angles = random.normal(0, roll, (VIEWS, 1))
    cam2world[:, :3, :3] = (
        cam2world[:, :3, :3] @ Rotation.from_euler("z", angles, degrees=True).as_matrix()
    )
    return cam2world


def on_its_side(cam2world, views):
    cam2world[views, :3, :3] = cam2world[views, :3, :3] @ np.array(
        [[0.0, -1, 0], [1, 0, 0], [0, 0, 1]]
    )
    return cam2world


def tilted(cam2world, points, seed):
    """The same world in coordinates that lie any way."""
    rotation = Rotation.random(random_state=seed).as_matrix()
    turned = cam2world.copy()
    turned[:, :3] = rotation @ cam2world[:, :3]
    return turned, points @ rotation.T


def import_scene(folder, cam2world, points, *more):
    """Imports views and points of a transforms.json; returns the scene's folder, poses and
    points."""
    folder.mkdir()
    for view in range(VIEWS):
        write_image(folder / f"{view}.png", np.full((16, 16, 3), 20 * view, np.uint8))
    frames = [
        {"file_path": f"{view}.png", "transform_matrix": opengl2opencv(pose).tolist()}
        for view, pose in enumerate(cam2world)
    ]
    trimesh.PointCloud(points).export(folder / "points.ply")
    (folder / "transforms.json").write_text(
        json.dumps({"fl_x": 20, "w": 16, "h": 16, "frames": frames, "ply_file_path": "points.ply"})
    )
    transforms_json.main([str(folder), str(folder / "scene"), "--test_every", "0", *more])
    poses = np.stack([load_pose(file) for file in list_poses(folder / "scene" / "train" / "pose")])
    return (
        folder / "scene",
        poses,
        np.asarray(trimesh.load(folder / "scene" / "points.ply").vertices),
    )


@pytest.fixture
def room():
    """600 points on a column as wide as high, of size 1, then 300 on the floor around it."""
    random = np.random.default_rng(1)
    azimuth = random.uniform(0, 2 * np.pi, 900)
    radius = np.append(np.full(600, 0.5), random.uniform(1.3, 3, 300))
    height = np.append(random.uniform(-0.5, 0.5, 600), np.full(300, -0.5))
    return np.stack([radius * np.cos(azimuth), radius * np.sin(azimuth), height], axis=1)


@pytest.mark.parametrize("seed", range(3))
def test_a_tilted_world_is_turned_upright(tmp_path, room, seed, capsys):
    """The floor is within 5 degrees of horizontal, the grid tight, an orbit level; three photos lie
    on their side."""
    cam2world, points = tilted(on_its_side(handheld(), [2, 5, 6]), room, seed)
    scene, poses, turned = import_scene(tmp_path / "upright", cam2world, points)
    floor = turned[600:] - turned[600:].mean(axis=0)
    normal = np.linalg.svd(floor)[2][2]
    assert abs(normal[2]) > np.cos(np.radians(5))
    assert turned[:600, 2].mean() > turned[600:, 2].mean()  # the column stands on the floor
    rotation = np.array(json.loads((scene / "scene.json").read_text())["rotation"])
    np.testing.assert_allclose(poses[:, :3], rotation @ cam2world[:, :3], atol=1e-12)
    np.testing.assert_allclose(turned, points @ rotation.T, atol=1e-5)
    assert "after turning the world by" in capsys.readouterr().out
    lying, _, _ = import_scene(tmp_path / "lying", cam2world, points, "--up", "none")
    scales = [
        load_intrinsics(folder / "train" / "intrinsics.txt").scale for folder in (scene, lying)
    ]
    assert 1.0 < scales[0] < 1.2 < scales[1]
    np.testing.assert_array_equal(
        scene_axes(poses[1:])[2], UP
    )  # whichever of the views a folder holds
    path.main(["orbit", "--scene", str(scene), "--out", str(tmp_path / "orbit"), "--frames", "20"])
    orbit = np.stack([load_pose(file) for file in list_poses(tmp_path / "orbit" / "pose")])
    np.testing.assert_allclose(orbit[:, 2, 0], 0, atol=1e-9)
    assert np.ptp(orbit[:, 2, 3]) < 1e-9


@pytest.mark.parametrize(
    ("cam2world", "more"),
    [
        (tilted(handheld(), UP[None], 0)[0], ["--up", "none"]),
        (handheld(roll=0), []),
        (tilted(handheld(roll=60), UP[None], 0)[0], []),
    ],
    ids=["asked to", "upright already", "held any way"],
)
def test_a_world_is_left_as_it_is(tmp_path, room, cam2world, more):
    scene, poses, points = import_scene(tmp_path / "source", cam2world, room, *more)
    np.testing.assert_array_equal(poses, cam2world)
    np.testing.assert_array_equal(points.astype(np.float32), room.astype(np.float32))
    assert json.loads((scene / "scene.json").read_text())["rotation"] == np.eye(3).tolist()


def test_up_is_the_mean_up_of_cameras_that_look_one_way():
    """Right axes along one line leave up open."""
    cam2world = tilted(handheld(arc=0, elevation=20, roll=0), UP[None], 0)[0]
    cam2world[:, :3, 3] += np.random.default_rng(0).normal(size=(VIEWS, 3))
    up, tilt = up_direction(cam2world)
    np.testing.assert_allclose(up, -cam2world[0, :3, 1], atol=1e-6)
    assert tilt < 0.1


@pytest.mark.parametrize("direction", [[0.0, 0, 1], [0, 0, -1], [0.6, 0, -0.8], [0, -1, 0]])
def test_the_smallest_turn_to_z(direction):
    rotation = rotation_to_z(np.array(direction, dtype=float))
    np.testing.assert_allclose(rotation @ direction, UP, atol=1e-12)
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-12)
    assert np.trace(rotation) == pytest.approx(1 + 2 * direction[2]) and np.linalg.det(rotation) > 0


def test_up_directions_that_cancel_leave_the_world_as_it_is():
    cam2world = np.repeat(tilted(handheld(roll=0), UP[None], 0)[0], 2, axis=0)
    cam2world[1::2, :3, :2] *= -1  # every second photo upside down
    np.testing.assert_array_equal(upright_rotation(cam2world)[0], np.eye(3))
