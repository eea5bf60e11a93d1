"""The CPU kernels: the plain model and its fast twin have the same names, results and gradients;
every hook fires."""

import copy
from functools import partial

import pytest
import torch
from torch import nn

from cpu_kernels import (
    accelerate_,
    conv3d,
    prepare_for_frames_,
    thresholds,
)
from custom_layers import IntegrationNet, OcclusionNet
from deep_voxels import Architecture, DeepVoxels
from losses import PatchDiscriminator
from machine.runtime import channels_last_
from projection import SceneGeometry
from pytorch_prototyping.blocks import Conv3dSame, norm_act_dropout
from tests.conftest import hemisphere_poses

MIN_CHANNELS = thresholds.WINOGRAD_MIN_CHANNELS


def norm_act(slope: float, dropout: float, channels: int = 6) -> nn.Sequential:
    return nn.Sequential(*norm_act_dropout(channels, slope, dropout))


# What is accelerated, the shapes of its inputs, the layers that it then never calls, and whether it
# knows bfloat16.
CASES = {
    "matrix product": (partial(nn.Conv2d, 64, 5, 3), [(1, 64, 3, 4)], [nn.Conv2d], False),
    "matrix product, stride 2": (
        partial(nn.Conv2d, 64, 5, 4, 2, bias=False),
        [(2, 64, 6, 10)],
        [nn.Conv2d],
        False,
    ),
    "columns that no window sees": (
        partial(nn.Conv2d, 5, 3, 4, 2),
        [(2, 5, 7, 9)],
        [],
        True,
    ),
    "transposed matrix product": (
        partial(nn.ConvTranspose2d, 64, 5, 4, 2, 1),
        [(2, 64, 3, 4)],
        [nn.ConvTranspose2d],
        False,
    ),
    "transposed matrix product of a pixel": (
        partial(nn.ConvTranspose2d, 64, 5, 4, 2, 1, bias=False),
        [(1, 64, 1, 1)],
        [nn.ConvTranspose2d],
        False,
    ),
    "Winograd": (
        partial(nn.Conv2d, MIN_CHANNELS, MIN_CHANNELS + 64, 3),
        [(1, MIN_CHANNELS, 34, 34)],
        [nn.Conv2d],
        False,
    ),
    "Winograd, height is not width": (
        partial(nn.Conv2d, MIN_CHANNELS, MIN_CHANNELS, 3, bias=False),
        [(3, MIN_CHANNELS, 18, 26)],
        [nn.Conv2d],
        False,
    ),
    "folded": (
        partial(Conv3dSame, 5, 3, 3),
        [(2, 5, 6, 8, 10)],
        [nn.Conv3d, nn.ReplicationPad3d],
        True,
    ),
    "folded, many channels in": (
        partial(Conv3dSame, 16, 4, 3, bias=False),
        [(2, 16, 6, 8, 10)],
        [nn.Conv3d, nn.ReplicationPad3d],
        True,
    ),
    "in halves": (partial(nn.Conv3d, 5, 3, 3), [(1, 5, 8, 8, 8)], [], True),
    "doubling": (
        partial(nn.ConvTranspose3d, 5, 2, 4, 2, 1),
        [(2, 5, 3, 4, 2)],
        [nn.ConvTranspose3d],
        True,
    ),
    "batch norm by rows": (partial(nn.BatchNorm3d, 4), [(2, 4, 8, 4, 4)], [nn.BatchNorm3d], True),
    "batch norm by rows of a channel": (
        partial(nn.BatchNorm3d, 1),
        [(2, 1, 8, 4, 4)],
        [nn.BatchNorm3d],
        True,
    ),
    "norm and ReLU": (partial(norm_act, 0.0, 0.0), [(2, 6, 5, 4)], [nn.BatchNorm2d, nn.ReLU], True),
    "norm, LeakyReLU and dropout": (
        partial(norm_act, 0.2, 0.5),
        [(2, 6, 5, 4)],
        [nn.BatchNorm2d, nn.LeakyReLU],
        True,
    ),
    "reflection": (partial(nn.ReflectionPad2d, 1), [(2, 3, 4, 5)], [nn.ReflectionPad2d], True),
    "reflection of two rows": (
        partial(nn.ReflectionPad2d, 1),
        [(2, 3, 2, 3)],
        [nn.ReflectionPad2d],
        True,
    ),
    "window means": (partial(nn.AvgPool2d, 7, 1), [(2, 3, 9, 11)], [nn.AvgPool2d], True),
    "occlusion": (partial(OcclusionNet, 3, 8, 8), [(2, 3, 8, 8, 8)], [], True),
    "GRU": (partial(IntegrationNet, 3, 8), [(1, 3, 8, 8, 8), (1, 3, 8, 8, 8)], [], True),
}
LAST = {4: torch.channels_last, 5: torch.channels_last_3d}


