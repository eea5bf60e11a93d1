"""One model: a subclass, a forward or a layer that is exchanged takes effect with the CPU kernels
too."""

import warnings

import pytest
import torch
from torch import nn

import custom_layers
import deep_voxels
from cpu_kernels import accelerate_, thresholds
from deep_voxels import DeepVoxels
from tests.cpu_kernels import differ, model, outputs


class MyOcclusionNet(custom_layers.OcclusionNet):
    def forward(self, volumes):
        collapsed, depth = super().forward(volumes)
        return 2 * collapsed, depth


class MyIntegrationNet(custom_layers.IntegrationNet):
    def forward(self, observation, state):
        volume, update, reset = super().forward(observation, state)
        return 2 * volume, update, reset


class MyModel(DeepVoxels):
    def canonical_view_volumes(self, inpainted, cam2world):
        return 2 * super().canonical_view_volumes(inpainted, cam2world)


class MyNorm(nn.BatchNorm2d):
    def forward(self, x):
        return 2 * super().forward(x)


def test_a_subclass_is_left_as_it_is_with_a_warning(monkeypatch):
    monkeypatch.setattr(thresholds, "LEAN_MIN_ELEMENTS", 1)
    monkeypatch.setattr(deep_voxels, "OcclusionNet", MyOcclusionNet)
    monkeypatch.setattr(deep_voxels, "IntegrationNet", MyIntegrationNet)
    monkeypatch.setattr(deep_voxels, "DeepVoxels", MyModel)

    def build():
        net = model()
        for part in net.modules():
            if type(part) is nn.BatchNorm2d:
                part.__class__ = MyNorm
        return net

    plain = outputs(build())
    fast = build()
    with pytest.warns(UserWarning) as warned:
        exchanged = accelerate_(fast)
    messages = [str(warning.message) for warning in warned]
    for kernel, subclass, base in [
        ("FastDeepVoxels", "MyModel", "DeepVoxels"),
        ("FastIntegrationNet", "MyIntegrationNet", "IntegrationNet"),
        ("FastOcclusionNet", "MyOcclusionNet", "OcclusionNet"),
    ]:
        wanted = f"{kernel} is left out: {subclass} is a subclass of {base}."
        assert sum(message.startswith(wanted) for message in messages) == 1
        assert kernel not in exchanged
    assert not differ(outputs(fast), plain)


def test_a_forward_of_one_module_takes_effect(monkeypatch):
    """Also of a layer that a kernel would compute together with its neighbours."""
    monkeypatch.setattr(thresholds, "LEAN_MIN_ELEMENTS", 1)

    def changed(net):
        for part in net.modules():
            if isinstance(part, (nn.ReLU, nn.ReplicationPad3d)):
                part.forward = lambda x, forward=part.forward: 0.5 * forward(x)
        return net

    plain = outputs(changed(model()))
    assert differ(plain, outputs(model()))
    before = changed(model())
    accelerate_(before)
    after = model()
    accelerate_(after)
    assert not differ(outputs(before), plain)
    assert not differ(outputs(changed(after)), plain)


def test_a_layer_that_is_replaced_later_takes_effect():
    def changed(net):
        torch.manual_seed(2)
        net.occlusion_net.occlusion_prep = nn.Sequential(
            custom_layers.Conv3dSame(5, 4, 5), nn.ReLU()
        )
        return net

    plain = outputs(changed(model()))
    fast = model()
    accelerate_(fast)
    with pytest.warns(UserWarning, match="FastOcclusionNet is left out: the layers of"):
        assert not differ(outputs(changed(fast)), plain)


@pytest.mark.parametrize("name", ["new_integration", "reset_old_net"])
@pytest.mark.parametrize("kernel_size", [3, 5])
def test_layers_of_the_gru_that_are_replaced_later_take_effect(kernel_size, name):
    """Layers after a convolution of the same kind are computed; another convolution is left to
    PyTorch."""

    def changed(net):
        torch.manual_seed(2)
        layers = nn.Sequential(
            nn.ReplicationPad3d(kernel_size // 2),
            nn.Conv3d(7, 1 if "net" in name else 4, kernel_size),
            nn.Tanh(),
        )
        setattr(net.integration_net, name, layers)
        return net

    plain = outputs(changed(model()))
    assert differ(plain, outputs(model()))
    fast = model()
    accelerate_(fast)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        assert not differ(outputs(changed(fast)), plain)
    left_out = [str(warning.message) for warning in warned]
    assert len(left_out) == (kernel_size == 5), left_out
    assert all("FastIntegrationNet is left out: the layers of" in message for message in left_out)
