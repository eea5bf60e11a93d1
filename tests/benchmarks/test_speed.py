"""What the benchmarks measure (docs/design.md, section 8)."""

import json
import time

import imageio.v2 as imageio
import pytest
import torch

from benchmarks import agreement, kernels, prepare, scaling, speed
from cpu_kernels import accelerate_, thresholds
from cpu_kernels.view_volumes import FastDeepVoxels
from deep_voxels import Architecture, DeepVoxels
from machine.runtime import Machine
from tests.helpers import CPU, GEOMETRY
from training.options import Learning
from util import InputError


def test_figures_are_consistent(tmp_path):
    speed.main(
        [
            "--preset",
            "small",
            "--device",
            "cpu",
            "--repeats",
            "1",
            "--json",
            str(tmp_path / "speed.json"),
        ]
    )
    figures = json.loads((tmp_path / "speed.json").read_text())
    assert figures["train_utilisation"] == pytest.approx(
        6.6 / figures["train_step_s"] / figures["peak_gflops_fp32"]
    )
    assert figures["frame_utilisation"] == pytest.approx(
        1.01 / figures["frame_batched_s"] / figures["peak_gflops_fp32"]
    )
    assert 0 < figures["train_utilisation"] < 1.5
    # counted on this code's arithmetic, which is about the original's
    assert 0.5 * 6.6 < figures["train_gflop"] < 1.2 * 6.6
    assert 0.5 * 1.01 < figures["frame_gflop"] < 1.2 * 1.01
    parts = figures["parts_s"]
    assert {
        "feature extraction",
        "lifting",
        "integration",
        "inpainting",
        "projection",
        "occlusion",
        "rendering",
        "discriminator",
        "backward",
        "optimizers",
    } <= parts.keys()
    assert 0.1 < figures["peak_memory_gib"] < 12


def test_the_parts_of_a_step_are_all_of_it():
    networks, step, _ = prepare.prepared_step(
        prepare.PRESETS["small"].architecture, Learning(), Machine("cpu")
    )
    seconds = []

    def timed_step():
        start = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - start)

    parts = speed.time_parts(networks, timed_step, CPU, repeats=1)
    assert seconds[0] <= sum(parts.values()) < seconds[0] + 0.1


def test_scaling_counts_what_grows(tmp_path, monkeypatch):
    """Arithmetic grows with each size, at most with its cube."""
    monkeypatch.setitem(
        prepare.PRESETS, "small", prepare.Preset(Architecture(64, 8, 4, 4, 4), 1, 1)
    )
    monkeypatch.setattr(
        scaling,
        "VALUES",
        {"img_sidelength": [64, 128], "grid_dim": [4, 8], "num_grid_feats": [4, 8]},
    )
    scaling.main(["--out", str(tmp_path), "--device", "cpu", "--repeats", "1"])
    results = json.loads((tmp_path / "scaling.json").read_text())
    for flag, values in scaling.VALUES.items():
        small, large = results[flag]
        assert [small[flag], large[flag]] == values
        for name in ("train_gflop", "frame_gflop"):
            assert 1 < large[name] / small[name] <= 8
        assert small["train_step_s"] > small["frame_s"] > 0
    assert imageio.imread(tmp_path / "scaling.png").shape[:2] == (480, 3 * 720)


def test_nothing_is_counted_of_a_graph(tmp_path, monkeypatch, capsys):
    def with_graph(parser, argv, parse=scaling.parse_options):
        options = parse(parser, argv)
        options.graph = True
        return options

    monkeypatch.setattr(scaling, "parse_options", with_graph)
    monkeypatch.setattr(prepare, "as_graph", lambda step, _: step)
    monkeypatch.setitem(
        prepare.PRESETS, "small", prepare.Preset(Architecture(64, 8, 4, 4, 4), 1, 1)
    )
    monkeypatch.setattr(scaling, "VALUES", {"grid_dim": [4, 8]})
    scaling.main(["--out", str(tmp_path), "--device", "cpu", "--repeats", "1"])
    results = json.loads((tmp_path / "scaling.json").read_text())["grid_dim"]
    assert [result["train_gflop"] for result in results] == [None, None]
    assert all(result["train_step_s"] > 0 for result in results)
    assert "train_gflop" not in capsys.readouterr().out
    assert imageio.imread(tmp_path / "scaling.png").shape[:2] == (480, 720)


