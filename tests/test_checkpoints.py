"""Checkpoints, ours and the original's."""
import json
import os
from pathlib import Path

import pytest
import torch

from checkpoints import CheckpointKeeper, load_checkpoint, load_weights, recorded_architecture, save_checkpoint
from deep_voxels import Architecture, DeepVoxels
from projection import SceneGeometry
from tests.test_goldens import GOLDEN, original_checkpoint
from util import InputError

GEOMETRY = SceneGeometry(8, 0.125, (0.0, 0.0, 0.0), 1.0, 16, 17.6, 8.0, 8.0)


@pytest.mark.parametrize("architecture", [
    Architecture(64, 16, 8, 4, 4), Architecture(128, 64, 4, 2, 4, True), Architecture(64, 64, 8, 3, 2),
    Architecture(64, 8, 12, 5, 6)])
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
    assert architecture == Architecture(**{flag: config[flag] for flag in Architecture.__dataclass_fields__})
    model = DeepVoxels(architecture, GEOMETRY)
    load_weights(model, checkpoint["model"], tmp_path / "original.pth", "flags")
    torch.testing.assert_close(model.state_dict()["deepvoxels"], original["model"]["deepvoxels"])


@pytest.mark.parametrize(("change", "complaint"), [
    (lambda state: state.pop("inpainting_net.in_layer.1.bias"), "lacks the tensor 'inpainting_net.in_layer.1.bias'"),
    (lambda state: state.update(extra=torch.zeros(1)), "has the tensor 'extra'"),
    (lambda state: state.update({"rendering_net.net.3.weight": torch.zeros(5)}), r"has shape \(5,\)"),
])
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
    keeper = CheckpointKeeper(tmp_path, every_steps=1, every_minutes=30.0, keep=1)
    for step in (1, 2):
        problem = keeper.save({"model": {}, "epoch": 0, "step": step})
    assert "model-epoch_0_iter_2.pth was saved" in problem
    assert "model-epoch_0_iter_1.pth" in problem
    assert not keeper.failed
    assert keeper.newest == tmp_path / "model-epoch_0_iter_2.pth"
