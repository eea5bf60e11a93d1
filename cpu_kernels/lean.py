"""Reflection padding, and batch norm with what follows it, that remember less for the backward pass on the CPU.

After a convolution PyTorch keeps the inputs of batch norm, of channel dropout (as the activation's result) and of the
padding: three maps of one size. Here that is the first alone: of the others the sizes, or what can be computed again,
are enough. A compiled graph chooses by itself what it keeps.
"""
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

LEAST_ELEMENTS = 2 ** 20  # of a map; what smaller ones would save is not worth the time


def is_lean(x: Tensor) -> bool:
    """Whether memory is to be saved where this tensor is."""
    return (x.is_cpu and x.numel() >= LEAST_ELEMENTS and torch.is_grad_enabled()
            and not torch.compiler.is_compiling())


class ReflectionPad2d(nn.ReflectionPad2d):
    """Reflection padding that does not keep its input, nor computes in float32 what autocast has in bfloat16."""

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h_out w_out"]:
        if torch.is_autocast_enabled(x.device.type):
            with torch.autocast(x.device.type, enabled=False):
                return self.forward(x)
        return _ReflectionPad2d.apply(x, self.padding) if is_lean(x) else super().forward(x)


class _ReflectionPad2d(torch.autograd.Function):

    @staticmethod
    def forward(ctx, x, padding):
        ctx.shape, ctx.padding = x.shape, padding
        return torch.ops.aten.reflection_pad2d(x, padding)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        of_x = torch.empty(ctx.shape, dtype=gradient.dtype, memory_format=torch.channels_last)
        # Of the input, the second argument, only the shape counts.
        return torch.ops.aten.reflection_pad2d_backward(gradient, of_x, ctx.padding, grad_input=of_x), None


def activation(slope: float) -> nn.Module:
    """LeakyReLU, or at a slope of 0 ReLU, in place."""
    return nn.LeakyReLU(slope, inplace=True) if slope else nn.ReLU(inplace=True)


class BatchNormAct2d(nn.BatchNorm2d):
    """Batch norm, LeakyReLU (ReLU at a slope of 0) and channel dropout, that keep their input alone and not what lies
    between."""

    def __init__(self, num_features: int, slope: float = 0.0, dropout: float = 0.0):
        super().__init__(num_features)
        self.slope = slope
        self.activation = activation(slope)
        self.dropout = nn.Dropout2d(dropout) if dropout else nn.Identity()

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        if not (self.training and is_lean(x)):
            return self.dropout(self.activation(super().forward(x)))
        self.num_batches_tracked += 1
        kept = self.dropout(x.new_ones(*x.shape[:2], 1, 1))
        return _BatchNormAct.apply(x, self.weight, self.bias, kept, self)


class _BatchNormAct(torch.autograd.Function):

    @staticmethod
    def forward(ctx, x, weight, bias, kept, norm):
        y, mean, scale = torch.native_batch_norm(x, weight, bias, norm.running_mean, norm.running_var, True,
                                                 norm.momentum, norm.eps)
        ctx.save_for_backward(x, weight, bias, kept, mean, scale)
        ctx.slope, ctx.eps = norm.slope, norm.eps
        return norm.activation(y).mul_(kept)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        x, weight, bias, kept, mean, scale = ctx.saved_tensors
        y = torch.native_batch_norm(x, weight, bias, mean, scale.pow(-2), False, 0.0, 0.0)[0]
        of_y = torch.ops.aten.leaky_relu_backward(gradient, y, ctx.slope, False, grad_input=y).mul_(kept)
        of_x, of_weight, of_bias = torch.ops.aten.native_batch_norm_backward(
            of_y, x, weight, None, None, mean, scale, True, ctx.eps, [True, True, True])
        return of_x, of_weight, of_bias, None, None