def test_a_step_agrees_with_the_plain_models(monkeypatch, capsys):
    monkeypatch.setitem(
        prepare.PRESETS, "small", prepare.Preset(Architecture(64, 16, 8, 4, 4), 1, 1)
    )
    agreement.main(["--device", "cpu"])
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == list(
        agreement.LIMITS
    )
    with pytest.raises(SystemExit, match="1"):
        agreement.main(["--device", "cpu", "--precision", "bf16"])


@pytest.mark.parametrize(
    "wrong",
    [
        lambda gradient, small: -gradient,
        lambda gradient, small: gradient * (0 if small else 1),
        lambda gradient, small: gradient * (2 if small else 1),
        lambda gradient, small: gradient * float("nan"),
    ],
)
def test_wrong_gradients_do_not_agree(wrong):
    """Those of some parameters are smaller than any tolerance relative to the largest."""
    expected = [torch.randn(4, 3), 1e-3 * torch.randn(5), 1e-9 * torch.randn(1)]
    rounded = [gradient * (1 + 1e-3 * torch.randn_like(gradient)) for gradient in expected[:2]] + [
        -expected[2]
    ]
    found = agreement.gradient_differences(rounded, expected)
    assert all(found[name] <= agreement.LIMITS[name] for name in found)
    found = agreement.gradient_differences(
        [wrong(rounded[0], False), wrong(rounded[1], True), rounded[2]], expected
    )
    assert not all(found[name] <= agreement.LIMITS[name] for name in found)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--device", "cuda:99"], "--device cuda:99: PyTorch finds"),
        (["--device", "gpu"], "--device gpu: is unknown"),
        (["--device", "cpu", "--precision", "tf32"], "--precision tf32"),
    ],
)
def test_what_a_device_has_not_is_refused_before_anything_is_written(words, message, tmp_path):
    for benchmark, more in [
        (speed, []),
        (agreement, []),
        (scaling, ["--out", str(tmp_path / "out")]),
    ]:
        with pytest.raises(InputError, match=message):
            benchmark.main([*words, *more])
    assert not (tmp_path / "out").exists()


def test_a_graph_is_refused_where_none_is_taken(tmp_path, capsys):
    for benchmark, more in [(speed, []), (scaling, ["--out", str(tmp_path / "out")])]:
        with pytest.raises(InputError, match="--graph: --device cpu has no graphs"):
            benchmark.main(["--graph", "--device", "cpu", *more])
    assert not (tmp_path / "out").exists()
    for words in (["--graph"], ["--repeats", "3"]):  # one step is compared, as it is
        with pytest.raises(SystemExit, match="2"):
            agreement.main(["--device", "cpu", *words])
        assert f"unrecognized arguments: {words[0]}" in capsys.readouterr().err


def test_leaving_kernels_out_is_timed_and_undone(tmp_path, monkeypatch):
    monkeypatch.setitem(
        prepare.PRESETS, "small", prepare.Preset(Architecture(64, 8, 4, 4, 4), 1, 1)
    )
    before = vars(thresholds).copy()
    chosen = ["few_pixels", "FastOcclusionNet", "prepare_for_frames_"]
    kernels.main(["--turns", "2", "--only", *chosen, "--json", str(tmp_path / "kernels.json")])
    results = json.loads((tmp_path / "kernels.json").read_text())
    assert set(results) == set(chosen)
    assert set(results["few_pixels"]) == {"step", "frames", "frame"}
    assert all(
        0 < low <= middle <= high
        for timed in results.values()
        for middle, low, high in timed.values()
    )
    assert vars(thresholds) == before


def test_a_layer_without_its_kernel_is_plain_until_the_end():
    model = DeepVoxels(Architecture(64, 16, 8, 4, 4), GEOMETRY)
    accelerate_(model)
    with kernels.without("FastDeepVoxels", model):
        assert type(model) is DeepVoxels
    assert type(model) is FastDeepVoxels
