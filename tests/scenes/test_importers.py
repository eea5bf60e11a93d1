"""The importers: round trips of a rendered scene, splits, and wrong input."""

import json

import cv2
import numpy as np
import pycolmap
import pytest
import trimesh
from scipy.spatial.transform import Rotation

from data_util import (
    list_images,
    list_poses,
    load_image,
    load_intrinsics,
    load_pose,
    load_rgba,
    write_image,
)
from geometry.cameras import opengl2opencv
from scenes import colmap, nerf_synthetic, render, transforms_json
from scenes.capture.options import split_views
from util import InputError

SIZE = 48


@pytest.fixture(scope="module")
def rendered(tmp_path_factory):
    """A rendered training folder of 9 views, its poses and focal length."""
    out = tmp_path_factory.mktemp("rendered") / "cube"
    render.main(
        ["--out", str(out), "--sidelength", str(SIZE), "--train_views", "9", "--test_views", "1"]
    )
    poses = np.stack([load_pose(path) for path in list_poses(out / "train" / "pose")])
    return out / "train", poses, load_intrinsics(out / "train" / "intrinsics.txt").focal


def export_colmap(folder, model, poses, focal):
    """The rendered views as a COLMAP text model with two points; its images are not in the order of
    their names."""
    model.mkdir(parents=True)
    (model / "cameras.txt").write_text(
        f"1 SIMPLE_PINHOLE {SIZE} {SIZE} {focal!r} {SIZE / 2} {SIZE / 2}\n"
    )
    lines = []
    for number, (path, pose) in enumerate(
        zip(list_images(folder / "rgb"), poses, strict=True), start=1
    ):
        world2cam = np.linalg.inv(pose)
        x, y, z, w = Rotation.from_matrix(world2cam[:3, :3]).as_quat()
        numbers = " ".join(repr(float(value)) for value in (w, x, y, z, *world2cam[:3, 3]))
        lines.append(f"{number} {numbers} 1 {path.name}\n1.0 1.0 1 2.0 2.0 2\n")
    (model / "images.txt").write_text("".join(lines[::-1]))
    (model / "points3D.txt").write_text(
        "1 0.1 0.2 0.3 255 0 0 0.5 1 0 2 0\n2 0 0 0 0 255 0 0.5 1 1 2 1\n"
    )


def export_transforms(folder, path, poses, focal, **more):
    (path.parent / "rgb").symlink_to(folder / "rgb")
    frames = [
        {"file_path": f"rgb/{image.name}", "transform_matrix": opengl2opencv(pose).tolist()}
        for image, pose in zip(list_images(folder / "rgb"), poses, strict=True)
    ]
    path.write_text(
        json.dumps(
            {
                "fl_x": focal,
                "fl_y": focal,
                "cx": SIZE / 2,
                "cy": SIZE / 2,
                "w": SIZE,
                "h": SIZE,
                "frames": frames,
                **more,
            }
        )
    )


@pytest.mark.parametrize("source", ["colmap text", "colmap binary", "transforms.json"])
def test_round_trip_gives_the_same_poses_and_images(tmp_path, rendered, source):
    folder, poses, focal = rendered
    target = tmp_path / "scene"
    if source == "transforms.json":
        export_transforms(folder, tmp_path / "transforms.json", poses, focal)
        transforms_json.main([str(tmp_path), str(target), "--test_every", "4"])
    else:
        export_colmap(folder, tmp_path / "sparse" / "0", poses, focal)
        if source == "colmap binary":
            (tmp_path / "binary").mkdir()
            pycolmap.Reconstruction(tmp_path / "sparse" / "0").write_binary(tmp_path / "binary")
        model = tmp_path / "binary" if source == "colmap binary" else tmp_path
        colmap.main([str(model), str(target), "--images", str(folder / "rgb"), "--test_every", "4"])
    splits = {"train": [1, 2, 3, 5, 6, 7], "test": [0, 4, 8]}
    for split, chosen in splits.items():
        imported = np.stack([load_pose(path) for path in list_poses(target / split / "pose")])
        np.testing.assert_allclose(imported, poses[chosen], atol=1e-5)
        for path, index in zip(list_images(target / split / "rgb"), chosen, strict=True):
            np.testing.assert_array_equal(
                load_image(path), load_image(list_images(folder / "rgb")[index])
            )
        intrinsics = load_intrinsics(target / split / "intrinsics.txt")
        assert intrinsics.focal == pytest.approx(focal, rel=1e-9)
        assert (intrinsics.cx, intrinsics.cy, intrinsics.height) == (SIZE / 2, SIZE / 2, SIZE)
        # few points: the grid comes from the cameras, which look at the origin from a distance of 2
        np.testing.assert_allclose(intrinsics.grid_origin, 0, atol=1e-6)
        assert 1.0 < intrinsics.scale < 2.3
    record = json.loads((target / "scene.json").read_text())
    assert (
        set(record["why"]) == {"rotation", "origin", "scale", "near_plane"}
        and len(record["views"]["test"]) == 3
    )
    assert (target / "points.ply").exists() == (source != "transforms.json")


