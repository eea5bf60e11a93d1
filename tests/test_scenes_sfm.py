"""Photos to a scene folder: accuracy of the recovered cameras on renders, and input that cannot work."""
import cv2
import numpy as np
import pytest
import trimesh
from PIL import Image

import colmap_wrapper
from data_util import list_images, list_poses, load_image, load_intrinsics, load_pose, write_image
from scenes.capture.photos import ORIENTATION_TAG, place_upright
from scenes.capture.sfm import image_pairs
from scenes.geometry.cameras import look_at
from scenes.synthetic.objects import OBJECTS
from scenes.synthetic.raycast import RayCaster
from scenes.synthetic.surface import Surface
from scenes.synthetic.textures import letter_panel, noise
from util import InputError

SIZE, FOCAL, RADIUS = 320, 400.0, 2.0


def photographs(folder, count, size=SIZE, focal=FOCAL):
    """Renders of the lettered cube on a patterned floor, along an arc; returns the camera-to-world poses."""
    pattern = np.stack([noise((512, 512), seed, finest=0.004) for seed in range(3)], axis=2)
    floor = np.clip(120 + 60 * pattern, 0, 255).astype(np.uint8)
    floor[64:192, 64:192] = cv2.resize(letter_panel("F", (90, 60, 60), 512, 1), (128, 128))
    corners = np.array([[-3, -3, -0.5], [3, -3, -0.5], [3, 3, -0.5], [-3, 3, -0.5]])
    material = trimesh.visual.material.PBRMaterial(baseColorTexture=Image.fromarray(floor))
    visual = trimesh.visual.TextureVisuals(uv=np.array([[0, 0], [1, 0], [1, 1], [0, 1]]), material=material)
    ground = trimesh.Trimesh(corners, [[0, 1, 2], [0, 2, 3]], visual=visual, process=False)
    caster = RayCaster(Surface.from_meshes([*OBJECTS["cube"](), ground]))
    angles = np.linspace(0, np.radians(9) * count, count)
    height = np.full(count, np.sqrt(1 - 0.85 ** 2))
    centers = RADIUS * np.stack([np.cos(angles) * 0.85, np.sin(angles) * 0.85, height], axis=1)
    centers *= 1 + 0.05 * np.sin(5 * angles)[:, None]
    cam2world = look_at(centers, np.zeros(3), np.array([0.0, 0.0, 1.0]))
    matrix = np.array([[focal, 0, size / 2], [0, focal, size / 2], [0, 0, 1]])
    folder.mkdir()
    for index, pose in enumerate(cam2world):
        write_image(folder / f"shot {index}.png", caster.render(pose, matrix, size, 2))
    return cam2world


def align(estimated, true):
    """Distances between centers after the best similarity transform (Umeyama 1991), and its rotation."""
    a, b = estimated - estimated.mean(0), true - true.mean(0)
    left, sizes, right = np.linalg.svd(b.T @ a)
    flip = np.diag([1, 1, np.sign(np.linalg.det(left @ right))])
    scale = (sizes * np.diag(flip)).sum() / (a ** 2).sum()
    rotation = left @ flip @ right
    return np.linalg.norm(scale * a @ rotation.T - b, axis=1), rotation


def test_recovered_cameras_are_within_half_a_percent(tmp_path, capsys):
    true = photographs(tmp_path / "photos", 8)
    colmap_wrapper.main(["--img_dir", str(tmp_path / "photos"), "--trgt_dir", str(tmp_path / "scene"),
                         "--test_every", "0"])
    train = tmp_path / "scene" / "train"
    poses = np.stack([load_pose(path) for path in list_poses(train / "pose")])
    assert len(poses) == len(list_images(train / "rgb")) == len(true)
    errors, scene2truth = align(poses[:, :3, 3], true[:, :3, 3])
    assert errors.max() < 0.005 * RADIUS
    assert scene2truth[2, 2] > np.cos(np.radians(2))  # z is the floor's normal
    intrinsics = load_intrinsics(train / "intrinsics.txt")
    assert intrinsics.focal == pytest.approx(FOCAL, rel=0.02)
    assert (tmp_path / "scene" / "points.ply").exists()
    assert "8 of 8 photos registered" in capsys.readouterr().out
    # the cube, whose side is half the cameras' distance, lies in the grid
    distance = np.median(np.linalg.norm(poses[:, :3, 3] - intrinsics.grid_origin, axis=1))
    assert 0.4 < intrinsics.scale / distance < 1.3


def test_pairs_to_match():
    names = [f"{index:03d}" for index in range(400)]
    assert len(image_pairs(names[:20], "exhaustive")) == 190
    pairs = image_pairs(names, "sequential")
    assert len(set(pairs)) == len(pairs) < 400 * 20
    assert {("000", "001"), ("010", "022"), ("005", "197")} <= set(pairs) and all(a < b for a, b in pairs)


def refused(tmp_path, match):
    before = sorted(tmp_path.iterdir())
    with pytest.raises(InputError, match=match) as error:
        colmap_wrapper.main(["--img_dir", str(tmp_path / "photos"), "--trgt_dir", str(tmp_path / "scene")])
    assert "\n" not in str(error.value)
    assert sorted(tmp_path.iterdir()) == before


def test_photos_that_cannot_work_are_refused(tmp_path):
    refused(tmp_path, "photos: no such folder")
    (tmp_path / "photos").mkdir()
    refused(tmp_path, "holds no photos")
    write_image(tmp_path / "photos" / "a.png", np.zeros((64, 64, 3), np.uint8))
    refused(tmp_path, "a.png: is the only photo")
    write_image(tmp_path / "photos" / "b.png", np.zeros((64, 48, 3), np.uint8))
    refused(tmp_path, "b.png: is 48x64 pixels, a.png is 64x64")
    (tmp_path / "photos" / "b.png").write_text("not a photo")
    refused(tmp_path, "b.png: is not a readable image")


def test_textureless_photos_end_in_advice(tmp_path):
    (tmp_path / "photos").mkdir()
    for index in range(4):
        write_image(tmp_path / "photos" / f"{index}.png", np.full((96, 96, 3), 60 * index, np.uint8))
    refused(tmp_path, "could be related to each other.*texture")


def test_photos_lying_on_their_side_are_turned_upright(tmp_path):
    """By their EXIF tag: COLMAP and the images written must agree on what is up."""
    photo = Image.fromarray(np.zeros((40, 60, 3), np.uint8))
    exif = photo.getexif()
    exif[ORIENTATION_TAG] = 6
    photo.save(tmp_path / "a.jpg", exif=exif)
    photo.save(tmp_path / "b.jpg")
    upright = tmp_path / "upright"
    photos = [tmp_path / "a.jpg", tmp_path / "b.jpg"]
    names = [place_upright(photo, upright, index) for index, photo in enumerate(photos)]
    assert [load_image(upright / name).shape[:2] for name in names] == [(60, 40), (40, 60)]
