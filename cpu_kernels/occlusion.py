"""Occlusion reasoning without the largest tensors: the depth coordinate convolved once, the
collapse plane by plane."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from cpu_kernels import thresholds
from cpu_kernels.conv3d import conv3d
from cpu_kernels.folded_conv3d import FoldedConv3d, folds
from cpu_kernels.hooks import check_hooks, is_watched
from custom_layers import OcclusionNet
from pytorch_prototyping.blocks import Conv3dSame


class FastOcclusionNet(OcclusionNet):
    """The depth coordinate is the same for all columns of all views, so that its share of a
    convolution is computed for one column."""

    check = staticmethod(check_hooks)

    @staticmethod
    def supports(net: OcclusionNet) -> bool:
        return True

    def forward(
        self,
        volumes: Float[Tensor, "v f depth m m"],
    ) -> tuple[Float[Tensor, "v f m m"], Float[Tensor, "v 1 m m"]]:
        volumes = volumes.contiguous(memory_format=torch.channels_last_3d)
        if is_watched(*self.children()):
            return super().forward(volumes)
        prep_conv, *prep_rest = self.occlusion_prep
        visibility_conv, softmax = self.softmax_net
        compressed = self._conv_with_depth(prep_conv, volumes, depth_channel=0)
        for layer in prep_rest:
            compressed = layer(compressed)
        seen = torch.cat([compressed, self.occlusion_net(compressed)], dim=1)
        visibility = softmax(
            self._conv_with_depth(visibility_conv, seen, depth_channel=seen.shape[1])
        )
        return _Collapse.apply(visibility, volumes), (visibility * self.depth_coordinates).sum(
            dim=2
        )

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
