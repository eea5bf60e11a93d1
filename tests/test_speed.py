"""The benchmark's figures (DESIGN, section 8)."""
import json
import sys

import pytest

from benchmarks import speed


def test_figures_are_consistent(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["speed", "--preset", "small", "--device", "cpu", "--repeats", "1",
                                      "--json", str(tmp_path / "speed.json")])
    assert speed.main() == 0
    figures = json.loads((tmp_path / "speed.json").read_text())
    assert figures["train_utilisation"] == pytest.approx(
        6.6 / figures["train_step_s"] / figures["peak_gflops_fp32"])
    assert figures["frame_utilisation"] == pytest.approx(
        1.01 / figures["frame_batched_s"] / figures["peak_gflops_fp32"])
    assert 0 < figures["train_utilisation"] < 1.5
    # counted on this code's arithmetic, about that of the original
    assert 0.5 * 6.6 < figures["train_gflop"] < 1.2 * 6.6
    assert 0.5 * 1.01 < figures["frame_gflop"] < 1.2 * 1.01
    parts = figures["parts_s"]
    assert {"feature_extractor", "lifting", "integration_net", "inpainting_net", "projection", "occlusion_net",
            "rendering_net", "discriminator", "losses and backward", "optimizers"} <= parts.keys()
    assert 0.1 < figures["peak_memory_gib"] < 12