@pytest.fixture(autouse=True)
def kernels_apply_to_small_maps(monkeypatch):
    monkeypatch.setattr(thresholds, "LEAN_MIN_ELEMENTS", 1)


def twins(build) -> tuple[nn.Module, nn.Module]:
    """A plain module whose norms have weights and biases of their own, and its accelerated copy."""
    plain = build()
    for norm in plain.modules():
        if isinstance(norm, nn.modules.batchnorm._BatchNorm):
            nn.init.uniform_(norm.weight, 0.5, 2)
            nn.init.normal_(norm.bias)
            nn.init.normal_(norm.running_mean)
            nn.init.uniform_(norm.running_var, 0.5, 2)
    wrapped = nn.ModuleList([copy.deepcopy(plain)])
    assert accelerate_(channels_last_(wrapped))
    return plain, wrapped[0]


def random_inputs(shapes, dtype) -> list[torch.Tensor]:
    return [
        torch.randn(shape, dtype=dtype).contiguous(memory_format=LAST[len(shape)]).requires_grad_()
        for shape in shapes
    ]


def results(module: nn.Module, inputs, dropout_seed: int = 1) -> list[torch.Tensor]:
    """Outputs, and the gradients of inputs and parameters for a weighted sum of the first output;
    then the buffers."""
    torch.manual_seed(dropout_seed)
    outputs = module(*inputs)
    outputs = list(outputs) if isinstance(outputs, tuple) else [outputs]
    weights = torch.linspace(-1, 2, outputs[0].numel(), dtype=outputs[0].dtype).view_as(outputs[0])
    gradients = torch.autograd.grad((outputs[0] * weights).sum(), [*inputs, *module.parameters()])
    return [*outputs, *gradients, *(buffer.clone() for buffer in module.buffers())]


def assert_near(actual: list[torch.Tensor], expected: list[torch.Tensor], tolerance: float):
    """Equal types, and differences within a share of the largest value or norm."""
    for one, other in zip(actual, expected, strict=True):
        assert (one.dtype, one.shape) == (other.dtype, other.shape)
        error = (one - other).detach().double().norm()
        size = other.detach().double().norm()
        assert error <= tolerance * max(size, 0.1 * expected[0].detach().double().norm())


def forbid(monkeypatch, layers: list[type]):
    def fail(layer, *_):
        raise AssertionError(f"{type(layer).__name__} was computed by PyTorch")

    for layer in layers:
        monkeypatch.setattr(layer, "forward", fail)


