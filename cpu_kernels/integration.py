"""The GRU's convolutions of one input as a single wide one."""
import torch
from jaxtyping import Float
from torch import Tensor, nn

from cpu_kernels.conv3d import conv3d
from cpu_kernels.hooks import check_hooks, is_watched
from custom_layers import IntegrationNet


class FastIntegrationNet(IntegrationNet):
    """One wide convolution reads its input once; several narrow ones are limited by memory, not by arithmetic."""

    check = staticmethod(check_hooks)

    @staticmethod
    def supports(net: IntegrationNet) -> bool:
        return True

    def forward(self, observation: Float[Tensor, "1 f d d d"], state: Float[Tensor, "1 f d d d"],
                ) -> tuple[Float[Tensor, "1 f d d d"], Float[Tensor, "1 1 d d d"], Float[Tensor, "1 1 d d d"]]:
        if is_watched(*self.children()):
            return super().forward(observation, state)
        x = torch.cat([observation, self.coordinates], dim=1).contiguous(memory_format=torch.channels_last_3d)
        h = torch.cat([state, self.coordinates], dim=1).contiguous(memory_format=torch.channels_last_3d)
        update_new, reset_new, new_proposal = apply_together(
            x, self.update_new_net, self.reset_new_net, self.new_integration)
        update_old, reset_old = apply_together(h, self.update_old_net, self.reset_old_net)
        update = torch.sigmoid(update_new.float() + update_old)  # equation (2)
        reset = torch.sigmoid(reset_new.float() + reset_old)  # (3)
        proposal = torch.relu(new_proposal.float() + self.old_integration(reset * h))  # (4)
        return (1 - update) * state + update * proposal, update, reset  # (5)


def apply_together(x: Float[Tensor, "b c d d d"], *nets: nn.Sequential) -> list[Float[Tensor, "b _ d d d"]]:
    """The outputs of several nets (padding, convolution, perhaps dropout) of one input."""
    convs = [net[1] for net in nets]
    biases = [conv.weight.new_zeros(conv.out_channels) if conv.bias is None else conv.bias for conv in convs]
    together = conv3d(nets[0][0](x), torch.cat([conv.weight for conv in convs]), torch.cat(biases))
    parts = together.split([conv.out_channels for conv in convs], dim=1)
    return [net[2:](part) for net, part in zip(nets, parts, strict=True)]
