"""Layers with their own arithmetic on the CPU equal PyTorch's, gradients and statistics too."""
from functools import partial

import pytest
import torch
from torch import nn

from cpu_kernels import narrow, winograd
from cpu_kernels.conv2d import Conv2d, DoublingConv2d, freeze_
from cpu_kernels.lean import ReflectionPad2d
from cpu_kernels.narrow import (
    DoublingConv3d,
    FoldedConv3d,
    HalvingConv3d,
    NarrowBatchNorm3d,
)
from cpu_kernels.padding import LEAST_ELEMENTS, ReplicationPad3d
from cpu_kernels.winograd import LEAST_CHANNELS, MOST_WEIGHTS
from custom_layers import OcclusionNet, _MeanOverDepth
from pytorch_prototyping.blocks import Conv3dSame, conv3d_same

CHANNELS_LAST = torch.channels_last_3d


def takes(net, x, name):
    """Whether what computed `net(x)`, but for its last few views and sums, is of this name."""
    node = net(x).grad_fn
    while node is not None and name not in node.name():
        node = node.next_functions[0][0] if node.next_functions else None
    return node is not None


def results(function, *inputs):
    """A function's output and the gradients of its inputs, for a weighted sum of the output."""
    output = function(*inputs)
    weights = torch.linspace(-1, 2, output.numel(), dtype=output.dtype).view_as(output)
    return output, *torch.autograd.grad((output * weights).sum(), inputs)


@pytest.mark.parametrize("remembered", [0, narrow.MOST_REMEMBERED])
@pytest.mark.parametrize(("c", "c_out", "has_bias"), [(5, 1, True), (5, 3, False), (16, 4, True)])
def test_folded_convolution(c, c_out, has_bias, remembered, monkeypatch):
    monkeypatch.setattr(narrow, "MOST_REMEMBERED", remembered)
    x = torch.randn(2, c, 6, 8, 10, dtype=torch.float64).contiguous(memory_format=CHANNELS_LAST).requires_grad_()
    weight = torch.randn(c_out, c, 3, 3, 3, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(c_out, dtype=torch.float64, requires_grad=True)
    inputs = (x, weight, bias)[:2 + has_bias]
    assert "FoldedConv3d" in conv3d_same(*inputs).grad_fn.name()
    torch.testing.assert_close(results(conv3d_same, *inputs), results(
        lambda x, *conv: nn.functional.conv3d(nn.ReplicationPad3d(1)(x), *conv), *inputs))


def test_folded_convolution_of_data_needs_no_gradient_of_it():
    weight = torch.randn(1, 2, 3, 3, 3, requires_grad=True)
    FoldedConv3d.apply(torch.randn(2, 2, 4, 4, 4), weight, None).sum().backward()
    assert weight.grad.abs().min() > 0


def test_folded_convolution_in_bfloat16():
    x, weight = torch.randn(2, 4, 6, 6, 6, requires_grad=True), torch.randn(2, 4, 3, 3, 3, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = results(conv3d_same, x, weight)
    assert "FoldedConv3d" in rounded[0].grad_fn.name()
    assert [result.dtype for result in rounded] == [torch.bfloat16, torch.float32, torch.float32]
    for one, other in zip(rounded, results(conv3d_same, x, weight), strict=True):
        assert (one - other).norm() < 0.02 * other.norm()


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("layer", "plain", "function", "shape"), [
    (HalvingConv3d, nn.Conv3d.forward, "PermuteBackward0", (2, 3, 6, 8, 10)),
    (DoublingConv3d, nn.ConvTranspose3d.forward, "_DoubledConv3dBackward", (2, 5, 3, 4, 2))])
def test_strided_convolutions_of_few_channels(layer, plain, function, shape, bias):
    net = layer(shape[1], 2, bias=bias).double()
    x = torch.randn(shape, dtype=torch.float64).contiguous(memory_format=CHANNELS_LAST).requires_grad_()
    last = net(x).grad_fn
    assert function in (last.name(), last.next_functions[0][0].name())
    torch.testing.assert_close(results(lambda x, *_: net(x), x, *net.parameters()),
                               results(lambda x, *_: plain(net, x), x, *net.parameters()))


def test_a_folded_convolution_of_one_volume_is_for_frames():
    x, weight = torch.randn(1, 16, 40, 40, 40), torch.randn(4, 16, 3, 3, 3, requires_grad=True)
    assert "FoldedConv3d" not in conv3d_same(x, weight).grad_fn.name()
    with torch.inference_mode():
        folded = conv3d_same(x, weight)
    torch.testing.assert_close(folded, conv3d_same(x, weight), atol=1e-4, rtol=0)


@pytest.mark.parametrize("size", [(4, 16, 16), (16, 64, 64)])
def test_padding_keeps_the_dtype_under_autocast(size):
    for pad, shape in [(ReplicationPad3d(1), (2, 4, *size)), (ReflectionPad2d(1), (2, 8, *size[1:]))]:
        x = torch.randn(shape, dtype=torch.bfloat16)
        with torch.autocast("cpu", torch.bfloat16):
            assert pad(x).dtype == torch.bfloat16


@pytest.mark.parametrize("margin", [0, 1, 2])
def test_padding_by_copies(margin):
    x = torch.randn(2, 4, 32, 32, 32, requires_grad=True)
    assert x.numel() >= LEAST_ELEMENTS
    pad = ReplicationPad3d(margin)
    assert pad(x).grad_fn.name() == "_ReplicationPad3dBackward"
    torch.testing.assert_close(results(pad, x), results(nn.ReplicationPad3d(margin), x))


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("height", "width", "stride", "tiled"), [
    (34, 34, 1, True), (18, 66, 1, True), (33, 34, 1, False), (6, 66, 1, False), (34, 34, 2, False)])
