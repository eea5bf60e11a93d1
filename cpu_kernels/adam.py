"""PyTorch's fused Adam for weights of any memory layout, without the copies that it makes on the CPU."""
import torch
from torch import Tensor
from torch.optim.adam import adam


class Adam(torch.optim.Adam):
    """Fused Adam (Kingma and Ba, 2015) that sees weights, gradients and moments as they lie in memory.

    On the CPU PyTorch's copies every channels-last gradient, and pairs the wrong numbers where a gradient or a moment
    is laid out otherwise than its weight. Here a gradient may be; moments are made like their weight, and
    `checkpoints.load_optimizer` makes those of a file so. Where `found_inf`, a tensor, is 1, a step changes nothing.
    """

    def __init__(self, parameters, lr: float):
        super().__init__(parameters, lr=lr, fused=True)

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            parameters, gradients, means, squares, unused, steps = lists = [], [], [], [], [], []
            self._init_group(group, *lists)
            gradients = [like_in_memory(*pair) for pair in zip(gradients, parameters, strict=True)]
            vectors = [[as_in_memory(tensor) for tensor in tensors]
                       for tensors in (parameters, gradients, means, squares)]
            beta1, beta2 = group["betas"]
            adam(*vectors, unused, steps, fused=True, found_inf=getattr(self, "found_inf", None), amsgrad=False,
                 beta1=beta1, beta2=beta2, lr=group["lr"], weight_decay=0.0, eps=group["eps"], maximize=False)


def like_in_memory(tensor: Tensor, model: Tensor) -> Tensor:
    """The tensor in the memory layout of another one, a copy if it has another."""
    return tensor if tensor.stride() == model.stride() else torch.empty_like(model).copy_(tensor)


def as_in_memory(tensor: Tensor) -> Tensor:
    """A dense tensor as a vector of what lies in memory, if it is not contiguous."""
    return tensor if tensor.is_contiguous() else tensor.as_strided((tensor.numel(),), (1,))
