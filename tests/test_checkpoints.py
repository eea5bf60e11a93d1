"""Checkpoints, ours and the original's, whole and damaged."""

import io
import json
import os
import random
import shutil
import time
import zipfile
from pathlib import Path

import pytest
import torch

from checkpoints import load_checkpoint, load_weights, recorded_architecture, save_checkpoint
from deep_voxels import Architecture, DeepVoxels
from files.runs import follow, latest_checkpoint, newest_checkpoint, point_latest_at
from files.tensors import checksum
from tests.helpers import GEOMETRY, GOLDEN, assert_same, original_checkpoint
from training.keeper import CheckpointKeeper
from training.options import Records
from util import InputError


@pytest.mark.parametrize(
    "architecture",
    [
        Architecture(64, 16, 8, 4, 4),
        Architecture(128, 64, 4, 2, 4, True),
        Architecture(64, 64, 8, 3, 2),
        Architecture(64, 8, 12, 5, 6),
    ],
)
def test_the_architecture_is_read_off_the_tensors(architecture):
    state = DeepVoxels(architecture, GEOMETRY).state_dict()
    assert Architecture(**recorded_architecture(state, Path("x"))) == architecture


@pytest.mark.parametrize("name", ["occlusion", "no_occlusion"])
def test_original_checkpoints_with_their_aliases_load(tmp_path, name):
    """The original stores the weights of many convolutions under two names."""
    original = original_checkpoint(name)
    torch.save(original, tmp_path / "original.pth")
    checkpoint = load_checkpoint(tmp_path / "original.pth")
    architecture = Architecture(**recorded_architecture(checkpoint["model"], tmp_path))
    config = json.loads((GOLDEN / name / "config.json").read_text())
    assert architecture == Architecture(
        **{flag: config[flag] for flag in Architecture.__dataclass_fields__}
    )
    model = DeepVoxels(architecture, GEOMETRY)
    load_weights(model, checkpoint["model"], tmp_path / "original.pth", "flags")
    torch.testing.assert_close(model.state_dict()["deepvoxels"], original["model"]["deepvoxels"])


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (
            lambda state: state.pop("inpainting_net.in_layer.1.bias"),
            "lacks the tensor 'inpainting_net.in_layer.1.bias'",
        ),
        (lambda state: state.update(extra=torch.zeros(1)), "has the tensor 'extra'"),
        (
            lambda state: state.update({"rendering_net.net.3.weight": torch.zeros(5)}),
            r"has shape \(5,\)",
        ),
    ],
)
def test_tensors_that_do_not_fit_are_named_with_the_flags(change, complaint):
    model = DeepVoxels(Architecture(64, 16, 8, 4, 4), GEOMETRY)
    state = dict(model.state_dict())
    change(state)
    with pytest.raises(InputError, match=complaint + ".*--nf0 4"):
        load_weights(model, state, Path("checkpoint.pth"), "--nf0 4")


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 broken"])
def test_files_that_are_no_checkpoints_are_named(tmp_path, content):
    path = tmp_path / "model.pth"
    path.write_bytes(content)
    with pytest.raises(InputError, match="model.pth") as error:
        load_checkpoint(path)
    assert "\n" not in str(error.value)


def test_nothing_is_executed_when_a_checkpoint_is_read(tmp_path):
    class Malicious:
        def __reduce__(self):
            return Path.touch, (tmp_path / "executed",)

    torch.save({"model": Malicious()}, tmp_path / "model.pth")
    with pytest.raises(InputError, match="model.pth"):
        load_checkpoint(tmp_path / "model.pth")
    assert not (tmp_path / "executed").exists()


def test_a_failed_save_leaves_the_old_checkpoint(tmp_path, monkeypatch):
    def refuse(_):
        raise OSError("no space")

    path = tmp_path / "model.pth"
    save_checkpoint(path, {"model": {"step": torch.tensor(1)}})
    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(OSError, match="no space"):
        save_checkpoint(path, {"model": {"step": torch.tensor(2)}})
    assert load_checkpoint(path)["model"]["step"] == 1
    assert [entry.name for entry in tmp_path.iterdir()] == ["model.pth"]


def test_an_old_checkpoint_that_cannot_be_removed_is_no_failed_save(tmp_path, monkeypatch):
    def refuse(path, missing_ok=False):
        if path.name == "model-epoch_0_iter_1.pth":
            raise PermissionError(13, "Permission denied", str(path))
        unlink(path, missing_ok)

    unlink = Path.unlink
    monkeypatch.setattr(Path, "unlink", refuse)
    keeper = CheckpointKeeper(tmp_path, Records(checkpoint_every=1, keep_checkpoints=1))
    for step in (1, 2):
        problem = keeper.save({"model": {}, "epoch": 0, "step": step})
    assert "model-epoch_0_iter_2.pth was saved" in problem
    assert "model-epoch_0_iter_1.pth" in problem
    assert not keeper.failed
    assert keeper.newest == tmp_path / "model-epoch_0_iter_2.pth"


