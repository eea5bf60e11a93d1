"""`scenes.check` reads as far as possible: one bad file is one line among its findings."""

import numpy as np
import pytest
import trimesh

from scenes import check


def bad_link(path):
    path.unlink()
    path.symlink_to("gone.png")


def folder_instead(path):
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("spoil", [bad_link, folder_instead])
def test_images_that_cannot_be_read_hide_nothing(scene, capsys, spoil):
    """The first view of both splits is the same picture."""
    paths = [scene / split / "rgb" / "000002.png" for split in ("train", "test")]
    for path in paths:
        spoil(path)
    with pytest.raises(SystemExit) as ended:
        check.main([str(scene)])
    assert ended.value.code == 1
    report = capsys.readouterr().out
    assert all(f"  error: {path}: " in report for path in paths)
    assert "1 of 3 images are trained on too: 000000.png is the same picture as" in report
    assert report.splitlines()[-1].startswith("verdict: training cannot work (2 errors, ")
    assert (scene / "check.png").is_file()


@pytest.mark.parametrize("part", [".", "train"])
def test_points_that_cannot_be_read_are_a_warning(scene, capsys, part):
    """Training does not read them."""
    (scene / "points.ply").write_bytes(b"ply, or not")
    check.main([str(scene / part)])
    report = capsys.readouterr().out
    assert f"  warning: {scene / 'points.ply'}: is not a readable point cloud" in report
    assert "\nverdict: training can work; " in report
    assert (scene / part / "check.png").is_file()


@pytest.mark.parametrize("part", [".", "train"])
def test_points_are_found_from_the_scenes_folders(scene, part):
    trimesh.PointCloud(np.eye(3)).export(scene / "points.ply")
    np.testing.assert_array_equal(check.sparse_points(scene / part), np.eye(3))


@pytest.mark.parametrize(("first", "warned"), [("train", True), ("test", False), ("a", False)])
def test_only_images_of_train_are_trained_on(scene, capsys, first, warned):
    """Not those of whichever folder comes first, such as one of several scenes."""
    (scene / "train").rename(scene / "source")
    (scene / "test").rename(scene / "validation")
    (scene / "source").rename(scene / first)
    check.main([str(scene)])
    assert ("are trained on too" in capsys.readouterr().out) == warned
