"""The GRU with three convolutions in place of six: those that see the same volume are one, whose
output channels fill the lanes of a vector register that a gate's single channel would leave
empty."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cpu_kernels.conv3d import conv3d
from cpu_kernels.folded_conv3d import keeps_size
from cpu_kernels.hooks import check_hooks, must_be_called, plain_type
from cpu_kernels.padding import pad_in_own_dtype
from cpu_kernels.written_for import stands, warn_left_out
from custom_layers import IntegrationNet


class FastIntegrationNet(IntegrationNet):
    """The GRU, channels-last."""

    STANDS_FOR = (
        "custom_layers:IntegrationNet.forward",
        "torch.nn:Sequential.forward",
        "torch.nn:Conv3d.forward",
        "torch.nn:ReplicationPad3d.forward",
    )
    check = staticmethod(check_hooks)

    @staticmethod
    def supports(net: IntegrationNet) -> bool:
        """Whether each of its stacks of layers begins with a 3x3x3 convolution. Any layers may
        follow in those of the proposal."""
        gates = [net.update_new_net, net.update_old_net, net.reset_new_net, net.reset_old_net]
        if all(map(begins_with_convolution, net.children())) and all(
            len(layers) == 2 for layers in gates
        ):
            return True
        warn_left_out(
            "FastIntegrationNet", "the layers of IntegrationNet are not those that it knows"
        )
        return False

    def forward(
        self,
        observation: Float[Tensor, "1 f d d d"],
        state: Float[Tensor, "1 f d d d"],
    ) -> tuple[Float[Tensor, "1 f d d d"], Float[Tensor, "1 1 d d d"], Float[Tensor, "1 1 d d d"]]:
        if not (stands(FastIntegrationNet) and self.supports(self)) or must_be_called(
            *self.children()
        ):
            return super().forward(observation, state)
        x = torch.cat([observation, self.coordinates], dim=1)
        h = torch.cat([state, self.coordinates], dim=1)
        of_x = convolve(x, self.update_new_net, self.reset_new_net, self.new_integration)
        of_h = convolve(h, self.update_old_net, self.reset_old_net)
        gates = torch.sigmoid(of_x[:, :2].float() + of_h)
        update, reset = gates.split(1, dim=1)
        new = after_convolution(self.new_integration, of_x[:, 2:])
        old = after_convolution(self.old_integration, convolve(reset * h, self.old_integration))
        proposal = torch.relu(new.float() + old)
        return (1 - update) * state + update * proposal, update, reset


def begins_with_convolution(layers: nn.Module) -> bool:
    """Whether layers in a row begin with a 3x3x3 convolution that keeps the size."""
    return plain_type(layers) is nn.Sequential and keeps_size(list(layers))


def convolve(
    volume: Float[Tensor, "1 c d d d"], *stacks: nn.Sequential
) -> Float[Tensor, "1 c_out d d d"]:
    """What the padding and the convolution of each stack of layers make of a volume, one after the
    other in the channels."""
    convolutions = [layers[1] for layers in stacks]
    weight = torch.cat([conv.weight for conv in convolutions])
    bias = None
    if any(conv.bias is not None for conv in convolutions):
        bias = torch.cat(
            [
                weight.new_zeros(conv.out_channels) if conv.bias is None else conv.bias
                for conv in convolutions
            ]
        )
    volume = volume.contiguous(memory_format=torch.channels_last_3d)
    return conv3d(pad_in_own_dtype(volume, 6 * (1,), "replicate"), weight, bias)


def after_convolution(
    layers: nn.Sequential, x: Float[Tensor, "1 c d d d"]
) -> Float[Tensor, "1 c d d d"]:
    """What the layers after the convolution make of its result."""
    for layer in list(layers)[2:]:
        x = layer(x)
    return x