def test_a_clock_that_is_set_back_costs_no_checkpoint(tmp_path):
    keeper = CheckpointKeeper(tmp_path, Records(checkpoint_every=1, keep_checkpoints=2))
    for step in (1, 2):
        keeper.save({"model": {}, "epoch": 0, "step": step})
        os.utime(keeper.newest, (time.time() + 3600 + step,) * 2)
    assert keeper.save({"model": {}, "epoch": 0, "step": 3}) is None
    assert newest_checkpoint(tmp_path) == tmp_path / "model-epoch_0_iter_3.pth"
    assert [path.name for path in keeper.kept()] == [
        "model-epoch_0_iter_2.pth",
        "model-epoch_0_iter_3.pth",
    ]


@pytest.fixture(scope="module")
def saved(trained, tmp_path_factory):
    """A complete checkpoint: its bytes, its content, and a path for damaged copies."""
    path = tmp_path_factory.mktemp("damaged") / "damaged.pth"
    save_checkpoint(path, trained[2])
    return path.read_bytes(), load_checkpoint(path), path


def damage(saved, truncations, flips, seed):
    """A damaged file is refused in one line, or holds exactly what the original held."""
    content, original, path = saved
    rng = random.Random(seed)
    for attempt in range(truncations + flips):
        damaged = bytearray(content)
        if attempt < truncations:
            del damaged[rng.randrange(len(content)) :]
        else:
            damaged[rng.randrange(len(content))] ^= rng.randrange(1, 256)
        path.write_bytes(damaged)
        try:
            loaded = load_checkpoint(path)
        except InputError as error:
            assert str(error).startswith(str(path))
            assert "\n" not in str(error)
        else:
            assert_same(original, loaded)


def test_truncated_and_flipped_checkpoints(saved):
    damage(saved, truncations=15, flips=15, seed=0)


@pytest.mark.long
def test_a_hundred_truncations_and_flips(saved):
    damage(saved, truncations=100, flips=100, seed=1)


def test_a_flip_in_a_weight_is_seen(saved):
    content, original, path = saved
    flipped = bytearray(content)
    flipped[content.index(original["model"]["rendering_net.net.3.weight"].numpy().tobytes())] ^= 1
    path.write_bytes(flipped)
    with pytest.raises(InputError, match="is damaged"):
        load_checkpoint(path)


def test_compressed_records_are_not_unpacked(saved, tmp_path):
    """A few KB that would unpack to a GB."""
    with (
        zipfile.ZipFile(io.BytesIO(saved[0])) as source,
        zipfile.ZipFile(tmp_path / "bomb.pth", "w", zipfile.ZIP_DEFLATED) as bomb,
    ):
        for record in source.infolist():
            bomb.writestr(
                record.filename,
                bytes(1 << 20) if "/data/" in record.filename else source.read(record),
            )
    with pytest.raises(InputError, match="holds compressed records"):
        load_checkpoint(tmp_path / "bomb.pth")


def test_checkpoints_of_the_first_checksum_still_load(saved, tmp_path):
    """Which was computed in one pass. A flip is seen too."""
    saved[2].write_bytes(saved[0])
    content = torch.load(saved[2], weights_only=True)
    del content["checksum"]
    first = {**content, "checksum": checksum(content, "")}
    assert len(first["checksum"]) == 64
    torch.save(first, tmp_path / "first.pth")
    assert_same(load_checkpoint(tmp_path / "first.pth"), saved[1])
    content["model"]["deepvoxels"].view(-1)[7] += 1
    torch.save({**content, "checksum": first["checksum"]}, tmp_path / "first.pth")
    with pytest.raises(InputError, match="is damaged"):
        load_checkpoint(tmp_path / "first.pth")


def test_a_checksum_is_of_values_and_of_their_order_in_memory():
    matrix = torch.arange(16.0).view(4, 4)
    sums = {
        checksum(content)
        for content in (
            {"a": matrix},
            {"a": matrix.T},
            {"a": matrix.T.contiguous()},
            {"a": matrix.view(2, 8)},
            {"a": matrix.int()},
            {"a": matrix.tolist()},
            {"b": matrix},
            {"a": matrix, "b": None},
        )
    }
    assert len(sums) == 8
    assert checksum({"a": matrix.clone()}) == checksum({"a": matrix})
    assert checksum({"a": torch.zeros(1).expand(3)}) == checksum({"a": torch.zeros(1).expand(3)})


# Which run is the newest


def make_run(logs, name, start, step, pointer="link"):
    """A run's folder as training leaves it: what it records, a checkpoint, `latest.pth`."""
    folder = logs / "logs" / "11_21" / name
    folder.mkdir(parents=True)
    history = [{"options": {"experiment_name": name}}]
    if start:
        record = {"time": start, "history": history}
        (folder / "options.json").write_text(json.dumps(record))
    path = folder / f"model-epoch_0_iter_{step}.pth"
    path.write_bytes(b"weights" * 100)
    if pointer == "link":
        point_latest_at(path)
    elif pointer is not None:
        (folder / "latest.pth").write_bytes(pointer)
    return path


