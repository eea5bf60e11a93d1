"""Which modules a kernel may compute without calling them: those of exactly a class that it knows,
without hooks and without a `forward` of their own."""

from torch import nn


def plain_type(module: nn.Module) -> type[nn.Module]:
    """The class that a module has without its kernel. A subclass of a class is another class."""
    kernel = type(module)
    return kernel.__base__ if "STANDS_FOR" in vars(kernel) else kernel


def must_be_called(*modules: nn.Module) -> bool:
    """Whether one of the modules, or a module inside it, has hooks or a `forward` of its own, which
    only fire if it is called."""
    return any(
        part._forward_hooks
        or part._forward_pre_hooks
        or part._backward_hooks
        or part._backward_pre_hooks
        or "forward" in vars(part)
        for module in modules
        for part in module.modules()
    )


def check_hooks() -> None:
    """Raises if PyTorch keeps hooks in another place than `must_be_called` looks at."""
    for register in (
        "register_forward_hook",
        "register_forward_pre_hook",
        "register_full_backward_hook",
        "register_full_backward_pre_hook",
    ):
        module = nn.Sequential(nn.Identity())
        getattr(module[0], register)(lambda *_: None)
        if not must_be_called(module):
            raise RuntimeError(f"{register} is not seen")
