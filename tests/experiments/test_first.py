"""What a study finds out before it spends hours, and what must not stop it later: real runs and dry
runs."""

import json
import os
import shutil

import pytest

from experiments import sensitivity, study, table1
from experiments.plan import Plan, draw_up, scenes_by_name, views_fingerprint, write_plan
from tests.conftest import SMALL
from tests.experiments import work_here
from util import InputError


def words(scene, out, *more) -> list[str]:
    return [str(word) for word in ["--scenes", scene, "--steps", 2, "--out", out, *SMALL, *more]]


@pytest.mark.parametrize("split", ["train", "test"])
def test_cameras_that_see_nothing_are_refused_before_a_run_starts(scene, tmp_path, split):
    """The first run, of the nearest neighbour, trains nothing and would not miss the training
    cameras."""
    for pose in (scene / split / "pose").iterdir():
        pose.write_text("1 0 0 0 0 1 0 0 0 0 1 90 0 0 0 1\n")
    with pytest.raises(InputError, match=f"{scene / split}.*see"):
        table1.main(words(scene, tmp_path / "out", "--models", "nearest_neighbor", "deepvoxels"))
    assert not (tmp_path / "out").exists()


def test_the_study_of_noise_runs_where_others_validate(scene, tmp_path, monkeypatch):
    """No held-out views lie beside its noisy copies of the training views."""
    monkeypatch.setattr(study, "work", work_here)
    out = tmp_path / "out"
    sensitivity.main(words(scene, out, "--studies", "noise", "--degrees", 2, "--validate_every", 1))
    (point,) = json.loads((out / "sensitivity.json").read_text())["studies"]["noise"]["scenes"][
        "scene"
    ]
    assert list(point["seeds"]) == ["0"], point["failed"]


def test_a_scene_that_was_made_again_is_refused(scene, tmp_path):
    """One table would mix results of both; poses count by content, pictures by size, and neither by
    time."""
    data = scenes_by_name([scene])
    plan = Plan(tmp_path / "out", "table1", 2, [])
    write_plan(draw_up(plan, data, []), [], data)
    os.utime(scene / "test" / "pose" / "000000.txt", (0, 0))
    shutil.copytree(scene, tmp_path / "copy")
    assert draw_up(plan, data, []).fingerprints == {"scene": views_fingerprint(*data["scene"])}
    for changed in [
        "train/rgb/000003.png",
        "train/intrinsics.txt",
        "test/pose/000001.txt",
        "test/rgb/000009.png",
    ]:
        with open(scene / changed, "ab") as file:
            file.write(b"\n")
        with pytest.raises(
            InputError,
            match=f"^{scene}: has changed since {tmp_path / 'out'} was begun; name another",
        ):
            draw_up(plan, data, [])
        shutil.rmtree(scene)
        shutil.copytree(tmp_path / "copy", scene)
    draw_up(plan, data, [])
