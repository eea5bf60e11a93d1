"""The plain functions that the kernels stand for, and whether they still are the ones that the
kernels were written for.

A kernel computes what some functions of the model compute, another way. Whoever changes one of them
must see the change, so the kernel is then left out. A function of this project is known by a
fingerprint of its source, whatever its comments, formatting, docstring and annotations; one of
PyTorch by lying in PyTorch's folder. Functions are looked up where the plain model looks them up,
in every forward pass, so that a function that is replaced later is noticed too.

After such a change `tests/cpu_kernels/test_written_for.py` says what to do.
"""

import ast
import hashlib
import inspect
import textwrap
import warnings
from collections.abc import Sequence
from functools import cache
from importlib import import_module
from operator import attrgetter
from pathlib import Path
from types import CodeType, FunctionType

import torch
from torch import nn

# "module:name", as the plain model finds it, and the fingerprint that the kernels know.
FINGERPRINTS = {
    "custom_layers:Conv3dSame.forward": "0633c2faeb16821c",
    "custom_layers:IntegrationNet.forward": "86ecca27f6f28d22",
    "custom_layers:OcclusionNet.forward": "eef6a0d6939da78f",
    "custom_layers:collapse": "1707b757432843c8",
    "deep_voxels:DeepVoxels.canonical_view_volumes": "ceb58c0ba2bb4e50",
    "deep_voxels:project": "4db7c5d90173f938",
    "projection:_normalized": "d4a3c7820db31a64",
    "projection:_sample": "c6f6be08466d5852",
    "pytorch_prototyping.blocks:Conv2dSame.forward": "0633c2faeb16821c",
    "pytorch_prototyping.blocks:Conv3dSame.forward": "0633c2faeb16821c",
}

TORCH = str(Path(torch.__file__).parent)
TYPE_CHECKS = str(Path("jaxtyping", "_decorator.py"))  # wraps functions while tests run


def stands(kernel: type[nn.Module]) -> bool:
    """Whether all functions that a kernel stands for are the ones that it was written for; else
    warns, once."""
    changed = first_changed(kernel.STANDS_FOR)
    if changed is None:
        return True
    warn_left_out(kernel.__name__, f"{changed} is not the function that it was written for")
    return False


def first_changed(names: Sequence[str]) -> str | None:
    """The first of the functions that is not the one known, or None."""
    return next((name for name in names if not _is_known(name)), None)


@cache
def warn_left_out(kernel: str, reason: str) -> None:
    warnings.warn(
        f"{kernel} is left out: {reason}. The model computes this part in plain PyTorch, which is "
        "slower on a CPU (docs/change_the_model.md).",
        stacklevel=2,
    )


def _is_known(name: str) -> bool:
    function = function_of(name)
    if function is None:
        return False
    if name.startswith("torch."):
        return function.__code__.co_filename.startswith(TORCH)
    return source_fingerprint(function) == FINGERPRINTS[name]


def function_of(name: str) -> FunctionType | None:
    """The function that the plain model calls under this name, if there is one."""
    module, _, path = name.partition(":")
    try:
        function = attrgetter(path)(import_module(module))
    except (AttributeError, ImportError):
        return None
    if not isinstance(function, FunctionType):
        return None
    if function.__code__.co_filename.endswith(TYPE_CHECKS):
        return function.__wrapped__
    return function


def source_fingerprint(function: FunctionType) -> str | None:
    """A hash of what a function's source does; None where there is no source."""
    return _fingerprint(function, function.__code__)


@cache
def _fingerprint(function: FunctionType, code: CodeType) -> str | None:
    """`code` is that of the function, which reloading may exchange."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(code)))
    except (OSError, SyntaxError):
        return None
    return hashlib.sha256(repr(_meaning(tree)).encode()).hexdigest()[:16]


def _meaning(node: ast.AST | list | object) -> tuple | str:
    """A syntax tree without docstrings, annotations and positions, and the same for all versions of
    Python: these differ in which empty fields a tree has."""
    if isinstance(node, list):
        return tuple(_meaning(child) for child in node)
    if not isinstance(node, ast.AST):
        return repr(node)
    fields = dict(ast.iter_fields(node))
    if isinstance(node, ast.FunctionDef) and ast.get_docstring(node) is not None:
        fields["body"] = fields["body"][1:]
    return (
        type(node).__name__,
        *(
            (name, _meaning(value))
            for name, value in fields.items()
            if name not in ("annotation", "returns", "type_comment") and value not in (None, [])
        ),
    )
