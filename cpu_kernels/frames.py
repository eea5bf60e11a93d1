"""Prepares a model for rendering many frames with weights that no longer change."""

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from cpu_kernels.conv2d import FastConv2d
from cpu_kernels.hooks import must_be_called, plain_type
from cpu_kernels.written_for import first_changed, warn_left_out
from pytorch_prototyping.blocks import Conv2dSame, Conv3dSame

CONVOLUTIONS = (nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.ConvTranspose3d)
NORMS = (nn.BatchNorm2d, nn.BatchNorm3d)
STANDS_FOR = (
    "pytorch_prototyping.blocks:Conv2dSame.forward",
    "pytorch_prototyping.blocks:Conv3dSame.forward",
    "torch.nn:Sequential.forward",
    *(f"torch.nn:{layer.__name__}.forward" for layer in (*CONVOLUTIONS, *NORMS)),
)


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
    convolution's weights. Left out where one of the plain functions has been changed."""
    if (changed := first_changed(STANDS_FOR)) is not None:
        warn_left_out("fold_batch_norms_", f"{changed} is not the function that it was written for")
        return
    for layers in [part for part in model.modules() if plain_type(part) is nn.Sequential]:
        for i in range(len(layers) - 1):
            holder = layers
            index = i
            if type(layers[i]) in (Conv2dSame, Conv3dSame):
                holder = layers[i].net
                index = 1
            conv = holder[index]
            norm = layers[i + 1]
            if (
                plain_type(conv) in CONVOLUTIONS
                and plain_type(norm) in NORMS
                and norm.track_running_stats
                and not must_be_called(layers[i], norm)
            ):
                holder[index] = fuse_conv_bn_eval(conv, norm, transpose=conv.transposed)
                layers[i + 1] = nn.Identity()


def _refuse(module: nn.Module, *_) -> None:
    raise RuntimeError(
        f"{type(module).__name__}: is prepared for frames; load weights into a model that is not"
    )
