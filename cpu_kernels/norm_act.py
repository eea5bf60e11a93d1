"""Batch norm, activation and channel dropout of large maps as one function that keeps only its
input for backward.

PyTorch keeps the input of the norm and the result of the activation, and computes the dropout as a
map of its own.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from cpu_kernels import thresholds
from cpu_kernels.batch_norm import batch_norm_of_rows_backward, gains_from_rows


def num_fused(layers: list[nn.Module], x: Tensor) -> int:
    """How many of the first layers are to be computed as one: a batch norm, an activation and
    perhaps a channel dropout; 0 for none."""
    if not (
        len(layers) >= 2
        and type(layers[0]) is nn.BatchNorm2d
        and type(layers[1]) in (nn.ReLU, nn.LeakyReLU)
        and updates_statistics(layers[0])
        and x.numel() >= thresholds.LEAN_MIN_ELEMENTS
        and torch.is_grad_enabled()
    ):
        return 0
    return 3 if len(layers) > 2 and type(layers[2]) is nn.Dropout2d else 2


def updates_statistics(norm: nn.BatchNorm2d) -> bool:
    """Whether a batch norm is in training and of the usual kind: with weights, and with a moving
    average of its statistics."""
    return (
        norm.training
        and norm.weight is not None
        and norm.bias is not None
        and norm.track_running_stats
        and norm.momentum is not None
    )


def fused_norm_act_dropout(
    layers: list[nn.Module], x: Float[Tensor, "b c h w"]
) -> Float[Tensor, "b c h w"]:
    """What the layers, batch norm, ReLU or LeakyReLU, and perhaps Dropout2d, compute in
    training."""
    norm, activation, *dropout = layers
    norm.num_batches_tracked += 1
    kept = x.new_ones(*x.shape[:2], 1, 1)
    for layer in dropout:
        kept = layer(kept)
    slope = getattr(activation, "negative_slope", 0.0)
    return _NormActDropout.apply(x, norm.weight, norm.bias, kept, norm, slope)


class _NormActDropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias, kept, norm, slope):
        y, mean, scale = torch.native_batch_norm(
            x, weight, bias, norm.running_mean, norm.running_var, True, norm.momentum, norm.eps
        )
        ctx.save_for_backward(x, weight, bias, kept, mean, scale)
        ctx.slope = slope
        ctx.eps = norm.eps
        return F.leaky_relu_(y, slope).mul_(kept)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        x, weight, bias, kept, mean, scale = ctx.saved_tensors
        y = torch.native_batch_norm(x, weight, bias, mean, scale.pow(-2), False, 0.0, 0.0)[0]
        grad_y = torch.ops.aten.leaky_relu_backward(grad, y, ctx.slope, False, grad_input=y).mul_(
            kept
        )
        if gains_from_rows(x):
            grads = batch_norm_of_rows_backward(grad_y, x, weight, mean, scale)
        else:
            grads = torch.ops.aten.native_batch_norm_backward(
                grad_y, x, weight, None, None, mean, scale, True, ctx.eps, [True, True, True]
            )
        return *grads, None, None, None
