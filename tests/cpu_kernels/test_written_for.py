"""One model: an edit to the plain model takes effect with the CPU kernels too, or the kernel that
stands for what was edited is left out, with one warning."""

import functools
import importlib
import linecache
import types
import warnings

import pytest
import torch
from torch import nn

import custom_layers
import deep_voxels
import projection
from cpu_kernels import (
    accelerate,
    accelerate_,
    frames,
    prepare_for_frames_,
)
from cpu_kernels.written_for import FINGERPRINTS, function_of, source_fingerprint
from losses import StructureLoss
from tests.conftest import hemisphere_poses
from tests.cpu_kernels import differ, model, outputs
from tests.helpers import (
    ROOT,
    arguments,
    copy_of_the_code,
    final_checkpoint,
    finish,
    new_training,
    start,
)

HELP = """{name} has changed. Until the kernels know it, {kernels} are left out.
1. Let the kernels compute what it computes now (cpu_kernels/), or remove them.
2. Run tests/cpu_kernels and tests/test_goldens.py.
3. Write its new fingerprint into cpu_kernels/written_for.py:
    "{name}": "{new}","""

# Edits as somebody makes them: the file, what it says, what it says then.
EDITS = {
    "the collapse weights nothing": (
        "custom_layers.py",
        "return (visibility * volumes).mean(dim=2)",
        "return 0 * (visibility * volumes).mean(dim=2)",
    ),
    "the occlusion net's features are off": (
        "custom_layers.py",
        "compressed = self.occlusion_prep(torch.cat([depth, volumes], dim=1))",
        "compressed = torch.relu(self.occlusion_prep(torch.cat([depth, volumes], dim=1))) * 0",
    ),
    "the collapse is a maximum": (
        "custom_layers.py",
        "return (visibility * volumes).mean(dim=2)",
        "return (visibility * volumes).amax(dim=2)",
    ),
    "depth is the most visible plane's": (
        "custom_layers.py",
        "(visibility * self.depth_coordinates).sum(dim=2)",
        "(visibility**2 * self.depth_coordinates).sum(dim=2)",
    ),
    "a sharper softmax": (
        "custom_layers.py",
        "return super().forward(logits.float())",
        "return super().forward(3 * logits.float())",
    ),
    "a wider occlusion net": ("custom_layers.py", "width = 4", "width = 8"),
    "a larger convolution in the occlusion net": (
        "custom_layers.py",
        "Conv3dSame(num_features + 1, width, 3, bias=False)",
        "Conv3dSame(num_features + 1, width, 5, bias=False)",
    ),
    "the gates are swapped": (
        "custom_layers.py",
        "return (1 - update) * state + update * proposal, update, reset",
        "return update * state + (1 - update) * proposal, update, reset",
    ),
    "images are halved once more": (
        "custom_layers.py",
        "return self.net(features) / 2",
        "return self.net(features) / 4",
    ),
    "the view volumes see a brighter volume": (
        "deep_voxels.py",
        "return project(inpainted.float(), ",
        "return project(2 * inpainted.float(), ",
    ),
    "planes are half as far apart": (
        "projection.py",
        "geometry.near_plane + geometry.voxel_size * torch.arange",
        "geometry.near_plane + 0.5 * geometry.voxel_size * torch.arange",
    ),
    "the grid's outermost voxels are masked": (
        "projection.py",
        "((coordinates >= 0) & (coordinates < grid_dim))",
        "((coordinates >= 1) & (coordinates < grid_dim - 1))",
    ),
    "the mask lets points beside the grid through": (
        "projection.py",
        "((coordinates >= 0) & (coordinates < grid_dim))",
        "((coordinates >= -2) & (coordinates < grid_dim + 2))",
    ),
    "the nearest voxel in place of the trilinear sample": (
        "projection.py",
        'mode="bilinear"',
        'mode="nearest"',
    ),
    "samples clamp one voxel further in": (
        "projection.py",
        "coordinates.clamp(0, size - 1)",
        "coordinates.clamp(1, size - 2)",
    ),
    "every block adds its input's mean": (
        "pytorch_prototyping/blocks.py",
        "return self.net(x)",
        "return self.net(x) + x.mean()",
    ),
    "a skip that is subtracted": (
        "pytorch_prototyping/unet.py",
        "return torch.cat([x, self.model(x)], dim=1)",
        "return torch.cat([x, -self.model(x)], dim=1)",
    ),
}
# Those that change how often PyTorch's layers are called with what, and no function that a kernel
# stands for, so that nothing is left out.
QUIET = {
    "a sharper softmax",
    "a wider occlusion net",
    "images are halved once more",
    "planes are half as far apart",
    "the grid's outermost voxels are masked",
    "the mask lets points beside the grid through",
    "a skip that is subtracted",
}


