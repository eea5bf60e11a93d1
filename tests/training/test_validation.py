"""What `--validate_every` measures, and that training does not notice it."""

import json
import shutil

import numpy as np
import pytest

from dataio import load_scene
from evaluation.held_out import MAX_MEASURED
from tests.conftest import write_scene
from tests.helpers import (
    arguments,
    assert_same,
    final_checkpoint,
    options_of,
    render_arguments,
    resume,
    run,
    tensorboard_events,
)
from training.validation import held_out_folder, load_validation
from util import InputError


def scalars(logs, tag) -> dict[int, float]:
    """A curve in tensorboard."""
    (path,) = logs.glob("runs/*/*/events*")
    return {
        event.step: value.simple_value
        for event in tensorboard_events(path)
        for value in event.summary.value
        if value.tag == tag
    }


@pytest.mark.parametrize(
    "more", [[], ["--average", 0.9], ["--model", "tatarchenko", "--precision", "bf16"]]
)
def test_validation_leaves_training_alone_and_measures_what_a_test_does(
    scene, tmp_path, capfd, more
):
    """Every bit of the checkpoint; both figures, to the rounding of frames rendered with folded
    batch norms."""
    steps = ["--max_steps", 5, *more]
    assert run(*arguments(scene, tmp_path / "plain", *steps)) == 0
    assert run(*arguments(scene, tmp_path / "watched", *steps, "--validate_every", 2)) == 0
    progress = capfd.readouterr().err
    assert "val_psnr=" in progress and "gap=" in progress
    _, plain = final_checkpoint(tmp_path / "plain", 5)
    path, watched = final_checkpoint(tmp_path / "watched", 5)
    assert watched.keys() - plain.keys() == {"best", "worse_in_a_row"}
    for part in plain.keys() - {"options", "checksum", "seconds"}:
        assert_same(plain[part], watched[part], part)

    resumed = options_of(*resume(tmp_path / "watched", "--validate_every", 3))
    assert resumed.records.validate_every == 3

    psnr, ssim = (
        scalars(tmp_path / "watched", tag) for tag in ("validation/psnr", "validation/ssim")
    )
    assert list(psnr) == list(ssim) == [2, 4, 5]
    precision = more if "--precision" in more else []
    assert run(*render_arguments(scene / "test", tmp_path / "watched", path, *precision)) == 0
    (metrics,) = tmp_path.glob("watched/test_traj/*/*/metrics.json")
    tested = json.loads(metrics.read_text())
    assert psnr[5] == pytest.approx(tested["psnr"], abs=0.05 if precision else 1e-3)
    assert ssim[5] == pytest.approx(tested["ssim"], abs=0.01 if precision else 1e-4)

    train_psnr, gap = (
        scalars(tmp_path / "watched", tag) for tag in ("validation/train_psnr", "validation/gap")
    )
    for step in (2, 4, 5):
        assert gap[step] == pytest.approx(train_psnr[step] - psnr[step], abs=1e-4)


def validation_of(scene, logs, *more):
    options = options_of(*arguments(scene, logs, "--validate_every", 1, *more))
    training_views = load_scene(options.run.data_root, options.architecture.img_sidelength)
    return load_validation(
        training_views, options.learning.model, options.architecture, options.scene, every=1
    )


@pytest.mark.parametrize("count", [1, 8, 9, 21])
def test_few_views_are_chosen_evenly(scene, tmp_path, logs, count):
    (scene / "test").rename(tmp_path / "elsewhere")
    write_scene(scene / "test", views=count)
    chosen = [int(name) for name in validation_of(scene, logs).held_out.views.names]
    assert MAX_MEASURED / 2 < len(chosen) <= MAX_MEASURED or count == len(chosen) == 1
    assert len(set(np.diff(chosen))) <= 1
    assert count - chosen[-1] <= max(1, count // 5)


def test_training_views_are_measured_as_held_out_ones_are(scene, tmp_path):
    """The same views in both places have no gap."""
    shutil.rmtree(scene / "test")
    shutil.copytree(scene / "train", scene / "test")
    flags = ["--max_steps", 2, "--average", 0.5, "--validate_every", 1]
    assert run(*arguments(scene, tmp_path, *flags)) == 0
    assert list(scalars(tmp_path, "validation/gap").values()) == [0, 0]
    assert scalars(tmp_path, "validation/psnr") == scalars(tmp_path, "validation/train_psnr")
    assert scalars(tmp_path, "validation/ssim") == scalars(tmp_path, "validation/train_ssim")


def test_a_baseline_renders_no_training_view_from_itself(scene, logs):
    """Else it would be measured on copies."""
    trained, neighbors = validation_of(scene, logs, "--model", "worrall").trained
    sources = [neighbors.views.names[view] for view in neighbors.nearest]
    assert len(sources) == len(trained) <= MAX_MEASURED
    assert all(source != name for source, name in zip(sources, trained.names, strict=True))


def test_the_held_out_folder(scene, tmp_path):
    """Validation views come before test views."""
    assert held_out_folder(scene / "train") == scene / "test"
    for split in ("train", "validation", "test"):
        write_scene(tmp_path / "root" / split / "disc", views=2)
    root = tmp_path / "root"
    assert held_out_folder(root / "train" / "disc") == root / "validation" / "disc"
    (root / "validation").rename(tmp_path / "elsewhere")
    assert held_out_folder(root / "train" / "disc") == root / "test" / "disc"
    (root / "linked" / "test" / "rgb").mkdir(parents=True)
    (root / "linked" / "train").symlink_to(root / "train" / "disc")
    assert held_out_folder(root / "linked" / "train") == root / "linked" / "test"
    with pytest.raises(InputError, match="linked/test: no held-out images"):
        held_out_folder(root / "linked" / "test")


def test_a_scene_that_cannot_be_validated_is_refused_before_training(
    scene, train_arguments, assert_refused
):
    command = [*train_arguments, "--validate_every", 1]
    intrinsics = scene / "test" / "intrinsics.txt"
    content = intrinsics.read_text()
    intrinsics.write_text(content.replace("0 0 0", "0 0 0.1"))
    assert_refused(command, "--validate_every", "test/intrinsics.txt differs")
    intrinsics.write_text(content)
    (scene / "test" / "rgb").rename(scene / "elsewhere")
    assert_refused(command, "no held-out images", "test/rgb")
