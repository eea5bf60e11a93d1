"""What a run's checkpoints take on the disk: `--keep_optimizer`, and the estimate before it
starts."""

import re

import pytest
import torch

import checkpoints as checkpoint_files
from checkpoints import load_checkpoint
from tests.helpers import (
    arguments,
    assert_one_line,
    assert_same,
    checkpoints,
    final_checkpoint,
    options_of,
    render_arguments,
    resume,
    run,
)
from training.keeper import CheckpointKeeper
from training.memory import GIB, shown_size, training_needs
from training.options import Records

OPTIMIZERS = {"model_optimizer", "discriminator_optimizer"}


def test_only_the_newest_checkpoint_keeps_the_optimizers(scene, tmp_path, capfd):
    """Older ones hold the same weights and test; the run continues to the bit."""
    settings = ["--checkpoint_every", 2, "--average", 0.9]
    assert run(*arguments(scene, tmp_path / "all", *settings, "--max_steps", 6)) == 0
    last = ["--keep_optimizer", "last"]
    assert run(*arguments(scene, tmp_path / "last", *settings, "--max_steps", 4, *last)) == 0
    assert run(*resume(tmp_path / "last", *settings[:2], "--max_steps", 6, *last)) == 0
    for step in (2, 4, 6):
        full_path, path = (final_checkpoint(tmp_path / logs, step)[0] for logs in ("all", "last"))
        full = load_checkpoint(full_path)
        content = load_checkpoint(path)
        assert bool(content.keys() & OPTIMIZERS) == (step == 6)
        for part in full.keys() - OPTIMIZERS - {"options", "seconds"}:
            assert_same(full[part], content[part], part)
        assert path.stat().st_size < (1.01 if step == 6 else 0.6) * full_path.stat().st_size
    by_time = sorted(checkpoints(tmp_path / "last"), key=lambda path: path.stat().st_mtime_ns)
    assert [int(path.stem.rpartition("_")[2]) for path in by_time] == [2, 4, 6]

    older = by_time[1]
    assert run(*render_arguments(scene / "test", tmp_path / "last", older)) == 0
    capfd.readouterr()
    assert run(*resume(tmp_path / "last", "--max_steps", 8), "--resume", older) == 2
    named = f"--resume {older}: has no optimizer state to continue with"
    assert_one_line(capfd.readouterr().err, named)


def test_optimizers_that_cannot_be_left_out_stay(tmp_path, monkeypatch):
    """Of a damaged checkpoint, which no rewriting may hide, and on a full disk, until the next
    save."""
    records = Records(checkpoint_every=1, keep_checkpoints=0, keep_optimizer="last")
    keeper = CheckpointKeeper(tmp_path, records)

    def save(step):
        return keeper.save(
            {"model": {}, "model_optimizer": {"m": torch.zeros(9)}, "epoch": 0, "step": step}
        )

    def holds_optimizer(step):
        return "model_optimizer" in torch.load(
            tmp_path / f"model-epoch_0_iter_{step}.pth", weights_only=True
        )

    assert save(1) is None
    damaged = tmp_path / "model-epoch_0_iter_1.pth"
    damaged.write_bytes(b"damaged")
    assert save(2) is None
    assert damaged.read_bytes() == b"damaged"

    def full_disk(source, target):
        if target.name == "model-epoch_0_iter_2.pth":
            raise OSError(28, "No space left on device")
        replace(source, target)

    replace = checkpoint_files.os.replace
    monkeypatch.setattr(checkpoint_files.os, "replace", full_disk)
    assert (
        "model-epoch_0_iter_3.pth was saved, but an older one could not be made smaller: "
        in save(3)
    )
    assert not keeper.failed
    assert holds_optimizer(2)
    monkeypatch.undo()
    assert save(4) is None
    assert [holds_optimizer(step) for step in (2, 3, 4)] == [False, False, True]
    assert not list(tmp_path.glob(".*.part"))


@pytest.mark.parametrize("average", [0, 0.9])
def test_the_size_of_a_checkpoint_is_known_before(scene, tmp_path, capfd, average):
    flags = ["--max_steps", 1, "--average", average, "--nf0", 16]
    options = options_of(*arguments(scene, tmp_path, *flags))
    needs = training_needs(options.architecture, options.learning)
    assert run(*arguments(scene, tmp_path / "dry", *flags, "--dry_run")) == 0
    shown = re.search(
        r"disk: up to (\d+) MiB under .* \(5 checkpoints: the newest (\d+) MiB",
        capfd.readouterr().out,
    )
    assert not (tmp_path / "dry").exists()
    assert run(*arguments(scene, tmp_path, *flags)) == 0
    size = final_checkpoint(tmp_path, 1)[0].stat().st_size
    assert needs.weights + needs.optimizers == pytest.approx(size, rel=0.02)
    assert int(shown[2]) == pytest.approx(size / 2**20, rel=0.05)
    assert int(shown[1]) == pytest.approx(6 * size / 2**20, rel=0.05)
    assert shown_size(int(2.44 * GIB)) == "2.4 GiB"


def test_a_disk_that_is_too_small_is_said(scene, tmp_path, capfd):
    """And that with `--keep_optimizer last` it takes less."""
    large = arguments(scene, tmp_path, "--dry_run", "--keep_checkpoints", 10**9)
    assert run(*large) == 0
    whole = re.search(r"warning: checkpoints take up to ([\d.]+) GiB more", capfd.readouterr().err)
    assert run(*large, "--keep_optimizer", "last") == 0
    weights = re.search(
        r"warning: checkpoints take up to ([\d.]+) GiB more", capfd.readouterr().err
    )
    assert float(weights[1]) == pytest.approx(float(whole[1]) / 3, rel=0.02)
