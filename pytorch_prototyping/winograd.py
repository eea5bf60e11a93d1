"""3x3 convolutions of many channels with a quarter of the multiplications, for evaluation on the CPU.

Winograd's F(4x4, 3x3) as Lavin and Gray give it (CVPR 2016, section 4.3): tiles of 6x6 pixels that overlap by 2 and the
kernel are transformed, multiplied channel by channel, and transformed back to 4x4 pixels.
"""
import torch
from jaxtyping import Float
from torch import Tensor, nn

LEAST_CHANNELS = 256  # of input and output; with fewer, moving the tiles takes longer than they save
LEAST_TILES = 64  # over the batch; with fewer, moving the kernel does

OF_INPUT = torch.tensor([[4., 0., -5., 0., 1., 0.], [0., -4., -4., 1., 1., 0.], [0., 4., -4., -1., 1., 0.],
                         [0., -2., -1., 2., 1., 0.], [0., 2., -1., -2., 1., 0.], [0., 4., 0., -5., 0., 1.]])
OF_KERNEL = torch.tensor([[1 / 4, 0., 0.], [-1 / 6, -1 / 6, -1 / 6], [-1 / 6, 1 / 6, -1 / 6],
                          [1 / 24, 1 / 12, 1 / 6], [1 / 24, -1 / 12, 1 / 6], [0., 0., 1.]])
OF_OUTPUT = torch.tensor([[1., 1., 1., 1., 1., 0.], [0., 1., -1., 2., -2., 0.], [0., 1., 1., 4., 4., 0.],
                          [0., 1., -1., 8., -8., 1.]])


class WinogradConv2d(nn.Conv2d):
    """A 3x3 convolution without padding whose weights no longer change."""

    def __init__(self, conv: nn.Conv2d):
        super().__init__(conv.in_channels, conv.out_channels, 3, bias=conv.bias is not None, device="meta")
        self.weight, self.bias = conv.weight, conv.bias
        self.transformed = None  # the kernel, in the first call that needs it

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c_out h-2 w-2"]:
        b, c, h, w = x.shape
        rows, columns = (h - 2) // 4, (w - 2) // 4
        if ((h - 2) % 4 or (w - 2) % 4 or b * rows * columns < LEAST_TILES or not x.is_cpu or x.dtype != torch.float32
                or torch.is_autocast_enabled("cpu")):
            return super().forward(x)
        if self.transformed is None:
            taps = self.weight.permute(2, 3, 1, 0).reshape(9, -1)
            self.transformed = (torch.kron(OF_KERNEL, OF_KERNEL) @ taps).view(36, c, -1)
        tiles = x.permute(0, 2, 3, 1).unfold(1, 6, 4).unfold(2, 6, 4).permute(4, 5, 0, 1, 2, 3)
        tiles = torch.kron(OF_INPUT, OF_INPUT) @ tiles.reshape(36, -1)
        products = tiles.view(36, -1, c) @ self.transformed
        pixels = torch.kron(OF_OUTPUT, OF_OUTPUT) @ products.view(36, -1)
        pixels = pixels.view(4, 4, b, rows, columns, -1).permute(2, 3, 0, 4, 1, 5).reshape(b, h - 2, w - 2, -1)
        return (pixels if self.bias is None else pixels.add_(self.bias)).permute(0, 3, 1, 2)


def use_winograd_(module: nn.Module) -> nn.Module:
    """Replaces the 3x3 convolutions of many channels. For evaluation alone: their weights get no gradients."""
    for layers in list(module.modules()):
        for name, layer in layers.named_children():
            if (isinstance(layer, nn.Conv2d) and layer.kernel_size == (3, 3) and layer.stride == (1, 1)
                    and layer.padding == (0, 0) and min(layer.in_channels, layer.out_channels) >= LEAST_CHANNELS):
                setattr(layers, name, WinogradConv2d(layer.requires_grad_(False)))
    return module
