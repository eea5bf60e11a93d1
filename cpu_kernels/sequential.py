"""A Sequential that computes neighbouring layers as one where that is faster or leaner."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cpu_kernels.folded_conv3d import FoldedConv3d, folds
from cpu_kernels.hooks import check_hooks, is_watched
from cpu_kernels.norm_act import norm_act_dropout, num_lean


class FastSequential(nn.Sequential):
    """Layers in a row. Those with hooks are called one by one."""

    @staticmethod
    def supports(layers: nn.Sequential) -> bool:
        return any(isinstance(layer, (nn.BatchNorm2d, nn.ReplicationPad3d)) for layer in layers)

    def forward(self, x: Float[Tensor, "b c *size"]) -> Float[Tensor, "b c_out *size_out"]:
        layers = list(self)
        while layers:
            if (count := num_lean(layers, x)) and not is_watched(*layers[:count]):
                x = norm_act_dropout(layers[:count], x)
            elif folds(layers, x) and not is_watched(*layers[:2]):
                x = FoldedConv3d.apply(x, layers[1].weight, layers[1].bias)
                count = 2
            else:
                x = layers[0](x)
                count = 1
            del layers[:count]
        return x

    @staticmethod
    def check() -> None:
        """Raises if what this needs of PyTorch beyond its public interface has changed."""
        layers = nn.Sequential(nn.BatchNorm2d(4), nn.LeakyReLU(0.2), nn.Dropout2d(0.0))
        x = torch.linspace(-1, 1, 96).view(2, 4, 3, 4).sin().requires_grad_()
        inputs = (x, layers[0].weight, layers[0].bias)
        for one, other in zip(
            torch.autograd.grad(norm_act_dropout(list(layers), x).square().sum(), inputs),
            torch.autograd.grad(layers(x).square().sum(), inputs),
            strict=True,
        ):
            torch.testing.assert_close(one, other)
        check_hooks()
