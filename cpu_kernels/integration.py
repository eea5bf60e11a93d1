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
        follow."""
        if all(
            plain_type(layers) is nn.Sequential and keeps_size(list(layers))
            for layers in net.children()
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
        new_update, new_reset, new_proposal = apply_together(
            [self.update_new_net, self.reset_new_net, self.new_integration], x
        )
        old_update, old_reset = apply_together([self.update_old_net, self.reset_old_net], h)
        update = torch.sigmoid(new_update.float() + old_update)
        reset = torch.sigmoid(new_reset.float() + old_reset)
        (old_proposal,) = apply_together([self.old_integration], reset * h)
        proposal = torch.relu(new_proposal.float() + old_proposal)
        return (1 - update) * state + update * proposal, update, reset


def apply_together(
    stacks: list[nn.Sequential], volume: Float[Tensor, "1 c d d d"]
) -> list[Float[Tensor, "1 c_out d d d"]]:
    """What each stack of layers makes of the same volume. The convolutions that they begin with are
    one."""
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
    together = conv3d(pad_in_own_dtype(volume, 6 * (1,), "replicate"), weight, bias)
    results = []
    for layers, x in zip(
        stacks, together.split([conv.out_channels for conv in convolutions], dim=1), strict=True
    ):
        for layer in list(layers)[2:]:
            x = layer(x)
        results.append(x)
    return results
