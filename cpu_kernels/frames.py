"""Prepares a model for rendering many frames with weights that no longer change."""

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from cpu_kernels.conv2d import FastConv2d
from pytorch_prototyping.blocks import Conv2dSame, Conv3dSame


def prepare_for_frames_(model: nn.Module) -> nn.Module:
    """Puts the model into evaluation mode for good: batch norms are folded into the convolutions
    before them, and kernels are transformed once, by the first frame.

    Weights that are loaded afterwards would be ignored or misread: loading raises RuntimeError.
    """
    fold_batch_norms_(model.eval().requires_grad_(False))
    for layer in model.modules():
        if isinstance(layer, FastConv2d):
            layer.frozen = True
        layer.register_load_state_dict_pre_hook(_refuse)
    return model


def fold_batch_norms_(model: nn.Module) -> None:
    """Replaces every batch norm that directly follows a convolution by an equal change of the
    convolution's weights."""
    for layers in [part for part in model.modules() if isinstance(part, nn.Sequential)]:
        for i in range(len(layers) - 1):
            holder, index = (
                (layers[i].net, 1)
                if isinstance(layers[i], (Conv2dSame, Conv3dSame))
                else (layers, i)
            )
            conv = holder[index]
            norm = layers[i + 1]
            if isinstance(norm, nn.modules.batchnorm._BatchNorm) and isinstance(
                conv, nn.modules.conv._ConvNd
            ):
                holder[index] = fuse_conv_bn_eval(conv, norm, transpose=conv.transposed)
                layers[i + 1] = nn.Identity()


def _refuse(module: nn.Module, *_) -> None:
    raise RuntimeError(
        f"{type(module).__name__}: is prepared for frames; load weights into a model that is not"
    )