@pytest.mark.parametrize(
    "pointer", [b"", b"/", b"\xff\xfe", b"..", b"latest.pth", b"a/b.pth", b"a\0b.pth", b"\n"]
)
def test_a_damaged_latest_hides_no_run(tmp_path, capsys, pointer):
    older = make_run(tmp_path, "older", "2026-11-21T10:00:00", 5)
    damaged = make_run(tmp_path, "damaged", "2026-11-21T09:00:00", 9, pointer)
    assert latest_checkpoint(tmp_path) == older
    assert f"warning: {damaged.with_name('latest.pth')}: " in capsys.readouterr().err
    assert latest_checkpoint(tmp_path, "older") == older
    assert capsys.readouterr().err == ""
    assert latest_checkpoint(tmp_path, "damaged") == damaged  # what it has is found by its steps
    with pytest.raises(InputError, match="latest.pth"):
        load_checkpoint(damaged.with_name("latest.pth"))
    damaged.unlink()
    assert latest_checkpoint(tmp_path, "damaged") is None


@pytest.mark.parametrize(
    "options", [b"", b"[", b"[]", b"{}", b"[" * 100_000, b"\xff", b'{"time": 1}']
)
def test_a_damaged_record_hides_no_run(tmp_path, options):
    good = make_run(tmp_path, "good", "2026-11-21T10:00:00", 5)
    damaged = make_run(tmp_path, "damaged", None, 9)
    damaged.with_name("options.json").write_bytes(options)
    assert latest_checkpoint(tmp_path) == good
    assert latest_checkpoint(tmp_path, "good") == good


def test_the_newest_run_does_not_depend_on_the_times_of_files(tmp_path):
    """A run is newer if it was started later; then, if it has taken more steps."""
    make_run(tmp_path / "logs", "10-00-00_first", "2026-11-21T10:00:00", 90)
    make_run(tmp_path / "logs", "11-00-00_steps", "2026-11-21T11:00:00.500+02:00", 40)
    newest = make_run(tmp_path / "logs", "11-00-00_more", "2026-11-21T11:00:00.500", 50)
    make_run(tmp_path / "logs", "12-00-00_original", None, 99)
    os.utime(newest, (1, 1))
    assert latest_checkpoint(tmp_path / "logs") == newest
    for links in (True, False):  # cp -r; a program that follows links
        copy = tmp_path / f"copy_{links}"
        shutil.copytree(tmp_path / "logs", copy, symlinks=links, copy_function=shutil.copyfile)
        found = latest_checkpoint(copy)
        assert found.parent == copy / newest.parent.relative_to(tmp_path / "logs")
    for path in copy.rglob("latest.pth"):  # a program that leaves links out
        path.unlink()
    assert latest_checkpoint(copy) == copy / newest.relative_to(tmp_path / "logs")


def test_runs_that_record_nothing_are_compared_by_time(tmp_path):
    newest = make_run(tmp_path, "a", None, 1)
    other = make_run(tmp_path, "b", None, 2)
    os.utime(other, (1, 1))
    assert latest_checkpoint(tmp_path) == newest
    os.utime(newest, ns=(2**63 - 1,) * 2)
    assert latest_checkpoint(tmp_path) == newest


@pytest.mark.parametrize("links", [True, False])
def test_latest_is_on_the_disk_before_anything_else_is_done(tmp_path, monkeypatch, links):
    """Its text, where links cannot be made, before it takes its name; and the name."""
    done = []

    def spy(function, name):
        def call(*args, **kwargs):
            done.append(name)
            return function(*args, **kwargs)

        return call

    def refuse(*_):
        raise OSError(95, "no links")

    path = tmp_path / "model-epoch_0_iter_1.pth"
    path.write_bytes(b"weights" * 100)
    monkeypatch.setattr(os, "fsync", spy(os.fsync, "fsync"))
    monkeypatch.setattr(os, "replace", spy(os.replace, "replace"))
    if not links:
        monkeypatch.setattr(os, "symlink", refuse)
    point_latest_at(path)
    assert done == (["replace", "fsync"] if links else ["fsync", "replace", "fsync"])
    assert follow(tmp_path / "latest.pth") == path


def test_kept_checkpoints_do_not_depend_on_the_times_of_files(tmp_path):
    """As in a copy of a run, which then goes on."""
    for step in (9, 10, 100):
        save_checkpoint(tmp_path / f"model-epoch_0_iter_{step}.pth", {"model": {}})
        os.utime(tmp_path / f"model-epoch_0_iter_{step}.pth", (2000 - step,) * 2)
    point_latest_at(tmp_path / "model-epoch_0_iter_100.pth")
    keeper = CheckpointKeeper(tmp_path, Records(checkpoint_every=1, keep_checkpoints=3))
    assert keeper.save({"model": {}, "epoch": 0, "step": 50}) is None  # resumed from 10
    assert [path.stem.rpartition("_")[2] for path in keeper.kept()] == ["10", "100", "50"]