@pytest.mark.parametrize("case", CASES)
def test_a_fast_layer_computes_what_its_parent_does(case, monkeypatch):
    build, shapes, replaced, _ = CASES[case]
    plain, fast = twins(build)
    assert [name for name, _ in fast.named_modules()] == [name for name, _ in plain.named_modules()]
    assert list(fast.state_dict()) == list(plain.state_dict())
    inputs = random_inputs(shapes, torch.float32)
    expected = results(plain, inputs)
    forbid(monkeypatch, replaced)
    assert_near(results(fast, inputs), expected, tolerance=2e-5)


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("build", "shape", "replaced"),
    [
        (partial(nn.BatchNorm3d, 8), (2, 8, 4, 4, 4), nn.BatchNorm3d),
        (partial(norm_act, 0.2, 0.0, channels=8), (2, 8, 6, 4), nn.BatchNorm2d),
    ],
)
@pytest.mark.parametrize("block", [2, 4096])
def test_gradients_of_8_channels_on_two_threads(
    build, shape, replaced, block, two_threads, monkeypatch
):
    monkeypatch.setattr(thresholds, "ROWS", block)
    plain, fast = twins(build)
    inputs = random_inputs([shape], torch.float32)
    expected = results(plain, inputs)
    forbid(monkeypatch, [replaced])
    monkeypatch.setattr(torch.ops.aten, "native_batch_norm_backward", None)
    assert_near(results(fast, inputs), expected, tolerance=2e-5)


@pytest.mark.parametrize(("lanes", "cell"), [(8, 1), (16, 2)])
@pytest.mark.parametrize("case", ["folded", "folded, many channels in", "doubling", "occlusion"])
def test_with_registers_of_either_width(case, lanes, cell, monkeypatch):
    monkeypatch.setattr(thresholds, "LANES", lanes)
    monkeypatch.setattr(thresholds, "FOLDED_CELL", cell)
    test_a_fast_layer_computes_what_its_parent_does(case, monkeypatch)


@pytest.mark.parametrize(
    ("build", "shape", "plain"),
    [
        (partial(nn.Conv2d, 5, 3, 3), (2, 5, 6, 7), nn.Conv2d),
        (partial(nn.Conv2d, 5, 3, 4, 2, bias=False), (1, 5, 6, 8), nn.Conv2d),
        (partial(nn.Conv3d, 5, 3, 3), (2, 5, 6, 5, 4), nn.Conv3d),
    ],
)
@pytest.mark.parametrize("frozen", [False, True])
def test_gradients_from_copies(build, shape, plain, frozen, monkeypatch):
    monkeypatch.setattr(thresholds, "COPIED_GRADIENT_MIN_ELEMENTS", 1)
    monkeypatch.setattr(thresholds, "COPIED_GRADIENT_MIN_CHANNELS", 1)
    slow, fast = twins(build)
    inputs = random_inputs([shape], torch.float32)
    expected = results(slow, inputs)
    if frozen:  # the input alone has a gradient, as PyTorch computes it
        slow.requires_grad_(False)
        fast.requires_grad_(False)
        assert torch.equal(fast(*inputs), slow(*inputs))
        return
    forbid(monkeypatch, [plain])
    monkeypatch.setattr(conv3d, "conv3d", None)
    assert_near(results(fast, inputs), expected, tolerance=2e-5)


def test_in_bfloat16_a_convolution_gets_no_column_that_no_window_sees(monkeypatch):
    """Of such a column oneDNN's gradient with AMX reads what was in memory."""
    _, fast = twins(partial(nn.Conv2d, 5, 3, 4, 2))
    sizes = []
    plain_forward = nn.Conv2d.forward

    def forward(conv, x):
        sizes.append(x.shape[2:])
        return plain_forward(conv, x)

    monkeypatch.setattr(nn.Conv2d, "forward", forward)
    with torch.autocast("cpu", torch.bfloat16):
        fast(*random_inputs([(2, 5, 7, 9)], torch.float32))
    assert sizes == [(6, 8)]