def test_winograd(bias, height, width, stride, tiled):
    c, c_out = LEAST_CHANNELS, LEAST_CHANNELS + 64
    conv = Conv2d(c, c_out, 3, stride, bias=bias)
    x = torch.randn(3, c, height, width, requires_grad=True)
    assert takes(conv, x, "WinogradConv2d") == tiled
    actual = results(lambda x, *_: conv(x), x, *conv.parameters())
    expected = results(lambda x, *_: nn.Conv2d.forward(conv, x), x, *conv.parameters())
    for one, other in zip(actual, expected, strict=True):
        assert (one - other).norm() < 1e-5 * other.norm()
    freeze_(conv)
    with torch.inference_mode():
        torch.testing.assert_close(conv(x), expected[0], atol=1e-4, rtol=0)
        assert (conv.transformed is not None) == tiled


def test_tiles_take_their_memory_only_where_it_is_worth_it():
    conv = Conv2d(LEAST_CHANNELS, MOST_WEIGHTS // (9 * LEAST_CHANNELS) + 1, 3)
    x = torch.randn(1, LEAST_CHANNELS, 34, 34)
    assert takes(conv, x, "Convolution")
    with torch.no_grad():
        assert winograd.fits_tiles(x, conv.weight)


@pytest.mark.parametrize(("layer", "shape"), [
    (partial(Conv2d, kernel_size=3), (2, LEAST_CHANNELS, 34, 34)), (partial(Conv2d, kernel_size=3), (2, 64, 4, 4)),
    (DoublingConv2d, (2, 64, 4, 4))])
def test_autocast_takes_pytorchs_convolutions(layer, shape):
    net, x = layer(shape[1], LEAST_CHANNELS, bias=True), torch.randn(shape)
    assert not takes(net, x, "Convolution")
    with torch.autocast("cpu", torch.bfloat16):
        assert takes(net, x, "Convolution")
        assert net(x).dtype == torch.bfloat16


@pytest.mark.parametrize(("net", "shape"), [
    (partial(Conv2d, LEAST_CHANNELS, LEAST_CHANNELS, 3), (2, LEAST_CHANNELS, 34, 34)),
    (partial(Conv2d, 64, 64, 3), (2, 64, 4, 4)), (partial(DoublingConv2d, 64, 64, bias=True), (2, 64, 4, 4)),
    (partial(DoublingConv3d, 4, 4, bias=True), (2, 4, 16, 16, 16)),
    (partial(Conv3dSame, 4, 4, 3), (2, 4, 32, 32, 32)), (partial(ReplicationPad3d, 1), (2, 4, 32, 32, 32))])
def test_compiled_graphs_hold_pytorchs_own_layers(net, shape, monkeypatch):
    """Others would keep the compiler busy without end: chains of copies into slices."""
    net, x, plain = net(), torch.randn(shape, requires_grad=True), ("Convolution", "ReplicationPad3D")
    assert not any(takes(net, x, name) for name in plain)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert any(takes(net, x, name) for name in plain)


def test_compiled_graphs_collapse_all_planes_at_once(monkeypatch):
    net = OcclusionNet(4, frustum_depth=8, proj_sidelength=8)
    volumes = torch.randn(2, 4, 8, 8, 8)
    collapsed, depth = net(volumes)
    assert collapsed.grad_fn.name() == "_MeanOverDepthBackward"
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    compiled, _ = net(volumes)
    assert compiled.grad_fn.name() == "MeanBackward1"
    torch.testing.assert_close(compiled, collapsed)


@pytest.mark.parametrize("channels", [1, 4])
def test_narrow_batch_norm(channels):
    x = (100 + torch.randn(2, channels, 8, 4, 4)).contiguous(memory_format=CHANNELS_LAST).requires_grad_()
    narrow, plain = NarrowBatchNorm3d(channels), nn.BatchNorm3d(channels).double()
    with torch.no_grad():
        for tensor in (narrow.weight, narrow.bias):
            tensor.normal_()
    plain.load_state_dict(narrow.state_dict())
    assert "_BatchNormOfRows" in results(lambda x: narrow(x), x)[0].grad_fn.name()
    plain(x.double())
    actual = results(lambda x, *_: narrow(x), x, narrow.weight, narrow.bias)
    expected = results(lambda x, *_: plain(x), x.detach().double().requires_grad_(), plain.weight, plain.bias)
    for one, other in zip([*actual, *narrow.buffers()], [*expected, *plain.buffers()], strict=True):
        torch.testing.assert_close(one.double(), other.double(), atol=2e-3, rtol=1e-4)
    narrow.eval(), plain.eval()
    torch.testing.assert_close(narrow(x).double(), plain(x.double()), atol=1e-3, rtol=0)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("layer", "plain", "shape"), [
    (partial(Conv2d, kernel_size=4, stride=2), nn.Conv2d.forward, (2, 64, 6, 10)),
    (partial(Conv2d, kernel_size=3), nn.Conv2d.forward, (1, 64, 3, 4)),
    (DoublingConv2d, nn.ConvTranspose2d.forward, (2, 64, 3, 4)),
    (DoublingConv2d, nn.ConvTranspose2d.forward, (1, 64, 1, 1))])
def test_convolutions_of_few_pixels(layer, plain, shape, bias):
    net = layer(shape[1], 5, bias=bias).double()
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    assert not takes(net, x, "Convolution")
    assert takes(net, x.new_ones(2, shape[1], 20, 20), "Convolution")
    torch.testing.assert_close(results(lambda x, *_: net(x), x, *net.parameters()),
                               results(lambda x, *_: plain(net, x), x, *net.parameters()))


def test_mean_over_depth():
    visibility = torch.rand(2, 1, 4, 3, 3, dtype=torch.float64, requires_grad=True)
    volumes = torch.randn(2, 5, 4, 3, 3, dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(results(_MeanOverDepth.apply, visibility, volumes),
                               results(lambda w, x: (w * x).mean(dim=2), visibility, volumes))
