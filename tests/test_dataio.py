"""Scenes in memory and the triplets drawn from them (paper, section 3.1)."""

from pathlib import Path

import imageio.v2 as imageio
import numpy as np
import pytest
import torch

from data_util import sampled_views
from dataio import draw_triplets, find_split, load_scene
from tests.conftest import hemisphere_poses, write_scene
from tests.helpers import CPU
from util import InputError


def test_a_scene_is_kept_as_bytes_and_normalised_on_demand(scene):
    views = load_scene(scene / "train", sidelength=32)
    assert len(views) == 8
    assert views.images.dtype == torch.uint8
    pixels = views.on(CPU).pixels([0, 3])
    assert pixels.shape == (2, 3, 32, 32)
    assert pixels.min() >= -0.5
    assert pixels.max() == 0.5  # the white background
    torch.testing.assert_close(
        views.on(CPU).poses([2])[0], torch.tensor(hemisphere_poses(8)[2]).float()
    )


def test_world_to_camera_poses_are_inverted_where_the_file_says_so(scene):
    folder = scene / "train"
    pose = hemisphere_poses(8)
    for path, matrix in zip(sorted((folder / "pose").iterdir()), np.linalg.inv(pose), strict=True):
        path.write_text(" ".join(map(str, matrix.ravel())))
    with open(folder / "intrinsics.txt", "a") as file:
        file.write("1\n")
    np.testing.assert_allclose(load_scene(folder, 32).cam2world, pose, atol=1e-12)


def test_sampling_patterns():
    assert list(sampled_views(7, "all")) == list(range(7))
    assert list(sampled_views(7, "skip_1")) == [0, 2, 4, 6]
    assert list(sampled_views(7, "skip_2")) == [0, 3, 6]
    for pattern in ("skip", "skip_", "skip_-1", "random", "skip_1.5", "SKIP_1"):
        with pytest.raises(InputError, match="--sampling_pattern"):
            sampled_views(7, pattern)


def test_triplets():
    poses = hemisphere_poses(40)
    directions = poses[:, :3, 2]
    triplets = draw_triplets(poses, num_targets=3, seed=1, epoch=5)
    assert triplets.shape == (40, 4)
    assert sorted(triplets[:, 1]) == list(range(40))  # every view is target 0 once
    for source, target, *_ in triplets:
        cosines = directions @ directions[target]
        closer = (cosines > cosines[source] + 1e-9).sum()
        assert source != target
        assert closer <= 5  # target 0 itself and at most four others
    assert len({tuple(row) for row in triplets[:, 2:]}) > 30  # the others are random


def test_each_target_can_have_a_source_of_its_own():
    poses = hemisphere_poses(40)
    triplets = draw_triplets(poses, 3, seed=1, epoch=5, num_sources=3)
    assert np.array_equal(triplets[:, 3:], draw_triplets(poses, 3, seed=1, epoch=5)[:, 1:])
    steps_apart = np.abs((triplets[:, :3] - triplets[:, 3:] + 20) % 40 - 20)
    assert steps_apart.min() == 1
    assert steps_apart.max() <= 3  # the fifth ties


def test_sources_are_drawn_among_all_five_neighbours():
    poses = hemisphere_poses(40)
    offsets = {
        (row[0] - row[1] + 20) % 40 - 20
        for epoch in range(10)
        for row in draw_triplets(poses, 2, 0, epoch)
    }
    assert offsets >= {-2, -1, 1, 2}
    assert offsets <= {-3, -2, -1, 1, 2, 3}  # the fifth ties


def test_triplets_depend_on_seed_and_epoch_alone():
    poses = hemisphere_poses(12)
    assert np.array_equal(draw_triplets(poses, 2, 3, 4), draw_triplets(poses, 2, 3, 4))
    assert not np.array_equal(draw_triplets(poses, 2, 3, 4), draw_triplets(poses, 2, 3, 5))
    assert not np.array_equal(draw_triplets(poses, 2, 3, 4), draw_triplets(poses, 2, 4, 4))


def test_mismatched_folders_are_named(scene, tmp_path):
    folder = scene / "train"
    odd = folder / "rgb" / "000003.png"
    imageio.imwrite(odd, np.zeros((32, 64, 3), np.uint8))
    with pytest.raises(InputError, match="000003.png: is 64x32 pixels"):
        load_scene(folder, 64)
    odd.unlink()
    with pytest.raises(InputError, match="rgb holds 7 images, pose holds 8 poses"):
        load_scene(folder, 64)
    with pytest.raises(InputError, match="nothing: no such folder"):
        load_scene(tmp_path / "nothing", 64)
    assert (
        load_scene(write_scene(tmp_path / "path", 2, images=False), 64, with_images=False).images
        is None
    )


def test_the_splits_of_a_scene_are_found_in_both_layouts(tmp_path, monkeypatch):
    root = tmp_path.resolve()
    for folder in (
        "scene/train",
        "scene/test",
        "scene/path",
        "root/train/cube",
        "root/validation/cube",
        "root/test/cube",
        "root/test/vase",
        "test/train",
        "test/test",
    ):
        (root / folder).mkdir(parents=True)
    assert find_split(root / "scene" / "test", "train") == root / "scene" / "train"
    assert find_split(root / "scene" / "path", "train") == root / "scene" / "train"
    assert find_split(root / "scene" / "train", "validation") is None
    for split in ("train", "validation", "test"):
        assert find_split(root / "root" / "test" / "cube", split) == root / "root" / split / "cube"
    assert find_split(root / "root" / "test" / "vase", "train") is None
    assert (
        find_split(root / "test" / "train", "test") == root / "test" / "test"
    )  # a scene named test
    (root / "mine" / "train").mkdir(parents=True)
    (root / "mine" / "test").symlink_to("../scene/test")
    assert find_split(root / "mine" / "test", "train") == root / "mine" / "train"
    (root / "other" / "test").mkdir(parents=True)
    (root / "other" / "train").symlink_to("../scene/train")
    assert find_split(root / "other" / "train", "test") == root / "other" / "test"
    monkeypatch.chdir(root / "scene" / "test")
    assert find_split(Path(), "train") == root / "scene" / "train"