@pytest.mark.parametrize("case", [case for case, (*_, bfloat16) in CASES.items() if bfloat16])
def test_in_bfloat16_it_is_as_exact_as_its_parent(case, monkeypatch):
    build, shapes, replaced, _ = CASES[case]
    plain, fast = twins(build)
    inputs = random_inputs(shapes, torch.float32)
    exact = results(plain, inputs)
    with torch.autocast("cpu", torch.bfloat16):
        expected = results(copy.deepcopy(plain), inputs)
        forbid(monkeypatch, replaced)
        actual = results(fast, inputs)
    for one, other, true in zip(actual, expected, exact, strict=True):
        assert one.dtype == other.dtype
        error, allowed, size = (
            (value.double() - true.double()).detach().norm() for value in (one, other, 0 * true)
        )
        assert error <= 3 * allowed + 2e-3 * size + 1e-3


@pytest.mark.parametrize("is_large", [False, True])
def test_padding_stays_in_bfloat16(is_large, monkeypatch):
    """PyTorch's own is computed in float32 under autocast."""
    if not is_large:
        monkeypatch.setattr(thresholds, "LEAN_MIN_ELEMENTS", 2**20)
    build, shapes, *_ = CASES["reflection"]
    plain, fast = twins(build)
    inputs = random_inputs(shapes, torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        actual = results(fast, inputs)
    assert_near(actual, results(plain, inputs), tolerance=0.02)


@pytest.mark.parametrize("case", ["matrix product", "transposed matrix product", "Winograd"])
def test_autocast_takes_the_parents_way_where_a_kernel_is_for_float32(case):
    build, shapes, *_ = CASES[case]
    plain, fast = twins(build)
    inputs = random_inputs(shapes, torch.float32)
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        torch.testing.assert_close(fast(*inputs), plain(*inputs), atol=1e-2, rtol=1e-2)


@pytest.mark.parametrize(
    ("conv", "shape"),
    [
        (partial(nn.Conv2d, 64, 64, 3, padding=1), (1, 64, 3, 3)),
        (partial(nn.Conv2d, 64, 64, 3, groups=2), (1, 64, 3, 3)),
        (partial(nn.Conv2d, 64, 64, (3, 1)), (1, 64, 3, 3)),
        (partial(nn.ConvTranspose2d, 64, 4, 2, 2), (1, 64, 3, 3)),
        (partial(nn.Conv3d, 4, 4, 4, 2, padding=1), (2, 4, 8, 8, 8)),
        (partial(nn.ConvTranspose3d, 4, 4, 4, 2), (2, 4, 4, 4, 4)),
        (partial(nn.BatchNorm3d, 4, affine=False), (2, 4, 4, 4, 4)),
        (partial(nn.ReflectionPad2d, 2), (1, 2, 4, 4)),
        (partial(nn.AvgPool2d, 2), (1, 2, 4, 4)),
    ],
)
def test_layers_of_other_kinds_are_left_alone(conv, shape):
    layer = nn.ModuleList([conv()])
    assert not accelerate_(layer)
    layer[0](torch.randn(shape))


def model(no_occlusion_net: bool = False) -> DeepVoxels:
    return DeepVoxels(
        Architecture(64, 16, 8, 4, 4, no_occlusion_net),
        SceneGeometry(8, 0.125, (0.0, 0.0, 0.0), 1.0, 16, 17.0, 8.0, 8.0),
    )


def views() -> tuple[torch.Tensor, ...]:
    poses = torch.tensor(hemisphere_poses(3)).float()
    return torch.rand(1, 3, 64, 64) - 0.5, poses[:1], poses[1:]


def training_pass(net: DeepVoxels, inputs) -> list[torch.Tensor]:
    torch.manual_seed(1)
    rendering, integration = net(*inputs)
    weights = torch.linspace(-1, 2, rendering.images.numel()).view_as(rendering.images)
    (rendering.images * weights).sum().backward()
    return [
        rendering.images,
        *([] if rendering.depth is None else [rendering.depth]),
        *integration,
        *(parameter.grad for parameter in net.parameters()),
        *net.buffers(),
    ]


@pytest.mark.parametrize("no_occlusion_net", [False, True])
def test_the_models_training_pass(no_occlusion_net):
    plain, fast = twins(partial(model, no_occlusion_net))
    inputs = views()
    assert_near(training_pass(fast, inputs), training_pass(plain, inputs), tolerance=1e-3)


def test_everything_expected_was_exchanged():
    net = model()
    convolutions = [type(layer) for layer in net.modules()]
    exchanged = accelerate_(net)
    assert exchanged["FastDeepVoxels"] == 1
    assert exchanged["FastIntegrationNet"] == exchanged["FastOcclusionNet"] == 1
    assert exchanged["FastConv2d"] == convolutions.count(nn.Conv2d)
    assert exchanged["FastConvTranspose2d"] == convolutions.count(nn.ConvTranspose2d)
    assert exchanged["FastReflectionPad2d"] == convolutions.count(nn.ReflectionPad2d)
    assert exchanged["FastConv3d"] == sum(
        type(layer) is nn.Conv3d and layer.kernel_size == (3, 3, 3) for layer in model().modules()
    )
    assert not accelerate_(net)
    assert set(accelerate_(PatchDiscriminator())) == {
        "FastConv2d",
        "FastReflectionPad2d",
        "FastSequential",
    }


def test_a_hook_on_any_module_fires_and_sees_what_the_plain_module_computes():
    """In the plain model on all modules at once; in the fast one on each kind of module by itself,
    since a hook decides which layers are computed as one."""
    plain, fast = twins(model)
    inputs = views()
    expected = {}
    seen = {}
    for name, module in plain.named_modules():
        module.register_forward_hook(
            lambda _, __, output, name=name: expected.update({name: copy_of(output)})
        )
    torch.manual_seed(1)
    plain(*inputs)
    assert expected.keys() == dict(plain.named_modules()).keys()
    kinds = {}
    for name, module in fast.named_modules():
        parent = fast.get_submodule(name.rpartition(".")[0])
        kinds.setdefault((type(module), type(parent)), name)
    for name in kinds.values():
        handle = fast.get_submodule(name).register_forward_hook(
            lambda _, __, output, name=name: seen.update({name: copy_of(output)})
        )
        torch.manual_seed(1)
        fast(*inputs)
        handle.remove()
        if expected[name] is not None:
            assert_near([seen[name]], [expected[name]], tolerance=1e-3)
    assert seen.keys() == set(kinds.values())
    assert len(kinds) > 15


def copy_of(output):
    return output.detach().clone() if isinstance(output, torch.Tensor) else None


@pytest.mark.parametrize("no_occlusion_net", [False, True])
def test_frames_of_a_prepared_model(no_occlusion_net):
    plain, fast = twins(partial(model, no_occlusion_net))
    plain.eval().remember(torch.randn_like(plain.deepvoxels))
    fast.load_state_dict(plain.state_dict())
    prepare_for_frames_(fast)
    assert not [
        norm for norm in fast.modules() if isinstance(norm, nn.modules.batchnorm._BatchNorm)
    ]
    with torch.inference_mode():
        expected, actual = (
            net.render(net.inpaint(net.deepvoxels), views()[2]) for net in (plain, fast)
        )
    torch.testing.assert_close(actual.images, expected.images, atol=1e-4, rtol=0)
    if expected.depth is not None:
        torch.testing.assert_close(actual.depth, expected.depth, atol=1e-4, rtol=0)
    for part in (fast, fast.rendering_net):
        with pytest.raises(RuntimeError, match="is prepared for frames"):
            part.load_state_dict(part.state_dict())


def test_a_frozen_kernel_is_transformed_once():
    plain, fast = twins(CASES["Winograd"][0])
    prepare_for_frames_(fast)
    x = torch.randn(CASES["Winograd"][1][0])
    with torch.inference_mode():
        assert_near([fast(x)], [plain(x)], tolerance=2e-5)
        kernel = fast.tile_kernel
        fast(x)
    assert kernel is not None
    assert fast.tile_kernel is kernel