def test_given_grid_is_kept(tmp_path, rendered):
    folder, poses, focal = rendered
    export_transforms(folder, tmp_path / "transforms.json", poses, focal)
    transforms_json.main(
        [
            str(tmp_path),
            str(tmp_path / "scene"),
            "--origin",
            "0.1",
            "0",
            "-0.1",
            "--scale",
            "1.5",
            "--near_plane",
            "0.7",
            "--test_every",
            "0",
            "--sidelength",
            "16",
        ]
    )
    intrinsics = load_intrinsics(tmp_path / "scene" / "train" / "intrinsics.txt")
    assert (intrinsics.grid_origin, intrinsics.scale, intrinsics.near_plane) == (
        (0.1, 0.0, -0.1),
        1.5,
        0.7,
    )
    assert intrinsics.focal == pytest.approx(focal / 3) and intrinsics.width == 16
    assert not (tmp_path / "scene" / "test").exists()


def test_every_nth_view_is_a_test_view():
    assert split_views(5, 2) == {"train": [1, 3], "test": [0, 2, 4]}
    assert split_views(3, 0) == {"train": [0, 1, 2]}
    assert split_views(4, 2) == {"train": [1, 3], "test": [0, 2]}


def test_every_nth_of_the_others_is_a_validation_view():
    """None of them beside a test view where there is room."""
    splits = split_views(16, 8, 7)
    assert splits["test"] == [0, 8] and splits["validation"] == [4, 12]
    assert sorted(sum(splits.values(), [])) == list(range(16))
    assert list(split_views(4, 0, 2)) == ["train", "validation"]
    with pytest.raises(InputError, match="--test_every 2 --val_every 2: leaves 1 of 4 views"):
        split_views(4, 2, 2)


@pytest.mark.parametrize(("count", "test_every"), [(3, 1), (2, 8), (3, 2)])
def test_two_views_are_left_to_train_on(count, test_every):
    with pytest.raises(
        InputError,
        match=f"--test_every {test_every}: leaves . of {count} views .* training needs two",
    ):
        split_views(count, test_every)


def test_nerf_synthetic_is_converted_and_numbered_in_natural_order(tmp_path, capsys):
    """OpenGL to OpenCV, alpha over white, area averaging, near plane at radius - sqrt(3)/2 *
    scale."""
    pose = np.eye(4)
    pose[:3, 3] = 0, 0, 4
    for split in ("train", "test"):
        (tmp_path / "lego" / split).mkdir(parents=True)
        for number in (10, 2):
            pixels = np.zeros((8, 8, 4), np.uint8)
            pixels[:4, :, :] = number, 0, 0, 255  # BGRA: the upper half blue, the lower transparent
            cv2.imwrite(str(tmp_path / "lego" / split / f"r_{number}.png"), pixels)
        frames = [
            {"file_path": f"./{split}/r_{number}", "transform_matrix": (pose + number * 0).tolist()}
            for number in (10, 2)
        ]
        (tmp_path / "lego" / f"transforms_{split}.json").write_text(
            json.dumps({"camera_angle_x": 2 * np.arctan(0.5), "frames": frames})
        )
    nerf_synthetic.main([str(tmp_path / "lego"), str(tmp_path / "scene"), "--sidelength", "4"])
    intrinsics = load_intrinsics(tmp_path / "scene" / "test" / "intrinsics.txt")
    assert intrinsics.focal == pytest.approx(4) and intrinsics.scale == 2.6
    assert intrinsics.near_plane == pytest.approx(4 - np.sqrt(3) / 2 * 2.6)
    first = load_image(list_images(tmp_path / "scene" / "test" / "rgb")[0])
    assert first.shape == (4, 4, 3) and (first[0] == [0, 0, 2]).all() and (first[3] == 255).all()
    written = load_pose(list_poses(tmp_path / "scene" / "test" / "pose")[0])
    np.testing.assert_allclose(written[:3, :3], np.diag([1, -1, -1]))
    assert "--sidelength" not in capsys.readouterr().err
    nerf_synthetic.main([str(tmp_path / "lego"), str(tmp_path / "large"), "--sidelength", "9"])
    assert "warning: --sidelength 9: the images have 8 pixels a side" in capsys.readouterr().err