def names_stood_for() -> dict[str, list[str]]:
    """The plain functions, each with the kernels that stand for it."""
    kernels = {}
    for kernel in accelerate.KERNELS:
        for name in kernel.STANDS_FOR:
            kernels.setdefault(name, []).append(kernel.__name__)
    for name in frames.STANDS_FOR:
        kernels.setdefault(name, []).append("fold_batch_norms_")
    return kernels


def test_the_fingerprints_are_those_of_the_plain_functions():
    ours = {name: by for name, by in names_stood_for().items() if not name.startswith("torch.")}
    assert ours.keys() == FINGERPRINTS.keys()
    for name, kernels in ours.items():
        new = source_fingerprint(function_of(name))
        assert new == FINGERPRINTS[name], HELP.format(
            name=name, kernels=", ".join(kernels), new=new
        )


def edited(path: str, old: str, new: str, monkeypatch) -> None:
    """Puts the functions of an edited file in the place of those that are there, as if the file had
    been edited before it was imported."""
    source = (ROOT / path).read_text()
    assert source.count(old) >= 1
    source = source.replace(old, new)
    name = path.removesuffix(".py").replace("/", ".")
    module = importlib.import_module(name)
    filename = f"<edited {path}>"
    linecache.cache[filename] = (len(source), None, source.splitlines(keepends=True), filename)
    copy = types.ModuleType(name)
    exec(compile(source, filename, "exec"), vars(copy))
    replace_functions(module, copy, module, monkeypatch)


def replace_functions(old, new, module, monkeypatch) -> None:
    """Functions of a module or class that has changed, in all modules that know them; classes stay
    the objects that they are."""
    for name, value in list(vars(new).items()):
        before = vars(old).get(name)
        if getattr(value, "__module__", None) != module.__name__:
            continue
        if isinstance(value, type):
            replace_functions(before, value, module, monkeypatch)
        elif isinstance(value, types.FunctionType) and value.__code__.co_filename.startswith("<ed"):
            mine = types.FunctionType(
                value.__code__, vars(module), name, value.__defaults__, cell_of(value, old)
            )
            for holder in [old, custom_layers, deep_voxels, projection]:
                if vars(holder).get(name) is before:
                    monkeypatch.setattr(holder, name, mine)


def cell_of(function, cls) -> tuple | None:
    """The closure of a method that calls `super()`, for the class that it moves to."""
    return function.__closure__ and (types.CellType(cls),)


@pytest.mark.parametrize("edit", EDITS)
def test_an_edit_takes_effect(edit, monkeypatch):
    unedited = outputs(model())
    edited(*EDITS[edit], monkeypatch)
    plain = outputs(model())
    assert [part.shape for part in plain] != [part.shape for part in unedited] or differ(
        plain, unedited
    )
    fast = model()
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        assert accelerate_(fast)["FastConv2d"]
        assert not differ(outputs(fast), plain)
    messages = [str(warning.message) for warning in warned if "left out" in str(warning.message)]
    assert len(messages) == len(set(messages))
    assert bool(messages) == (edit not in QUIET), messages


