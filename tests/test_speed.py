"""What the benchmarks measure (docs/design.md, section 8)."""
import json
import subprocess

import imageio.v2 as imageio
import pytest

from benchmarks import kernels, scaling, speed
from cpu_kernels import accelerate_, thresholds
from cpu_kernels.view_volumes import FastDeepVoxels
from deep_voxels import Architecture, DeepVoxels
from tests.helpers import GEOMETRY, ROOT


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


def test_leaving_kernels_out_is_timed_and_undone(tmp_path, monkeypatch):
    monkeypatch.setitem(speed.PRESETS, "small", speed.Preset(Architecture(64, 8, 4, 4, 4), 1, 1))
    before = vars(thresholds).copy()
    chosen = ["few_pixels", "FastOcclusionNet", "prepare_for_frames_"]
    kernels.main(["--turns", "2", "--only", *chosen, "--json", str(tmp_path / "kernels.json")])
    results = json.loads((tmp_path / "kernels.json").read_text())
    assert set(results) == set(chosen)
    assert set(results["few_pixels"]) == {"step", "frames", "frame"}
    assert all(0 < low <= middle <= high for timed in results.values() for middle, low, high in timed.values())
    assert vars(thresholds) == before


def test_a_layer_without_its_kernel_is_plain_until_the_end():
    model = DeepVoxels(Architecture(64, 16, 8, 4, 4), GEOMETRY)
    accelerate_(model)
    with kernels.without("FastDeepVoxels", model):
        assert type(model) is DeepVoxels
    assert type(model) is FastDeepVoxels