def broken_transforms(tmp_path, change):
    for number in range(3):
        write_image(tmp_path / f"{number}.png", np.zeros((8, 8, 3), np.uint8))
    content = {
        "fl_x": 8,
        "w": 8,
        "h": 8,
        "frames": [
            {
                "file_path": f"{number}.png",
                "transform_matrix": (np.eye(4) + number * np.eye(4, k=3)).tolist(),
            }
            for number in range(3)
        ],
    }
    change(content)
    (tmp_path / "transforms.json").write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("change", "culprit"),
    [
        (lambda content: content.update(frames=[]), "transforms.json: has no frames"),
        (lambda content: content.update(frames=[{}]), "transforms.json: frame 0 has no file_path"),
        (
            lambda content: [
                frame.update(file_path=f"gone{number}.png")
                for number, frame in enumerate(content["frames"])
            ],
            r"gone0.png: no such file.*\(3 of 3 are missing\)",
        ),
        (
            lambda content: content["frames"][1].update(transform_matrix=[[float("nan")] * 4] * 4),
            "1.png",
        ),
        (
            lambda content: content["frames"][2].update(transform_matrix=(np.eye(4) * 2).tolist()),
            "2.png is not a rigid",
        ),
        (lambda content: content["frames"][2].update(transform_matrix=[1, 2]), "2.png"),
        (lambda content: content.update(fl_x="wide"), "transforms.json: the intrinsics"),
        (
            lambda content: [
                frame.update(transform_matrix=np.eye(4).tolist()) for frame in content["frames"]
            ],
            "same place",
        ),
        (
            lambda content: content.update(w=0),
            "transforms.json: the camera of 0.png is for images of 0x8",
        ),
        (lambda content: content.update(w=9), "png: is 8x8 pixels, its camera is for 9x8"),
        (lambda content: content.update(camera_model="PANORAMA"), "camera_model PANORAMA"),
        (lambda content: content.update(frames=content["frames"][:1]), "only view"),
    ],
)
def test_broken_transforms_are_named_and_leave_nothing(tmp_path, change, culprit):
    broken_transforms(tmp_path, change)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(InputError, match=culprit) as error:
        transforms_json.main([str(tmp_path), str(tmp_path / "scene")])
    assert "\n" not in str(error.value)
    assert sorted(tmp_path.iterdir()) == before


