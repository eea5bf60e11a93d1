"""What a study finds out before it spends hours, and what must not stop it later: real runs and dry
runs."""

import json
import os
import shutil

import pytest
import torch
import torchvision

from experiments import sensitivity, study, table1
from experiments.execute import command_lines
from experiments.plan import (
    Plan,
    draw_up,
    read_plan,
    scenes_by_name,
    views_fingerprint,
    write_plan,
)
from tests.conftest import SMALL
from tests.experiments import work_here
from tests.helpers import ALEXNET, run, write_weights
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


def test_lpips_is_measured_in_the_tests_of_a_study(scene, tmp_path, monkeypatch):
    """Trainings do not take the flag. A run that was tested without it is listed."""
    monkeypatch.setattr(study, "work", work_here)
    monkeypatch.setattr(study, "check_first", lambda *_: None)
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path / "hub"))
    write_weights(tmp_path / "hub", ALEXNET, torchvision.models.alexnet)
    out = tmp_path / "out"
    table1.main(words(scene, out, "--models", "nearest_neighbor"))
    assert "PSNR / SSIM on the test views" in (out / "table.md").read_text()
    table1.main(words(scene, out, "--models", "nearest_neighbor", "pix2pix", "--lpips"))
    content = json.loads((out / "table.json").read_text())
    shown = content["scenes"]["scene"]["pix2pix"]
    assert shown["lpips"] > 0
    assert content["mean"]["pix2pix"]["lpips"] == shown["lpips"]
    assert content["mean"]["nearest_neighbor"]["lpips"] is None
    text = (out / "table.md").read_text()
    assert text.startswith("PSNR / SSIM / LPIPS on the test views")
    row = f"| {shown['psnr']:.2f} / {shown['ssim']:.2f} / {shown['lpips']:.3f} |"
    assert row in text
    listed = text.partition("Tested without --lpips")[2]
    assert "scene, Nearest Neighbor, seed 0: runs/scene-nearest_neighbor-seed0/" in listed
    assert "Pix2Pix" not in listed.partition("The paper's own")[0]

    # its test again, with the flag; and what was measured is shown without the flag too
    (words_of_test,) = command_lines(read_plan(out), "scene-nearest_neighbor-seed0", [])
    assert run(*words_of_test[1:]) == 0
    table1.main(words(scene, out, "--models", "nearest_neighbor", "pix2pix", "--collect"))
    text = (out / "table.md").read_text()
    assert row in text
    assert "Tested without" not in text


def test_lpips_without_weights_is_refused_before_a_run_starts(scene, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path / "hub"))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # no way to the network
    with pytest.raises(InputError, match="^--lpips: the weights of AlexNet cannot be had"):
        table1.main(words(scene, tmp_path / "out", "--models", "pix2pix", "--lpips"))
    assert not (tmp_path / "out").exists()


def test_a_table_says_how_often_its_steps_go_through_the_views(scene, tmp_path, monkeypatch):
    monkeypatch.setattr(study, "work", work_here)
    monkeypatch.setattr(study, "check_first", lambda *_: None)
    out = tmp_path / "out"
    flags = ["--models", "nearest_neighbor", "--sampling_pattern", "skip_1"]
    table1.main(words(scene, out, *flags))
    line = (
        "Passes over the training views in 2 steps; the original's default is 400: "
        "scene 0.5 (4 views)"
    )
    assert line in (out / "table.md").read_text()
