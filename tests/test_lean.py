"""Layers that remember less than PyTorch's own compute the same."""
import pytest
import torch
from torch import nn

from cpu_kernels import lean as lean_module
from cpu_kernels.lean import BatchNormAct2d, ReflectionPad2d, activation
from pytorch_prototyping.blocks import UpBlock

MAP = 2 * 16 * 32 * 32 * 4  # bytes


@pytest.fixture(autouse=True)
def maps_are_large(monkeypatch):
    monkeypatch.setattr(lean_module, "LEAST_ELEMENTS", 1)


def layers(lean: bool, slope: float) -> nn.Sequential:
    if lean:  # dropout by a half scales by 2, which no dtype rounds
        return nn.Sequential(BatchNormAct2d(16, slope, dropout=0.5), ReflectionPad2d(1))
    return nn.Sequential(nn.BatchNorm2d(16), activation(slope), nn.Dropout2d(0.5), nn.ReflectionPad2d(1))


@pytest.mark.parametrize("slope", [0.0, 0.2])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_lean_layers_equal_pytorchs(slope, memory_format, dtype):
    x = torch.randn(2, 16, 10, 12, dtype=dtype).contiguous(memory_format=memory_format)
    upstream, weight, bias = torch.randn(2, 16, 12, 14, dtype=dtype), torch.randn(16), torch.randn(16)
    results = []
    for lean in (False, True):
        net, of_x = layers(lean, slope), x.clone().requires_grad_()
        net[0].load_state_dict({**net[0].state_dict(), "weight": weight, "bias": bias})
        torch.manual_seed(0)
        y = net(of_x)
        y.backward(upstream)
        results.append((y, of_x.grad, net[0].weight.grad, net[0].bias.grad, *net[0].buffers()))
        with torch.no_grad():
            results[-1] += (net.eval()(x),)
    torch.testing.assert_close(*results)


def test_the_backward_pass_needs_two_maps_a_convolution():
    """What is kept is the batch norm's input and the convolution's, padded."""
    block = UpBlock(16, 16, dropout=0.1).to(memory_format=torch.channels_last)
    kept = {}

    def keep(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        block(torch.randn(2, 16, 16, 16, requires_grad=True))
    weights = sum(parameter.nbytes for parameter in block.parameters())
    assert MAP < sum(kept.values()) - weights < 3.6 * MAP  # the input of a quarter, two of norms, one padded