def test_a_capture_that_is_enlarged_is_warned_of(tmp_path, capsys):
    broken_transforms(tmp_path, lambda content: None)
    command = [str(tmp_path), str(tmp_path / "scene"), "--test_every", "0", "--sidelength", "9"]
    transforms_json.main(command)
    assert "warning: --sidelength 9: the images have 8 pixels a side" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("depth", "distortion", "more"),
    [
        (np.uint8, 0, []),
        (np.uint16, 0, []),
        (np.uint8, -0.1, []),
        (np.uint8, 0, ["--sidelength", "16"]),
    ],
)
def test_transparency_is_kept(tmp_path, depth, distortion, more):
    """A red object before transparent green: around it is the background that training asks for,
    without green."""
    pixels = np.zeros((32, 32, 4), depth)
    pixels[..., 1] = np.iinfo(depth).max
    pixels[8:24, 8:24] = np.array([200, 0, 0, 255]) * (np.iinfo(depth).max // 255)
    broken_transforms(tmp_path, lambda content: content.update(fl_x=32, w=32, h=32, k1=distortion))
    for number in range(3):
        write_image(tmp_path / f"{number}.png", pixels)
    transforms_json.main([str(tmp_path), str(tmp_path / "scene"), "--test_every", "0", *more])
    image = list_images(tmp_path / "scene" / "train" / "rgb")[0]
    for background, level in (("white", 255), ("black", 0)):
        seen = load_image(image, background).astype(int)
        assert (seen[[0, -1]] == level).all() and (seen[:, [0, -1]] == level).all()
        assert (seen[len(seen) // 2, len(seen) // 2] == [200, 0, 0]).all()
        assert (np.abs(seen[..., 1] - seen[..., 2]) <= 1).all()
    if not distortion and not more:
        assert (load_rgba(image)[8:24, 8:24] == [200, 0, 0, 255]).all() and load_rgba(image)[
            ..., 3
        ].sum() == 256 * 255


@pytest.mark.parametrize(
    ("same", "named"), [((0, 2), []), ((1, 3), []), ((0, 3), ["0.png"]), ((2, 3), ["2.png"])]
)
def test_a_picture_that_is_trained_on_and_tested_is_named(tmp_path, capfd, same, named):
    """Views 0 and 2 are test views. Others have the size of the file, but not its content."""
    broken_transforms(
        tmp_path,
        lambda content: content["frames"].append(
            {"file_path": "3.png", "transform_matrix": (np.eye(4) + 3 * np.eye(4, k=3)).tolist()}
        ),
    )
    for number in range(4):
        write_image(
            tmp_path / f"{number}.png",
            np.full((8, 8, 3), 10 if number in same else number, np.uint8),
        )
    transforms_json.main([str(tmp_path), str(tmp_path / "scene"), "--test_every", "2"])
    lines = [line for line in capfd.readouterr().err.splitlines() if line.startswith("warning: ")]
    assert lines == [
        f"warning: 1 of 2 test views are trained on too: {name} is the same picture as 3.png"
        for name in named
    ]


@pytest.mark.parametrize(
    ("change", "culprit"),
    [
        (
            lambda content: [content.pop("camera_angle_x"), content.pop("fl_x")],
            "transforms_train.json: gives no focal length for 0.png",
        ),
        (
            lambda content: content.update(camera_angle_x=0),
            "transforms_train.json: the intrinsics of 0.png .*camera_angle_x is not an angle",
        ),
        (
            lambda content: [frame.update(file_path="gone") for frame in content["frames"]],
            "gone: no such file",
        ),
        (
            lambda content: content["frames"][2].update(transform_matrix=(np.eye(4) * 2).tolist()),
            "transforms_train.json: the transform_matrix of 2.png is not a rigid transform",
        ),
    ],
)
def test_broken_nerf_synthetic_is_named_and_leaves_nothing(tmp_path, change, culprit):
    broken_transforms(
        tmp_path, lambda content: content.update(camera_angle_x=1.0) or change(content)
    )
    (tmp_path / "transforms.json").rename(tmp_path / "transforms_train.json")
    before = sorted(tmp_path.iterdir())
    with pytest.raises(InputError, match=culprit):
        nerf_synthetic.main([str(tmp_path), str(tmp_path / "scene")])
    assert sorted(tmp_path.iterdir()) == before


def test_broken_colmap_folders_are_named(tmp_path, rendered):
    folder, poses, focal = rendered
    with pytest.raises(InputError, match="holds no COLMAP model"):
        colmap.main([str(tmp_path), str(tmp_path / "scene")])
    export_colmap(folder, tmp_path / "sparse", poses, focal)
    with pytest.raises(InputError, match="000000.png: no such file"):
        (tmp_path / "images").mkdir()
        colmap.main([str(tmp_path), str(tmp_path / "scene")])
    (tmp_path / "sparse" / "cameras.txt").write_text("1 SIMPLE_PINHOLE what\n")
    with pytest.raises(InputError, match="sparse"):
        colmap.main([str(tmp_path), str(tmp_path / "scene")])
    (tmp_path / "sparse" / "images.txt").write_text("")
    with pytest.raises(InputError, match="sparse"):
        colmap.main([str(tmp_path), str(tmp_path / "scene")])
    assert not (tmp_path / "scene").exists()


@pytest.mark.parametrize("colored", [True, False])
def test_sparse_points_of_nerfstudio_choose_the_grid(tmp_path, rendered, colored):
    folder, poses, focal = rendered
    points = np.random.default_rng(0).uniform(-0.4, 0.4, (300, 3)) + [0.1, 0, 0]
    unusable = [[np.inf, 0, 0], [0, np.nan, 0]]
    colors = np.tile(np.uint8([10, 200, 30, 255]), (302, 1)) if colored else None
    trimesh.PointCloud(np.concatenate([points, unusable]), colors=colors).export(
        tmp_path / "sparse.ply"
    )
    export_transforms(
        folder, tmp_path / "transforms.json", poses, focal, ply_file_path="sparse.ply"
    )
    transforms_json.main([str(tmp_path / "transforms.json"), str(tmp_path / "scene")])
    intrinsics = load_intrinsics(tmp_path / "scene" / "train" / "intrinsics.txt")
    np.testing.assert_allclose(intrinsics.grid_origin, [0.1, 0, 0], atol=0.08)
    assert 0.75 < intrinsics.scale < 1.1
    kept = trimesh.load(tmp_path / "scene" / "points.ply")
    np.testing.assert_allclose(kept.vertices, points, atol=1e-5)
    assert not colored or (kept.colors[:, :3] == [10, 200, 30]).all()
