"""The three calls for a GPU that is lent for minutes, on a CPU at tiny size."""

import importlib
import json
import os
import subprocess
import sys
import tarfile
from contextlib import redirect_stderr, redirect_stdout

import pytest

from benchmarks import gpu, operations, prepare, speed
from deep_voxels import SIZES, Architecture
from tests.helpers import ROOT
from util import InputError


@pytest.fixture
def in_this_process(monkeypatch):
    """The commands that a call starts run here, where PyTorch is imported, on a tiny model."""

    def python(call, name, *words, seconds=None):
        kind, *more = map(str, words)
        path = call.folder / f"{name}.txt"
        with path.open("w") as file, redirect_stdout(file), redirect_stderr(file):
            if kind == "-c":
                exec(more[0], {})
                return True
            module = more.pop(0) if kind == "-m" else kind.removesuffix(".py")
            code = importlib.import_module(module).main(more)
        assert not code, name
        return True

    monkeypatch.setattr(gpu.Call, "python", python)
    tiny = Architecture(64, 16, 8, 4, 4)
    monkeypatch.setitem(SIZES, "small", tiny)
    monkeypatch.setitem(prepare.PRESETS, "small", prepare.Preset(tiny, 1, 1))
    monkeypatch.setattr(speed, "MATRIX", 64)
    monkeypatch.setattr(operations, "STEPS", 1)


def test_the_calls_measure_train_and_bring_home_what_is_worth_it(scene, tmp_path, in_this_process):
    """OUT is emptied between the calls."""
    out = tmp_path / "out"
    work = tmp_path / "work"
    more = ["--work", work, "--tiny"]
    brought = {
        "measure": {"measure.tar.gz"},
        "train": {"train.tar.gz", "comparison.png", "video.mp4"},
        "compile": {"compile.tar.gz", "medium.pth"},
    }
    for stage, files in brought.items():
        words = [stage, out, *([] if stage == "measure" else [scene]), *more]
        assert gpu.main([str(word) for word in words]) == 0
        assert {path.name for path in out.iterdir()} == files
        for path in out.iterdir():
            path.rename(tmp_path / path.name)
        out.rmdir()
    names = set()
    for stage in brought:
        with tarfile.open(tmp_path / f"{stage}.tar.gz") as tar:
            names |= {name for name in tar.getnames() if "test_traj" not in name}
    for name in [
        "measure/versions.txt",
        "measure/agreement.txt",
        "measure/speed_small_fp32_muon.json",
        "measure/operations.txt",
        "train/choice.json",
        "train/paper.txt",
        "train/paper_test.txt",
        "train/frames/paper_img_00002.png",
        "compile/medium_test.txt",
    ]:
        assert name in names
    assert "aten::convolution_backward" in (work / "measure" / "operations.txt").read_text()
    assert json.loads((work / "train" / "choice.json").read_text())["flags"][1] == "fp32"
    (metrics,) = work.glob("train/paper/test_traj/*/*/metrics.json")
    assert json.loads(metrics.read_text())["psnr"] > 0


def test_what_fails_is_named_and_the_rest_goes_on(scene, tmp_path):
    """In processes of their own, called from another folder."""
    for path in (scene / "train" / "rgb").iterdir():
        path.write_bytes(b"no image")
    measured = tmp_path / "work" / "measure"
    measured.mkdir(parents=True)
    figures = {"precision": "fp32", "train_step_s": 1.0, "compile": False}
    (measured / "speed_small_fp32_muon.json").write_text(json.dumps(figures))
    words = ["train", tmp_path / "out", scene, "--work", tmp_path / "work", "--tiny"]
    ended = subprocess.run(
        ["bash", ROOT / "benchmarks" / "gpu.sh", *map(str, words)],
        cwd=tmp_path,
        check=False,
        text=True,
        capture_output=True,
        env={**os.environ, "PYTHON": sys.executable},
    )
    assert ended.returncode == 1
    assert "failed: paper paper_test; see" in ended.stdout
    log = (tmp_path / "work" / "train" / "paper.txt").read_text()
    assert "is not a readable image" in log
    assert (tmp_path / "out" / "train.tar.gz").is_file()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train", "OUT"], "train: needs a SCENE"),
        (["compile", "OUT", "nowhere"], "nowhere: has no folder train"),
        (["train", "OUT", "SCENE"], "no speed was measured there; call measure first"),
    ],
)
def test_a_call_says_what_it_lacks_and_writes_nothing(words, message, scene, tmp_path):
    places = {"OUT": tmp_path / "out", "SCENE": scene}
    with pytest.raises(InputError, match=message):
        gpu.main([*(str(places.get(word, word)) for word in words), "--work", str(tmp_path / "w")])
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "w").exists()


def test_what_takes_the_most_steps_trains_for_as_long_as_there_is_time():
    plain = [
        {"precision": "tf32", "train_step_s": 0.02, "compile": False, "command_s": 20.0},
        {"precision": "bf16", "train_step_s": 0.01, "compile": False, "command_s": 20.0},
    ]
    compiled = {"precision": "bf16", "train_step_s": 0.004, "compile": True, "command_s": 120.0}
    choice = gpu.most_steps(plain, 300.0, 100_000)
    assert choice["flags"] == ["--precision", "bf16"]
    assert 0.7 * 300 <= choice["steps"] * 0.01 <= 300
    assert "tf32 0.02 s, bf16 0.01 s; training takes --precision bf16" in choice["line"]
    choice = gpu.most_steps([*plain, compiled], 300.0, 100_000)
    assert choice["flags"] == ["--precision", "bf16", "--compile"]
    assert 0.7 * 180 <= choice["steps"] * 0.004 <= 180
    assert "bf16 compiled 0.004 s" in choice["line"]
    assert gpu.most_steps([*plain, compiled], 150.0, 100_000)["flags"] == ["--precision", "bf16"]
    assert gpu.most_steps(plain, 300.0, 100)["steps"] == 100
    with pytest.raises(InputError, match="no step with MUON was measured"):
        gpu.most_steps([], 300.0, 100)


def test_a_large_file_comes_home_in_parts(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu, "MAX_BYTES", 10)
    (tmp_path / "large").write_bytes(bytes(range(25)))
    target = tmp_path / "home"
    for _ in range(2):
        gpu.bring_home(tmp_path / "large", target)
        parts = sorted(tmp_path.glob("home*"))
        assert [part.name for part in parts] == ["home.0", "home.1", "home.2"]
        assert b"".join(part.read_bytes() for part in parts) == bytes(range(25))
