"""The sub-networks of DeepVoxels in the paper's order (section 3.2): feature extraction, integration, occlusion
reasoning, rendering."""
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from cpu_kernels.narrow import NarrowBatchNorm3d
from cpu_kernels.padding import ReplicationPad3d
from pytorch_prototyping.blocks import Conv2dSame, Conv3dSame, DownBlock, UpBlock, conv3d, conv3d_same, norm_act_dropout
from pytorch_prototyping.unet import Unet, Unet3d


def times_divisible_by_2(number: int) -> int:
    """How often a sidelength can be halved before it is odd."""
    return (number & -number).bit_length() - 1


class BlockChain(nn.Module):
    """Blocks in a row, under the name that original checkpoints give them (`downs` or `ups`)."""

    def __init__(self, name: str, blocks: list[nn.Module]):
        super().__init__()
        self.add_module(name, nn.Sequential(*blocks))

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c_out h_out w_out"]:
        (blocks,) = self.children()
        return blocks(x)


class FeatureExtractor(nn.Module):
    """Image to feature map (paper, 3.2 'Feature Extraction'): down to the map's size, then a U-Net down to 1x1."""

    def __init__(self, nf0: int, out_channels: int, img_sidelength: int, proj_sidelength: int):
        super().__init__()
        num_down = times_divisible_by_2(img_sidelength // proj_sidelength)
        channels = [3] + [nf0 * 2 ** i for i in range(num_down)]
        downs = [DownBlock(channels[i], channels[i + 1], middle_channels=channels[1] if i == 0 else None)
                 for i in range(num_down)]
        width = nf0 * 2 ** max(num_down - 1, 0)
        self.net = nn.Sequential(
            BlockChain("downs", downs),
            Unet(channels[-1], out_channels, nf0=width, num_down=times_divisible_by_2(proj_sidelength),
                 max_channels=8 * nf0))

    def forward(self, image: Float[Tensor, "b 3 s s"]) -> Float[Tensor, "b f m m"]:
        return self.net(image)


class IntegrationNet(nn.Module):
    """The gated recurrent unit that fuses an observation into the persistent volume (paper, equations 2-5).

    All convolutions are 3x3x3 and see the voxel's coordinates, (i - D/2)/D per axis, besides the features. The gates
    have one value a voxel. Both candidate convolutions are followed by channel dropout of 0.2.
    """

    def __init__(self, num_features: int, grid_dim: int):
        super().__init__()
        channels = num_features + 3

        def conv(out_channels: int, bias: bool, dropout: bool = False) -> nn.Sequential:
            return nn.Sequential(ReplicationPad3d(1), nn.Conv3d(channels, out_channels, 3, bias=bias),
                                 *([nn.Dropout3d(0.2)] if dropout else []))

        self.new_integration = conv(num_features, bias=True, dropout=True)
        self.old_integration = conv(num_features, bias=False, dropout=True)
        self.update_old_net = conv(1, bias=True)
        self.update_new_net = conv(1, bias=False)
        self.reset_old_net = conv(1, bias=True)
        self.reset_new_net = conv(1, bias=False)
        self.register_buffer("coordinates", voxel_coordinates(grid_dim), persistent=False)

    def forward(self, observation: Float[Tensor, "1 f d d d"], state: Float[Tensor, "1 f d d d"],
                ) -> tuple[Float[Tensor, "1 f d d d"], Float[Tensor, "1 1 d d d"], Float[Tensor, "1 1 d d d"]]:
        """Returns the new state H_t, the update gate Z_t and the reset gate R_t, both gates in (0, 1)."""
        new = torch.cat([observation, self.coordinates], dim=1)
        old = torch.cat([state, self.coordinates], dim=1)
        update_new, reset_new, new_candidate = apply_together(
            new, self.update_new_net, self.reset_new_net, self.new_integration)
        update_old, reset_old = apply_together(old, self.update_old_net, self.reset_old_net)
        # What autocast computed in bfloat16 is mixed in float32.
        update = torch.sigmoid(update_new.float() + update_old)  # (2)
        reset = torch.sigmoid(reset_new.float() + reset_old)  # (3)
        (old_candidate,) = apply_together(reset * old, self.old_integration)
        candidate = torch.relu(new_candidate.float() + old_candidate)  # (4)
        return (1 - update) * state + update * candidate, update, reset  # (5)


class OcclusionNet(nn.Module):
    """Soft visibility of every voxel of the canonical view volumes, and their collapse over depth (paper, 3.2
    'Occlusion Module')."""

    def __init__(self, num_features: int, frustum_depth: int, proj_sidelength: int):
        super().__init__()
        width = 4
        self.occlusion_prep = nn.Sequential(Conv3dSame(num_features + 1, width, 3, bias=False),
                                            NarrowBatchNorm3d(width), nn.ReLU(True))
        self.occlusion_net = Unet3d(
            width, width, nf0=width, max_channels=4 * width,
            num_down=min(times_divisible_by_2(frustum_depth), times_divisible_by_2(proj_sidelength)))
        self.softmax_net = nn.Sequential(Conv3dSame(2 * width + 1, 1, 3), nn.Softmax(dim=2))
        planes = torch.arange(-(frustum_depth // 2), frustum_depth - frustum_depth // 2) / frustum_depth
        self.register_buffer("depth_coordinates", planes.view(1, 1, -1, 1, 1), persistent=False)

    def forward(self, volumes: Float[Tensor, "v f depth m m"],
                ) -> tuple[Float[Tensor, "v f m m"], Float[Tensor, "v 1 m m"]]:
        """Returns the collapsed feature maps and the expected depth coordinate, in [-1/2, 1/2): (k - D_f/2)/D_f at
        plane k of D_f.

        The collapse is the mean over depth of weight x feature: the paper's weighted sum over D_f, as original
        checkpoints expect.
        """
        prep_conv, *prep_rest = self.occlusion_prep
        visibility_conv, softmax = self.softmax_net
        prepared = self._conv_with_depth(prep_conv, volumes, depth_channel=0)
        for layer in prep_rest:
            prepared = layer(prepared)
        reasoned = self.occlusion_net(prepared)
        seen = torch.cat([prepared, reasoned], dim=1)
        visibility = softmax(self._conv_with_depth(visibility_conv, seen, depth_channel=seen.shape[1]).float())
        if torch.compiler.is_compiling():  # a compiled graph fuses the product with the mean
            collapsed = (visibility * volumes).mean(dim=2)
        else:
            collapsed = _MeanOverDepth.apply(visibility, volumes)
        return collapsed, (visibility * self.depth_coordinates).sum(dim=2)

    def _conv_with_depth(self, layer: Conv3dSame, x: Float[Tensor, "v c depth m m"], depth_channel: int,
                         ) -> Float[Tensor, "v c_out depth m m"]:
        """The layer's convolution of x with the depth coordinate inserted as channel `depth_channel`.

        The coordinate is the same for all columns of all views, so its share is computed for one column.
        """
        pad, conv = layer.net
        before, depth_weight, after = conv.weight.split([depth_channel, 1, conv.in_channels - depth_channel - 1], dim=1)
        of_depth = conv3d(pad(self.depth_coordinates.to(x.dtype)).expand(-1, -1, -1, 3, 3), depth_weight, conv.bias)
        return conv3d_same(x, torch.cat([before, after], dim=1)) + of_depth


class _MeanOverDepth(torch.autograd.Function):
    """`(visibility * volumes).mean(dim=2)` plane by plane and its gradients some planes at a time, without the products
    as tensors."""

    elements = 2 ** 18  # at a time: more leave the cache, fewer are not worth starting an operation

    @staticmethod
    def forward(ctx, visibility: Float[Tensor, "v 1 depth m m"], volumes: Float[Tensor, "v f depth m m"],
                ) -> Float[Tensor, "v f m m"]:
        ctx.save_for_backward(visibility, volumes)
        total = torch.zeros_like(volumes[:, :, 0])
        for weight, plane in zip(visibility.unbind(dim=2), volumes.unbind(dim=2), strict=True):
            total.addcmul_(weight, plane)
        return total / volumes.shape[2]

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Float[Tensor, "v f m m"]) -> tuple[Tensor, Tensor]:
        visibility, volumes = ctx.saved_tensors
        gradient = (gradient / volumes.shape[2]).contiguous(memory_format=torch.channels_last)[:, :, None]
        of_visibility, of_volumes = torch.empty_like(visibility), torch.empty_like(volumes)
        planes = max(1, _MeanOverDepth.elements // gradient.numel())
        for volume, weight, of_volume, of_weight in zip(
                *(tensor.split(planes, dim=2) for tensor in (volumes, visibility, of_volumes, of_visibility)),
                strict=True):
            torch.sum(volume * gradient, dim=1, keepdim=True, out=of_weight)
            torch.mul(weight, gradient, out=of_volume)
        return of_visibility, of_volumes


class RenderingNet(nn.Module):
    """Feature map to image (paper, 3.2 'Rendering'): a U-Net down to 1x1, then up to the image's size.

    Images lie in [-1/2, 1/2].
    """

    def __init__(self, nf0: int, in_channels: int, proj_sidelength: int, img_sidelength: int):
        super().__init__()
        num_up = times_divisible_by_2(img_sidelength // proj_sidelength)
        dropout = 0.1
        unet = Unet(in_channels, 4 * nf0 if num_up else 3, nf0=nf0 * 2 ** num_up, max_channels=8 * nf0,
                    num_down=times_divisible_by_2(proj_sidelength), dropout=dropout, linear_out=not num_up)
        channels = [4 * nf0] + num_up * [nf0]
        ups = [UpBlock(channels[i], channels[i + 1], dropout=dropout) for i in range(num_up)]
        to_color = [BlockChain("ups", ups), Conv2dSame(nf0, nf0 // 2, 3, bias=False),
                    *norm_act_dropout(nf0 // 2), Conv2dSame(nf0 // 2, 3, 3)]
        self.net = nn.Sequential(unet, *(to_color if num_up else []), nn.Tanh())

    def forward(self, features: Float[Tensor, "b f m m"]) -> Float[Tensor, "b 3 s s"]:
        return self.net(features) / 2


def depth_collapse_net(num_features: int, frustum_depth: int, nf0: int) -> nn.Sequential:
    """The collapse without occlusion reasoning (paper, section 4, 'Occlusion Reasoning and Interpretability'): depth
    is folded into channels, which three convolutions reduce to nf0."""
    grid_dim = frustum_depth // 2
    channels = [num_features * frustum_depth, nf0 * grid_dim // 2, nf0 * grid_dim // 8, nf0]
    layers = []
    for i in range(3):
        layers += [Conv2dSame(channels[i], channels[i + 1], 3, bias=False), *norm_act_dropout(channels[i + 1])]
    return nn.Sequential(*layers)


def voxel_coordinates(grid_dim: int) -> Float[Tensor, "1 3 d d d"]:
    """The coordinates (i - D/2)/D of every voxel along z, y and x, the axes of a volume."""
    axis = (torch.arange(grid_dim) - grid_dim / 2) / grid_dim
    return torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"))[None]


def apply_together(x: Float[Tensor, "b c d d d"], *nets: nn.Sequential) -> list[Float[Tensor, "b _ d d d"]]:
    """The outputs of several nets (padding, convolution, optional dropout) of one input, by a single convolution.

    One wide convolution reads its input once; several narrow ones are limited by memory, not by arithmetic.
    """
    convs = [net[1] for net in nets]
    biases = [conv.weight.new_zeros(conv.out_channels) if conv.bias is None else conv.bias for conv in convs]
    together = conv3d(nets[0][0](x), torch.cat([conv.weight for conv in convs]), torch.cat(biases))
    parts = together.split([conv.out_channels for conv in convs], dim=1)
    return [net[2:](part) for net, part in zip(nets, parts, strict=True)]
