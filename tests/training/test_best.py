"""`best.pth`, the checkpoint with the best PSNR on held-out views, and `--patience`."""

import json
import re
import shutil

import pytest

import training.keeper as keeping
from checkpoints import load_checkpoint
from dataio import load_scene
from evaluation.held_out import HeldOutPsnr, chosen_by
from files.runs import BEST
from tests.conftest import write_scene
from tests.helpers import (
    arguments,
    assert_one_line,
    assert_same,
    checkpoints,
    render_arguments,
    resume,
    run,
)
from training.state import RunProgress
from training.validation import Validation

CURVE = [20.0, 21.0, 20.5, 22.0, 21.0, 21.9, 19.0, 23.0]  # PSNR after each step


@pytest.fixture
def measured(monkeypatch):
    """Lets the held-out PSNR of a run be `CURVE`, one value a measurement. The list that it returns
    holds the values that are left."""
    curve = list(CURVE)

    def measure(self, networks, machine):
        return {"psnr": curve.pop(0), "ssim": 0.5, "gap": 1.0}

    monkeypatch.setattr(Validation, "measure", measure)
    return curve


def train(scene, logs, steps, *more) -> int:
    flags = ["--max_steps", steps, "--validate_every", 1, "--average", 0.5]
    return run(*arguments(scene, logs, *flags, *more))


def best_of(logs):
    (path,) = logs.glob(f"logs/*/*/{BEST}")
    return load_checkpoint(path)


def weights_of(logs, step):
    (path,) = (path for path in checkpoints(logs) if path.stem.endswith(f"_{step}"))
    return load_checkpoint(path)


def test_the_best_is_kept_as_it_was(scene, tmp_path, measured, capfd):
    """With its weights and their average, whatever `--keep_checkpoints` removes."""
    assert train(scene, tmp_path / "all", 6, "--checkpoint_every", 1, "--keep_checkpoints", 0) == 0
    best = best_of(tmp_path / "all")
    then = weights_of(tmp_path / "all", 4)
    assert best["step"] == 4 and chosen_by(best).psnr == 22.0
    for part in ("model", "average", "discriminator"):
        assert_same(best[part], then[part], part)
    assert "model_optimizer" not in best
    assert "best.pth: step 4, 22.00 dB on 3 test views" in capfd.readouterr().out

    measured[:] = CURVE
    assert train(scene, tmp_path / "one", 6, "--checkpoint_every", 1, "--keep_checkpoints", 1) == 0
    assert len(checkpoints(tmp_path / "one")) == 1
    assert_same(best_of(tmp_path / "one")["average"], best["average"])


def test_a_run_that_was_killed_keeps_the_same_best(scene, tmp_path, measured):
    """And the count of its patience, though it measures again what came after its checkpoint."""
    flags = ["--patience", 4, "--checkpoint_every", 5]
    assert train(scene, tmp_path / "whole", 7, *flags) == 0
    measured[:] = CURVE
    assert train(scene, tmp_path / "killed", 6, *flags) == 0
    (latest,) = tmp_path.glob("killed/logs/*/*/latest.pth")
    latest.resolve().unlink()  # as if the run had been killed in step 6
    latest.unlink()
    measured[:] = CURVE[5:]
    assert run(*resume(tmp_path / "killed", "--max_steps", 7)) == 0
    whole = best_of(tmp_path / "whole")
    killed = best_of(tmp_path / "killed")
    assert killed["step"] == 4
    for part in ("model", "average", "chosen_by", "best", "worse_in_a_row", "rng"):
        assert_same(killed[part], whole[part], part)
    ends = [weights_of(tmp_path / name, 7) for name in ("whole", "killed")]
    assert ends[0]["best"] == ends[1]["best"] == whole["best"]
    assert [end["worse_in_a_row"] for end in ends] == [3, 3]


def test_steps_that_training_went_back_from_keep_their_best(scene, tmp_path, measured):
    """Also in another process, in which the steps after the checkpoint turn out worse; and a
    damaged file is replaced."""
    assert train(scene, tmp_path, 4, "--checkpoint_every", 2) == 0
    (last,) = (path for path in checkpoints(tmp_path) if path.stem.endswith("_4"))
    earlier = last.with_name(last.name.replace("_4.", "_2."))
    before = best_of(tmp_path)["model"]
    measured[:] = [21.5, 21.6]
    steps = ["--max_steps", 4, "--lr", 1e-3]
    assert run(*resume(tmp_path, *steps)[:-6], "--resume", earlier, *steps) == 0
    assert chosen_by(best_of(tmp_path)).psnr == 22.0
    assert_same(best_of(tmp_path)["model"], before)
    assert weights_of(tmp_path, 4)["best"]["psnr"] == 21.6  # of the steps that count

    last.with_name(BEST).write_bytes(b"damaged")
    measured[:] = [20.0]
    assert run(*resume(tmp_path, "--max_steps", 5)) == 0
    assert chosen_by(best_of(tmp_path)).psnr == 20.0


def test_other_held_out_views_begin_anew(scene, tmp_path, measured):
    assert train(scene, tmp_path, 2) == 0
    write_scene(scene / "validation", views=2)
    measured[:] = [10.0, 9.0]
    assert run(*resume(tmp_path, "--max_steps", 4)) == 0
    best = best_of(tmp_path)
    choice = chosen_by(best)
    assert (best["step"], choice.psnr, choice.split, choice.views) == (3, 10.0, "validation", 2)
    assert weights_of(tmp_path, 4)["worse_in_a_row"] == 1


