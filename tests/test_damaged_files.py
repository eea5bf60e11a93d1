"""Checkpoints that are damaged, or made to harm, are refused in one line."""
import io
import random
import zipfile

import pytest
import torch

from checkpoints import load_checkpoint, save_checkpoint
from run_deepvoxels import main
from tests.conftest import write_scene
from tests.test_reliability import IN_CHECKPOINT
from tests.test_training import arguments, assert_same, final_checkpoint
from util import InputError


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A scene, and the checkpoint of two steps on it."""
    folder = tmp_path_factory.mktemp("trained")
    write_scene(folder / "scene" / "train", views=8)
    assert main(arguments(folder / "scene", folder / "logs", "--max_steps", 2)) == 0
    return folder / "scene", final_checkpoint(folder / "logs", 2)[1]


@pytest.fixture(scope="module")
def good(trained, tmp_path_factory):
    """A complete checkpoint's bytes, and a folder for damaged copies of it."""
    folder = tmp_path_factory.mktemp("damaged")
    save_checkpoint(folder / "good.pth", trained[1])
    return (folder / "good.pth").read_bytes(), folder


def assert_damage_is_seen(content, original, folder):
    """A damaged file is refused in one line, or holds exactly what the original held."""
    path = folder / "damaged.pth"
    path.write_bytes(content)
    try:
        loaded = load_checkpoint(path)
    except InputError as error:
        assert str(error).startswith(str(path))
        assert "\n" not in str(error)
    else:
        assert_same({part: original[part] for part in IN_CHECKPOINT}, {part: loaded[part] for part in IN_CHECKPOINT})


def damage(good, truncations, flips, seed):
    content, folder = good
    (folder / "original.pth").write_bytes(content)
    original, rng = load_checkpoint(folder / "original.pth"), random.Random(seed)
    for _ in range(truncations):
        assert_damage_is_seen(content[:rng.randrange(len(content))], original, folder)
    for _ in range(flips):
        flipped = bytearray(content)
        flipped[rng.randrange(len(content))] ^= rng.randrange(1, 256)
        assert_damage_is_seen(bytes(flipped), original, folder)


def test_truncated_and_flipped_checkpoints(good):
    damage(good, truncations=15, flips=15, seed=0)


@pytest.mark.long
def test_a_hundred_truncations_and_flips(good):
    damage(good, truncations=100, flips=100, seed=1)


def test_a_flip_in_a_weight_is_seen(trained, good):
    content, folder = good
    position = content.index(trained[1]["model"]["rendering_net.net.3.weight"].numpy().tobytes())
    flipped = bytearray(content)
    flipped[position] ^= 1
    (folder / "damaged.pth").write_bytes(bytes(flipped))
    with pytest.raises(InputError, match="damaged"):
        load_checkpoint(folder / "damaged.pth")


def test_compressed_records_are_not_unpacked(good, tmp_path):
    """A few KB that would unpack to a GB."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(good[0])) as source, \
            zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as bomb:
        for record in source.infolist():
            bomb.writestr(record.filename, bytes(1 << 20) if "/data/" in record.filename else source.read(record))
    path = tmp_path / "bomb.pth"
    path.write_bytes(buffer.getvalue())
    with pytest.raises(InputError, match="compressed"):
        load_checkpoint(path)


@pytest.mark.parametrize("content", [
    {"model": {"deepvoxels": torch.zeros(1).expand(1, 1000, 1000, 1000, 1000)}},
    {"model": {"deepvoxels": torch.zeros(3)}},
    {"model": {1: torch.zeros(3)}},
    {"model": [], "discriminator": 3},
    {"model": {"deepvoxels": "text"}},
])
def test_tensors_that_are_not_what_they_should_be(tmp_path, content, capfd):
    torch.save(content, tmp_path / "odd.pth")
    assert main(["--train_test", "test", "--data_root", "x", "--logging_root", str(tmp_path / "logs"),
                 "--checkpoint", str(tmp_path / "odd.pth")]) == 2
    assert capfd.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("spoil", [
    lambda weight: weight.fill_(float("nan")), lambda weight: weight.double(), lambda weight: weight[:1]])
def test_weights_that_are_not_finite_or_of_another_type_are_refused(trained, tmp_path, spoil, capfd):
    scene, checkpoint = trained
    model = {name: value.clone() for name, value in checkpoint["model"].items()}
    model["rendering_net.net.3.weight"] = spoil(model["rendering_net.net.3.weight"])
    torch.save({"model": model}, tmp_path / "spoiled.pth")
    assert main(["--train_test", "train", "--data_root", str(scene / "train"), "--logging_root", str(tmp_path / "logs"),
                 "--checkpoint", str(tmp_path / "spoiled.pth")]) == 2
    assert "rendering_net.net.3.weight" in capfd.readouterr().err
    assert not (tmp_path / "logs").exists()
