"""A kernel that PyTorch's next release breaks is left out, with one warning."""

import warnings

import pytest

from cpu_kernels import accelerate, accelerate_, sequential
from tests.cpu_kernels.test_cpu_kernels import model, views


def test_a_kernel_of_other_results_is_left_out(monkeypatch):
    """As in a release of PyTorch in which a function computes something else."""
    fused = sequential.fused_norm_act_dropout
    monkeypatch.setattr(
        sequential, "fused_norm_act_dropout", lambda layers, x: fused(layers, x) * 1.001
    )
    accelerate.works.cache_clear()
    try:
        with pytest.warns(UserWarning, match="FastSequential is left out: .*results differ by"):
            assert "FastSequential" not in accelerate_(model())
    finally:
        accelerate.works.cache_clear()


@pytest.mark.parametrize(
    "private", ["cpu_kernels.norm_act._NormActDropout.apply", "cpu_kernels.hooks.must_be_called"]
)
def test_what_pytorch_has_changed_is_left_out_with_one_warning(private, monkeypatch):
    """As in a release of PyTorch in which a private function is gone."""

    def gone(*_):
        raise AttributeError("it is gone")

    for module in ("norm_act", "hooks", "sequential", "occlusion"):
        target = f"cpu_kernels.{module}.{private.rsplit('.', 1)[1]}"
        if private == "cpu_kernels.hooks.must_be_called":
            monkeypatch.setattr(target, gone, raising=False)
    if "norm_act" in private:
        monkeypatch.setattr(private, gone)
    accelerate.works.cache_clear()
    try:
        with pytest.warns(UserWarning, match="FastSequential is left out: .*it is gone"):
            exchanged = accelerate_(model())
        assert "FastSequential" not in exchanged
        assert exchanged["FastConv2d"]
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            net = model()
            accelerate_(net)
        net(*views())
    finally:
        accelerate.works.cache_clear()
