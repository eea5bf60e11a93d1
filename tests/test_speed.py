"""What the benchmarks measure (docs/design.md, section 8)."""
import json
import subprocess

import imageio.v2 as imageio
import pytest

from benchmarks import scaling, speed
from deep_voxels import Architecture
from tests.helpers import ROOT


def test_figures_are_consistent(tmp_path):
    speed.main(["--preset", "small", "--device", "cpu", "--repeats", "1", "--json", str(tmp_path / "speed.json")])
    figures = json.loads((tmp_path / "speed.json").read_text())
    assert figures["train_utilisation"] == pytest.approx(
        6.6 / figures["train_step_s"] / figures["peak_gflops_fp32"])
    assert figures["frame_utilisation"] == pytest.approx(
        1.01 / figures["frame_batched_s"] / figures["peak_gflops_fp32"])
    assert 0 < figures["train_utilisation"] < 1.5
    # counted on this code's arithmetic, which is about the original's
    assert 0.5 * 6.6 < figures["train_gflop"] < 1.2 * 6.6
    assert 0.5 * 1.01 < figures["frame_gflop"] < 1.2 * 1.01
    parts = figures["parts_s"]
    assert {"feature extraction", "lifting", "integration", "inpainting", "projection", "occlusion", "rendering",
            "discriminator", "backward", "optimizers"} <= parts.keys()
    assert sum(parts.values()) == pytest.approx(figures["train_step_s"], rel=0.5)
    assert 0.1 < figures["peak_memory_gib"] < 12


def test_scaling_counts_what_grows(tmp_path, monkeypatch):
    """Arithmetic grows with each size, at most with its cube."""
    monkeypatch.setitem(speed.PRESETS, "small", speed.Preset(Architecture(64, 8, 4, 4, 4), 1, 1))
    monkeypatch.setattr(scaling, "VALUES", {"img_sidelength": [64, 128], "grid_dim": [4, 8],
                                            "num_grid_feats": [4, 8]})
    scaling.main(["--out", str(tmp_path), "--device", "cpu", "--repeats", "1"])
    results = json.loads((tmp_path / "scaling.json").read_text())
    for flag, values in scaling.VALUES.items():
        small, large = results[flag]
        assert [small[flag], large[flag]] == values
        for name in ("train_gflop", "frame_gflop"):
            assert 1 < large[name] / small[name] <= 8
        assert small["train_step_s"] > small["frame_s"] > 0
    assert imageio.imread(tmp_path / "scaling.png").shape[:2] == (480, 3 * 720)


def test_the_gpu_script_parses_and_says_how_it_is_called():
    assert subprocess.run(["bash", "-n", "benchmarks/gpu.sh"], cwd=ROOT, check=False).returncode == 0
    called = subprocess.run(["bash", "benchmarks/gpu.sh"], cwd=ROOT, check=False, capture_output=True, text=True)
    assert (called.returncode, called.stderr) == (2, "usage: bash benchmarks/gpu.sh OUT [NERF_LEGO]\n")