@pytest.mark.parametrize("name", FINGERPRINTS)
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_replaced_function_is_noticed_before_and_after_acceleration(name, when, monkeypatch):
    """By a wrapper that carries the name and documentation of what it wraps."""
    fast = model()
    if when == "after":
        accelerate_(fast)
    module, _, path = name.partition(":")
    holder = importlib.import_module(module)
    *classes, attribute = path.split(".")
    for step in classes:
        holder = getattr(holder, step)
    original = getattr(holder, attribute)

    @functools.wraps(original)
    def scaled(*args):
        result = original(*args)
        return (0.5 * result[0], *result[1:]) if isinstance(result, tuple) else 0.5 * result

    monkeypatch.setattr(holder, attribute, scaled)
    kernels = [kernel for kernel in names_stood_for()[name] if kernel != "fold_batch_norms_"]
    plain = outputs(model())
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        if when == "before":
            accelerate_(fast)
        assert not differ(outputs(fast), plain)
        outputs(fast)
    messages = [str(warning.message) for warning in warned]
    for kernel in kernels:
        wanted = f"{kernel} is left out: {name} is not the function that it was written for"
        assert sum(message.startswith(wanted) for message in messages) == 1, messages


@pytest.mark.parametrize("name", [name for name in names_stood_for() if name.startswith("torch.")])
def test_a_replaced_function_of_pytorch_is_noticed(name, monkeypatch):
    layer, method = name.removeprefix("torch.nn:").split(".")
    cls = getattr(nn, layer)
    original = getattr(cls, method)
    monkeypatch.setattr(cls, method, lambda *args: 2 * original(*args))
    with pytest.warns(UserWarning, match=f"left out: {name} is not the function") as warned:
        exchanged = accelerate_(nn.ModuleList([model(), StructureLoss()]))
        if "fold_batch_norms_" in names_stood_for()[name]:
            prepared = prepare_for_frames_(model())
            assert any(isinstance(part, nn.BatchNorm2d) for part in prepared.modules())
    assert not exchanged.keys() & set(names_stood_for()[name])
    assert len(warned) == len({str(warning.message) for warning in warned})


def test_a_block_that_does_more_than_its_layers_is_not_folded(monkeypatch):
    original = custom_layers.Conv2dSame.forward
    monkeypatch.setattr(custom_layers.Conv2dSame, "forward", lambda *args: 0.5 * original(*args))
    poses = torch.tensor(hemisphere_poses(2)).float()
    plain = model().eval()
    fast = model()
    accelerate_(fast)
    with pytest.warns(UserWarning, match="fold_batch_norms_ is left out: .*Conv2dSame.forward"):
        prepare_for_frames_(fast)
    with torch.inference_mode():
        one, other = (net.render(net.inpaint(net.deepvoxels), poses) for net in (plain, fast))
    torch.testing.assert_close(other.images, one.images, atol=1e-4, rtol=0)


def test_comments_formatting_docstrings_and_annotations_do_not_count():
    def of(source: str) -> str:
        filename = f"<{hash(source)}>"
        linecache.cache[filename] = (len(source), None, source.splitlines(keepends=True), filename)
        scope = {}
        exec(compile(source, filename, "exec"), scope)
        return source_fingerprint(scope["f"])

    plain = of("def f(x, y=1):\n    return x + y\n")
    assert plain == of(
        'def f(x: int, y: int = 1) -> int:\n    """Adds."""\n    return (x +\n y)#\n'
    )
    assert plain != of("def f(x, y=2):\n    return x + y\n")
    assert plain != of("def f(x, y=1):\n    return y + x\n")


def test_a_function_without_source_is_not_known():
    scope = {}
    exec("def f(x):\n    return x\n", scope)
    assert source_fingerprint(scope["f"]) is None


def test_training_with_an_edited_file_learns_something_else(scene, trained, tmp_path):
    """In a copy of the tree: the real command warns, and nothing before the collapse learns."""
    path, old, new = EDITS["the collapse weights nothing"]
    tree = copy_of_the_code(tmp_path / "tree")
    source = (tree / path).read_text()
    assert source.count(old) == 1
    (tree / path).write_text(source.replace(old, new))
    code, _, error = finish(start(*arguments(scene, tmp_path, "--max_steps", 2), cwd=tree))
    assert code == 0, error
    assert error.count("FastOcclusionNet is left out: custom_layers:") == 1
    name = "rendering_net.net.0.in_layer.0.net.1.weight"
    initial = new_training(*arguments(scene, tmp_path)).networks.model.state_dict()[name]
    assert torch.equal(final_checkpoint(tmp_path, 2)[1]["model"][name], initial)
    assert not torch.equal(trained[2]["model"][name], initial)
