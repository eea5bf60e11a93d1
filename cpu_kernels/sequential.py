"""A Sequential that computes neighbouring layers as one where that is faster or leaner."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cpu_kernels.folded_conv3d import FoldedConv3d, folds
from cpu_kernels.hooks import check_hooks, must_be_called
from cpu_kernels.norm_act import fused_norm_act_dropout, num_fused
from cpu_kernels.same_results import require_close


class FastSequential(nn.Sequential):
    """Layers in a row. Those with hooks or a `forward` of their own are called one by one."""

    STANDS_FOR = tuple(
        f"torch.nn:{layer}.forward"
        for layer in (
            "Sequential",
            "BatchNorm2d",
            "ReLU",
            "LeakyReLU",
            "Dropout2d",
            "ReplicationPad3d",
            "Conv3d",
        )
    )

    @staticmethod
    def supports(layers: nn.Sequential) -> bool:
        return any(isinstance(layer, (nn.BatchNorm2d, nn.ReplicationPad3d)) for layer in layers)

    def forward(self, x: Float[Tensor, "b c *size"]) -> Float[Tensor, "b c_out *size_out"]:
        layers = list(self)
        while layers:
            count = num_fused(layers, x)
            if count and not must_be_called(*layers[:count]):
                x = fused_norm_act_dropout(layers[:count], x)
            elif folds(layers, x) and not must_be_called(*layers[:2]):
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
            torch.autograd.grad(fused_norm_act_dropout(list(layers), x).square().sum(), inputs),
            torch.autograd.grad(layers(x).square().sum(), inputs),
            strict=True,
        ):
            require_close(one, other, rtol=1.3e-6, atol=1e-5)
        check_hooks()
