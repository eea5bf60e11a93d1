"""3D convolutions that fill the lanes of a vector register where channels are few, and avoid a slow
path of PyTorch's.

A register holds 16 float32 values, so that layers of few channels leave most of it empty.
Neighbouring voxels are seen as channels instead: the same sums, in fuller registers.
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.amp import custom_bwd, custom_fwd
from torch.autograd.function import once_differentiable

from cpu_kernels import thresholds
from cpu_kernels.same_results import require_close
from cpu_kernels.weight_gradient import CopyingConv, gains_from_copies


def takes_slow_path(x: Float[Tensor, "b c d h w"]) -> bool:
    """Whether PyTorch leaves a convolution of this input, a small batch of one, to an im2col loop,
    about a third as fast as oneDNN."""
    return len(x) == 1 and x.shape[1:4].numel() <= thresholds.SLOW_CONV3D_MAX_ELEMENTS


def conv3d(
    x: Float[Tensor, "b c d h w"],
    weight: Float[Tensor, "c_out c 3 3 3"],
    bias: Float[Tensor, "c_out"] | None,
) -> Float[Tensor, "b c_out d-2 h-2 w-2"]:
    """`F.conv3d`. A small batch of one is cut in two along depth, and so avoids the slow path."""
    half, odd = divmod(x.shape[2] - 2, 2)
    if odd or half < 3 or not takes_slow_path(x):
        return F.conv3d(x, weight, bias)
    halves = torch.cat([x[:, :, : half + 2], x[:, :, half:]])
    return torch.cat(F.conv3d(halves, weight, bias).split(1), dim=2)


class FastConv3d(nn.Conv3d):
    """A 3x3x3 convolution without padding: `conv3d`."""

    STANDS_FOR = ("torch.nn:Conv3d.forward",)

    @staticmethod
    def supports(conv: nn.Conv3d) -> bool:
        return (
            conv.kernel_size == (3, 3, 3)
            and conv.stride == (1, 1, 1)
            and conv.padding == (0, 0, 0)
            and conv.dilation == (1, 1, 1)
            and conv.groups == 1
        )

    def forward(self, x: Float[Tensor, "b c d h w"]) -> Float[Tensor, "b c_out d-2 h-2 w-2"]:
        if gains_from_copies(x, self.weight):
            return CopyingConv.apply(x, self.weight, self.bias, 1)
        return conv3d(x, self.weight, self.bias)


class FastConvTranspose3d(nn.ConvTranspose3d):
    """A 4x4x4 transposed convolution of stride 2 and padding 1 to few channels."""

    STANDS_FOR = ("torch.nn:ConvTranspose3d.forward",)

    @staticmethod
    def supports(conv: nn.ConvTranspose3d) -> bool:
        return (
            2 * conv.out_channels <= thresholds.LANES
            and conv.kernel_size == (4, 4, 4)
            and conv.stride == (2, 2, 2)
            and conv.padding == (1, 1, 1)
            and conv.output_padding == (0, 0, 0)
            and conv.dilation == (1, 1, 1)
            and conv.groups == 1
        )

    def forward(self, x: Float[Tensor, "b c d h w"]) -> Float[Tensor, "b c_out 2*d 2*h 2*w"]:
        if takes_slow_path(x):
            return super().forward(x)
        return _DoublingConv3d.apply(x, self.weight, self.bias)

    @staticmethod
    def check() -> None:
        """Raises if what this needs of PyTorch beyond its public interface has changed."""
        inputs = [
            torch.linspace(-1, 1, math.prod(shape)).view(shape).sin().requires_grad_()
            for shape in ((2, 3, 2, 3, 4), (3, 2, 4, 4, 4), (2,))
        ]
        expected = F.conv_transpose3d(*inputs, stride=2, padding=1)
        for one, other in zip(
            torch.autograd.grad(_DoublingConv3d.apply(*inputs).square().sum(), inputs),
            torch.autograd.grad(expected.square().sum(), inputs),
            strict=True,
        ):
            require_close(one, other, rtol=1e-4, atol=1e-3)


class _DoublingConv3d(torch.autograd.Function):
    """The transposed convolution as a convolution: in each direction voxels 2i-1 and 2i of the
    output depend on voxels i-1 and i of the input. The gradients are those of the transposed
    convolution, which PyTorch computes fast."""

    @staticmethod
    @custom_fwd(device_type="cpu", cast_inputs=torch.bfloat16)
    def forward(
        ctx,
        x: Float[Tensor, "b c d h w"],
        weight: Float[Tensor, "c c_out 4 4 4"],
        bias: Float[Tensor, "c_out"] | None,
    ) -> Float[Tensor, "b c_out 2*d 2*h 2*w"]:
        ctx.save_for_backward(x, weight)
        c, c_out = weight.shape[:2]
        taps = weight.view(c, c_out, 2, 2, 2, 2, 2, 2).flip(
            2, 4, 6
        )  # per axis: of i-1 and i; to 2i-1 and 2i
        kernel = taps.permute(3, 5, 7, 1, 0, 2, 4, 6).reshape(8 * c_out, c, 2, 2, 2)
        cells = F.conv3d(
            x,
            kernel.contiguous(memory_format=torch.channels_last_3d),
            None if bias is None else bias.repeat(8),
            padding=1,
        )
        b, _, d, h, w = cells.shape
        voxels = (
            cells.permute(0, 2, 3, 4, 1)
            .reshape(b, d, h, w, 2, 2, 2 * c_out)
            .permute(0, 1, 4, 2, 5, 3, 6)
        )
        # The outermost voxels are half of a pair, whose other half lies outside.
        voxels = voxels.reshape(b, 2 * d, 2 * h, 2 * w, c_out)[:, 1:-1, 1:-1, 1:-1].permute(
            0, 4, 1, 2, 3
        )
        return torch.empty_like(voxels, memory_format=torch.channels_last_3d).copy_(voxels)

    @staticmethod
    @custom_bwd(device_type="cpu")
    @once_differentiable
    def backward(ctx, grad: Float[Tensor, "b c_out d h w"]) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        # Both gradients in one call, as autograd makes it; torch.nn.grad takes a call for each.
        return torch.ops.aten.convolution_backward(
            grad,
            x,
            weight,
            [weight.shape[1]],
            [2, 2, 2],
            [1, 1, 1],
            [1, 1, 1],
            True,
            [0, 0, 0],
            1,
            list(ctx.needs_input_grad),
        )
