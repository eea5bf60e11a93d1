"""Whether someone watches a module. What is watched is called by itself, so that its hooks fire."""

from torch import nn


def is_watched(*modules: nn.Module) -> bool:
    """Whether a hook is registered on one of the modules or on a module inside it."""
    return any(
        part._forward_hooks
        or part._forward_pre_hooks
        or part._backward_hooks
        or part._backward_pre_hooks
        for module in modules
        for part in module.modules()
    )


def check_hooks() -> None:
    """Raises if PyTorch keeps hooks in another place than `is_watched` looks at."""
    for register in (
        "register_forward_hook",
        "register_forward_pre_hook",
        "register_full_backward_hook",
        "register_full_backward_pre_hook",
    ):
        module = nn.Sequential(nn.Identity())
        getattr(module[0], register)(lambda *_: None)
        if not is_watched(module):
            raise RuntimeError(f"{register} is not seen")
