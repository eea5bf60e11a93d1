"""evaluation.pack: a small checkpoint that tests read like any other."""

import numpy as np
import pytest
import torch

from checkpoints import load_checkpoint, save_checkpoint
from evaluation import pack
from evaluation.output import read_frame
from machine.cli import run as run_command
from tests.helpers import render_arguments, run


def packed(out, *words):
    run_command(pack.PROG, pack.main, ["--out", str(out), *map(str, words)])
    return out


def test_packed_checkpoint_is_small_and_renders_the_same_frames(trained, tmp_path, capsys):
    scene, logs, checkpoint = trained
    path = packed(tmp_path / "model.pth", "--checkpoint", "latest", "--logging_root", logs)
    assert (
        path.stat().st_size
        < sum(tensor.numel() for tensor in checkpoint["model"].values()) * 2.5 + 2**17
    )
    assert f"{path}: " in capsys.readouterr().out
    content = load_checkpoint(path)
    assert content["step"] == 2
    assert str(scene).encode() not in path.read_bytes()  # of the machine that trained
    whole = tmp_path / "whole.pth"
    save_checkpoint(whole, checkpoint)
    frames = []
    for file in (whole, path):
        assert run(*render_arguments(scene / "train", tmp_path / file.stem, file)) == 0
        (folder,) = (tmp_path / file.stem).glob("test_traj/*/*")
        frames.append(np.stack([read_frame(folder, view).astype(int) for view in range(8)]))
    assert np.abs(frames[0] - frames[1]).max() <= 3  # of 255 gray levels


def test_what_chose_a_checkpoint_is_still_known(trained, tmp_path):
    """Else a test would not say that its own views did."""
    choice = {"step": 2, "psnr": 20.0, "split": "test", "views": 8, "fingerprint": "ab"}
    path = tmp_path / "best.pth"
    save_checkpoint(path, {**trained[2], "chosen_by": choice})
    assert (
        load_checkpoint(packed(tmp_path / "model.pth", "--checkpoint", path))["chosen_by"] == choice
    )


def test_the_averaged_weights_are_those_that_tests_use(trained, tmp_path):
    model = trained[2]["model"]
    average = {name: tensor + 1 for name, tensor in model.items()}
    path = tmp_path / "averaged.pth"
    save_checkpoint(path, {**trained[2], "average": average})
    weights = load_checkpoint(packed(tmp_path / "model.pth", "--checkpoint", path))["model"]
    assert weights.keys() == average.keys()
    assert all(
        torch.equal(weights[name], tensor if tensor.ndim < 2 else tensor.half())
        for name, tensor in average.items()
    )


@pytest.mark.parametrize("case", ["exists", "no folder", "no file", "too large", "no model"])
def test_bad_input_is_one_line_and_leaves_no_file(case, trained, tmp_path, capfd):
    path = tmp_path / "whole.pth"
    out = tmp_path / "model.pth"
    checkpoint = {**trained[2]}
    if case == "too large":
        name = next(name for name, tensor in checkpoint["model"].items() if tensor.ndim > 1)
        checkpoint["model"] = {
            **checkpoint["model"],
            name: torch.full_like(checkpoint["model"][name], 1e5),
        }
    elif case == "no model":
        checkpoint["model"] = {"weight": torch.zeros(2, 2)}
        checkpoint["options"] = {}
    if case != "no file":
        save_checkpoint(path, checkpoint)
    if case == "exists":
        out.write_text("mine")
    elif case == "no folder":
        out = tmp_path / "none" / "model.pth"
    with pytest.raises(SystemExit) as end:
        packed(out, "--checkpoint", path)
    assert end.value.code == 2
    error = capfd.readouterr().err
    assert error.count("\n") == 1
    named = {
        "exists": str(out),
        "no folder": f"error: {out}: No such file",
        "too large": "half precision",
    }
    assert named.get(case, str(path)) in error
    assert out.read_text() == "mine" if case == "exists" else not out.exists()