def test_patience_ends_a_run_that_gets_worse(scene, tmp_path, measured, capfd):
    """It stays ended when the command is repeated, and goes on with more patience."""
    assert train(scene, tmp_path, 8, "--patience", 2, "--resume", "auto") == 0
    output = capfd.readouterr().out
    assert "ended: 2 measurements without a better PSNR on held-out views (--patience 2)" in output
    assert [path.stem.rpartition("_")[2] for path in checkpoints(tmp_path)] == ["6"]
    assert best_of(tmp_path)["step"] == 4

    assert train(scene, tmp_path, 8, "--patience", 2, "--resume", "auto") == 0
    assert "nothing to do: the run ended: 2 measurements" in capfd.readouterr().out
    assert len(measured) == 2
    assert run(*resume(tmp_path, "--max_steps", 8, "--patience", 4)) == 0
    assert not measured
    assert best_of(tmp_path)["step"] == 8


def test_a_full_disk_does_not_end_training(scene, tmp_path, measured, monkeypatch, capfd):
    """The best file stays as it was, until a measurement beats what it holds."""
    save = keeping.save_checkpoint

    def full_disk(path, checkpoint, modified=None):
        if path.name == BEST and checkpoint["step"] == 4:
            raise OSError(28, "No space left on device")
        save(path, checkpoint, modified)

    monkeypatch.setattr(keeping, "save_checkpoint", full_disk)
    assert train(scene, tmp_path, 6) == 0
    error = capfd.readouterr().err
    assert re.search(r"warning: .*best\.pth could not be saved: .*No space left", error)
    assert best_of(tmp_path)["step"] == 6  # 21.9 dB, more than the 21.0 of step 2
    assert weights_of(tmp_path, 6)["best"]["step"] == 4


def test_images_that_are_not_finite_are_the_worst(scene):
    """Any other is better: else a run that begins with them would have no best one."""
    views = load_scene(scene / "test", 64)
    progress = RunProgress()
    for step, psnr in enumerate([float("nan"), 5.0, float("nan")]):
        progress.take_note(HeldOutPsnr.of(step, psnr, "test", views))
    assert (progress.best.step, progress.worse_in_a_row) == (1, 1)


@pytest.mark.parametrize("split", ["validation", "test"])
def test_a_test_says_which_checkpoint_it_took_and_which_views_chose_it(
    scene, tmp_path, capfd, split
):
    """Validation views, or the very views that it measures, wherever these lie now."""
    if split == "validation":
        write_scene(scene / "validation", views=9)
    assert train(scene, tmp_path, 2) == 0
    tested = tmp_path / "moved"
    shutil.copytree(scene / "test", tested)
    for checkpoint in ("latest", "best"):
        capfd.readouterr()
        more = ["--train_root", scene / "train", "--experiment_name", checkpoint]
        assert run(*render_arguments(tested, tmp_path, checkpoint, *more)) == 0
        (line,) = re.findall(r"^checkpoint: .*", capfd.readouterr().out, re.MULTILINE)
        (path,) = tmp_path.glob(f"test_traj/*/*_{checkpoint}/metrics.json")
        taken = json.loads(path.read_text())["checkpoint"]
        if checkpoint == "latest":
            assert line.endswith("_iter_2.pth, step 2")
            assert taken == {"step": 2, "chosen_by": None}
            continue
        choice = chosen_by(best_of(tmp_path))
        count = 5 if split == "validation" else 3
        ending = f"step {choice.step}, the best of its run by the PSNR on {count} {split} views"
        if split == "test":
            ending += ", which are measured here too"
        assert line.endswith(ending)
        assert taken["step"] == choice.step
        assert taken["chosen_by"]["psnr"] == choice.psnr
        assert taken["chosen_by"]["measured_here"] == (split == "test")


def test_what_cannot_be_the_best_is_refused(scene, tmp_path, assert_refused):
    command = render_arguments(scene / "test", tmp_path, "best")
    assert_refused(command, "--checkpoint best", "there is no checkpoint under")
    assert_refused(
        arguments(scene, tmp_path, "--patience", 3), "--patience 3: needs --validate_every"
    )
    assert run(*arguments(scene, tmp_path / "logs", "--max_steps", 1)) == 0
    command = render_arguments(scene / "test", tmp_path / "logs", "best")
    assert run(*command) == 2


def test_the_newest_run_is_not_passed_over(scene, tmp_path, capfd):
    """An older run has a best one, the newest measured nothing."""
    assert train(scene, tmp_path, 1) == 0
    assert run(*arguments(scene, tmp_path, "--max_steps", 1, "--experiment_name", "later")) == 0
    capfd.readouterr()
    assert run(*render_arguments(scene / "test", tmp_path, "best")) == 2
    named = "_later has none: its training measured no held-out views"
    assert_one_line(capfd.readouterr().err, named)


def test_the_best_cannot_be_resumed_but_started_from(scene, tmp_path, capfd):
    assert train(scene, tmp_path, 1) == 0
    (path,) = tmp_path.glob(f"logs/*/*/{BEST}")
    capfd.readouterr()
    assert run(*resume(tmp_path)[:-2], "--resume", path, "--max_steps", 2) == 2
    assert "has no optimizer state to continue with (it is the best" in capfd.readouterr().err
    assert run(*arguments(scene, tmp_path, "--max_steps", 1, "--checkpoint", "best")) == 0
