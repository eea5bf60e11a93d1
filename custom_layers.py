"""The sub-networks of DeepVoxels in the paper's order (section 3.2): feature extraction,
integration, occlusion reasoning, rendering.

What the paper leaves open (channels, dropout, norms, the coordinates beside the features) is as in
the original's code; docs/design.md, section 4, lists it.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pytorch_prototyping.blocks import Conv2dSame, Conv3dSame, DownBlock, UpBlock, norm_act_dropout
from pytorch_prototyping.unet import Unet, Unet3d


def num_halvings(sidelength: int) -> int:
    """How often a sidelength can be halved before it is odd."""
    return (sidelength & -sidelength).bit_length() - 1


class BlockChain(nn.Module):
    """Blocks in a row, under the name that original checkpoints give them (`downs` or `ups`)."""

    def __init__(self, name: str, blocks: list[nn.Module]):
        super().__init__()
        self.add_module(name, nn.Sequential(*blocks))

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c_out h_out w_out"]:
        (blocks,) = self.children()
        return blocks(x)


class FeatureExtractor(nn.Module):
    """Image to feature map (paper, 3.2 'Feature Extraction'): down to the map's size, then a U-Net
    down to 1x1.

    nf0: channels after the first halving; each further one doubles them. Sidelengths are in pixels,
    powers of two.
    """

    def __init__(self, nf0: int, out_channels: int, img_sidelength: int, proj_sidelength: int):
        super().__init__()
        num_down = num_halvings(img_sidelength // proj_sidelength)
        channels = [3] + [nf0 * 2**i for i in range(num_down)]
        downs = [
            # The first block's middle would have as few channels as the image.
            DownBlock(channels[i], channels[i + 1], middle_channels=channels[1] if i == 0 else None)
            for i in range(num_down)
        ]
        self.net = nn.Sequential(
            BlockChain("downs", downs),
            Unet(
                channels[-1],
                out_channels,
                nf0=channels[-1] if num_down else nf0,
                num_down=num_halvings(proj_sidelength),
                max_channels=8 * nf0,
            ),
        )

    def forward(self, image: Float[Tensor, "b 3 s s"]) -> Float[Tensor, "b f m m"]:
        """Images in [-1/2, 1/2]."""
        return self.net(image)


class IntegrationNet(nn.Module):
    """The gated recurrent unit that fuses an observation into the persistent volume (paper,
    equations 2-5).

    W and U are 3x3x3 convolutions. A gate has one value per voxel, so that all its features are
    updated jointly. Not in the paper: W and U see each voxel's coordinates, (i - D/2)/D per axis,
    besides its features, and channel dropout of 0.2 follows W_s and U_s.

    The layers have the names that original checkpoints give them: "new" is the observation X_t,
    "old" the hidden state H_t-1.
    """

    def __init__(self, num_features: int, grid_dim: int):
        super().__init__()
        channels = num_features + 3

        def conv(out_channels: int, bias: bool, dropout: bool = False) -> nn.Sequential:
            return nn.Sequential(
                nn.ReplicationPad3d(1),
                nn.Conv3d(channels, out_channels, 3, bias=bias),
                *([nn.Dropout3d(0.2)] if dropout else []),
            )

        self.new_integration = conv(num_features, bias=True, dropout=True)  # W_s, B_s
        self.old_integration = conv(num_features, bias=False, dropout=True)  # U_s
        self.update_old_net = conv(1, bias=True)  # U_z, B_z
        self.update_new_net = conv(1, bias=False)  # W_z
        self.reset_old_net = conv(1, bias=True)  # U_r, B_r
        self.reset_new_net = conv(1, bias=False)  # W_r
        self.register_buffer("coordinates", voxel_coordinates(grid_dim), persistent=False)

    def forward(
        self,
        observation: Float[Tensor, "1 f d d d"],
        state: Float[Tensor, "1 f d d d"],
    ) -> tuple[Float[Tensor, "1 f d d d"], Float[Tensor, "1 1 d d d"], Float[Tensor, "1 1 d d d"]]:
        """Takes the observation X_t and the hidden state H_t-1; returns the new state H_t, the
        update gate Z_t and the reset gate R_t, both gates in (0, 1).

        The sums are float32, under autocast too.
        """
        x = torch.cat([observation, self.coordinates], dim=1)
        h = torch.cat([state, self.coordinates], dim=1)
        # Z_t, equation (2)
        update = torch.sigmoid(self.update_new_net(x).float() + self.update_old_net(h))
        # R_t, equation (3)
        reset = torch.sigmoid(self.reset_new_net(x).float() + self.reset_old_net(h))
        # S_t, equation (4); the reset gate scales the coordinates in h too
        proposal = torch.relu(self.new_integration(x).float() + self.old_integration(reset * h))
        # H_t, equation (5)
        return (1 - update) * state + update * proposal, update, reset


class OcclusionNet(nn.Module):
    """Computes the soft visibility of every voxel of the canonical view volumes, and collapses them
    over depth (paper, 3.2 'Occlusion Module').

    frustum_depth: the number of depth planes, D_f. proj_sidelength: pixels along each side of the
    feature map. The paper's "distance of each voxel to the camera" is its plane's coordinate,
    (k - D_f/2)/D_f for plane k.
    """

    def __init__(self, num_features: int, frustum_depth: int, proj_sidelength: int):
        super().__init__()
        # The paper's "low-dimensional feature vector of dimension 4"
        width = 4
        self.occlusion_prep = nn.Sequential(
            Conv3dSame(num_features + 1, width, 3, bias=False),
            *norm_act_dropout(width, norm=nn.BatchNorm3d),
        )
        self.occlusion_net = Unet3d(
            width,
            width,
            nf0=width,
            max_channels=4 * width,
            num_down=min(num_halvings(frustum_depth), num_halvings(proj_sidelength)),
        )
        # It sees the features before and after the U-Net, and the depth again.
        self.softmax_net = nn.Sequential(Conv3dSame(2 * width + 1, 1, 3), DepthSoftmax())
        planes = centered_coordinates(frustum_depth)
        self.register_buffer("depth_coordinates", planes.view(1, 1, -1, 1, 1), persistent=False)

    def forward(
        self,
        volumes: Float[Tensor, "v f depth m m"],
    ) -> tuple[Float[Tensor, "v f m m"], Float[Tensor, "v 1 m m"]]:
        """Collapses canonical view volumes to feature maps.

        Returns the maps, and per pixel the mean depth coordinate, weighted by visibility, in
        [-1/2, 1/2).
        """
        depth = self.depth_coordinates.expand(len(volumes), -1, -1, *volumes.shape[3:])
        compressed = self.occlusion_prep(torch.cat([depth, volumes], dim=1))
        reasoned = self.occlusion_net(compressed)
        visibility = self.softmax_net(torch.cat([compressed, reasoned, depth], dim=1))
        return collapse(volumes, visibility), (visibility * self.depth_coordinates).sum(dim=2)


class DepthSoftmax(nn.Softmax):
    """Softmax over depth planes, in float32 under autocast too."""

    def __init__(self):
        super().__init__(dim=2)

    def forward(self, logits: Float[Tensor, "v 1 depth m m"]) -> Float[Tensor, "v 1 depth m m"]:
        return super().forward(logits.float())


def collapse(
    volumes: Float[Tensor, "v f depth m m"],
    visibility: Float[Tensor, "v 1 depth m m"],
) -> Float[Tensor, "v f m m"]:
    """The mean over depth of visibility * feature. This is the paper's weighted sum divided by the
    number of planes, as original checkpoints expect."""
    return (visibility * volumes).mean(dim=2)


class RenderingNet(nn.Module):
    """Feature map to image (paper, 3.2 'Rendering'): a U-Net down to 1x1, then up to the image's
    size.

    Sidelengths are in pixels, powers of two. Where they are the same, nothing follows the U-Net,
    which then ends in the colors.
    """

    def __init__(self, nf0: int, in_channels: int, proj_sidelength: int, img_sidelength: int):
        super().__init__()
        num_up = num_halvings(img_sidelength // proj_sidelength)
        dropout = 0.1
        unet = Unet(
            in_channels,
            4 * nf0 if num_up else 3,
            nf0=nf0 * 2**num_up,
            max_channels=8 * nf0,
            num_down=num_halvings(proj_sidelength),
            dropout=dropout,
            linear_out=not num_up,
        )
        channels = [4 * nf0] + num_up * [nf0]
        ups = [UpBlock(channels[i], channels[i + 1], dropout=dropout) for i in range(num_up)]
        to_color = [
            BlockChain("ups", ups),
            Conv2dSame(nf0, nf0 // 2, 3, bias=False),
            *norm_act_dropout(nf0 // 2),
            Conv2dSame(nf0 // 2, 3, 3),
        ]
        self.net = nn.Sequential(unet, *(to_color if num_up else []), nn.Tanh())

    def forward(self, features: Float[Tensor, "b f m m"]) -> Float[Tensor, "b 3 s s"]:
        """Images in [-1/2, 1/2]."""
        return self.net(features) / 2


def depth_collapse_net(num_features: int, frustum_depth: int, nf0: int) -> nn.Sequential:
    """The collapse without occlusion reasoning (paper, section 4, 'Occlusion Reasoning and
    Interpretability'): takes (v, f * depth, m, m), depth folded into channels, which three
    convolutions reduce to nf0."""
    grid_dim = frustum_depth // 2
    channels = [num_features * frustum_depth, nf0 * grid_dim // 2, nf0 * grid_dim // 8, nf0]
    layers = []
    for i in range(3):
        layers += [
            Conv2dSame(channels[i], channels[i + 1], 3, bias=False),
            *norm_act_dropout(channels[i + 1]),
        ]
    return nn.Sequential(*layers)


def voxel_coordinates(grid_dim: int) -> Float[Tensor, "1 3 d d d"]:
    """The coordinates (i - D/2)/D of every voxel along z, y and x, the axes of a volume."""
    axis = centered_coordinates(grid_dim)
    return torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"))[None]


def centered_coordinates(count: int) -> Float[Tensor, "count"]:
    """The coordinate (i - count/2)/count, in [-1/2, 1/2), of each of `count` voxels in a row."""
    return (torch.arange(count) - count / 2) / count
