"""Occlusion reasoning without the largest tensors: the depth coordinate convolved once, the
collapse plane by plane."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from cpu_kernels import thresholds
from cpu_kernels.conv3d import conv3d
from cpu_kernels.folded_conv3d import FoldedConv3d, folds, keeps_size
from cpu_kernels.hooks import check_hooks, must_be_called, plain_type
from cpu_kernels.written_for import stands, warn_left_out
from custom_layers import OcclusionNet
from pytorch_prototyping.blocks import Conv3dSame


class FastOcclusionNet(OcclusionNet):
    """The depth coordinate is the same for all columns of all views, so that its share of a
    convolution is computed for one column."""

    STANDS_FOR = (
        "custom_layers:OcclusionNet.forward",
        "custom_layers:collapse",
        "custom_layers:Conv3dSame.forward",
        "torch.nn:Sequential.forward",
        "torch.nn:Conv3d.forward",
    )
    check = staticmethod(check_hooks)

    @staticmethod
    def supports(net: OcclusionNet) -> bool:
        """Whether its two stacks of layers begin with a 3x3x3 convolution. Any layers may follow,
        and the U-Net may be any module."""
        if all(map(begins_with_convolution, (net.occlusion_prep, net.softmax_net))):
            return True
        warn_left_out("FastOcclusionNet", "the layers of OcclusionNet are not those that it knows")
        return False

    def forward(
        self,
        volumes: Float[Tensor, "v f depth m m"],
    ) -> tuple[Float[Tensor, "v f m m"], Float[Tensor, "v 1 m m"]]:
        volumes = volumes.contiguous(memory_format=torch.channels_last_3d)
        if not (stands(FastOcclusionNet) and self.supports(self)) or must_be_called(
            self.occlusion_prep, self.occlusion_net, self.softmax_net
        ):
            return super().forward(volumes)
        compressed = self._stack_with_depth(self.occlusion_prep, volumes, depth_channel=0)
        seen = torch.cat([compressed, self.occlusion_net(compressed)], dim=1)
        visibility = self._stack_with_depth(self.softmax_net, seen, depth_channel=seen.shape[1])
        expected_depth = (visibility * self.depth_coordinates).sum(dim=2)
        return _Collapse.apply(visibility, volumes), expected_depth

    def _stack_with_depth(
        self,
        layers: nn.Sequential,
        x: Float[Tensor, "v c depth m m"],
        depth_channel: int,
    ) -> Float[Tensor, "v c_out depth m m"]:
        """The layers' result for x with the depth coordinate inserted as channel
        `depth_channel`."""
        conv, *rest = layers
        y = self._conv_with_depth(conv, x, depth_channel)
        for layer in rest:
            y = layer(y)
        return y

    def _conv_with_depth(
        self,
        layer: Conv3dSame,
        x: Float[Tensor, "v c depth m m"],
        depth_channel: int,
    ) -> Float[Tensor, "v c_out depth m m"]:
        """The layer's convolution of x with the depth coordinate inserted as channel
        `depth_channel`."""
        pad, conv = layer.net
        before, depth_weight, after = conv.weight.split(
            [depth_channel, 1, conv.in_channels - depth_channel - 1], dim=1
        )
        column = pad(self.depth_coordinates.to(x.dtype)).expand(-1, -1, -1, 3, 3)
        depth_share = conv3d(column, depth_weight, conv.bias)
        weight = torch.cat([before, after], dim=1)
        if folds([pad, conv], x):
            return FoldedConv3d.apply(x, weight, None) + depth_share
        return conv3d(pad(x), weight, None) + depth_share


def begins_with_convolution(layers: nn.Module) -> bool:
    """Whether layers in a row begin with a 3x3x3 convolution that keeps the size."""
    return (
        plain_type(layers) is nn.Sequential
        and len(layers) > 0
        and type(layers[0]) is Conv3dSame
        and keeps_size(list(layers[0].net))
    )


class _Collapse(torch.autograd.Function):
    """`custom_layers.collapse` plane by plane, and its gradients a few planes at a time."""

    @staticmethod
    def forward(
        ctx,
        visibility: Float[Tensor, "v 1 depth m m"],
        volumes: Float[Tensor, "v f depth m m"],
    ) -> Float[Tensor, "v f m m"]:
        ctx.save_for_backward(visibility, volumes)
        total = torch.zeros_like(volumes[:, :, 0])
        for weight, plane in zip(visibility.unbind(dim=2), volumes.unbind(dim=2), strict=True):
            total.addcmul_(weight, plane)
        return total / volumes.shape[2]

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Float[Tensor, "v f m m"]) -> tuple[Tensor, Tensor]:
        visibility, volumes = ctx.saved_tensors
        grad = (grad / volumes.shape[2]).contiguous(memory_format=torch.channels_last)[:, :, None]
        grad_visibility = torch.empty_like(visibility)
        grad_volumes = torch.empty_like(volumes)
        planes = max(1, thresholds.COLLAPSE_ELEMENTS // grad.numel())
        for volume, weight, grad_volume, grad_weight in zip(
            *(
                tensor.split(planes, dim=2)
                for tensor in (volumes, visibility, grad_volumes, grad_visibility)
            ),
            strict=True,
        ):
            torch.sum(volume * grad, dim=1, keepdim=True, out=grad_weight)
            torch.mul(weight, grad, out=grad_volume)
        return grad_visibility, grad_volumes
