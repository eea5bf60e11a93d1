"""What makes the model fast on a CPU; no plain class knows of it.

`accelerate_(model)` (`accelerate`) exchanges layers for subclasses with the same parameters and
results; `prepare_for_frames_(model)` (`frames`) then folds and freezes it for evaluation.

The subclasses:
    `conv2d`, `conv3d`: convolutions, each the fastest way for its input. `winograd`, `few_pixels`,
    `folded_conv3d` and `weight_gradient` are such ways.
    `sequential`: neighbouring layers as one. `norm_act`: batch norm, activation and dropout as one.
    `batch_norm`: batch norm of few channels. `padding`: reflection padding.
    `avg_pool`: means over windows that overlap.
    `view_volumes`, `integration`, `occlusion`: projection, GRU and occlusion reasoning.

When a kernel is used:
    `thresholds`: for which sizes it is faster.
    `written_for`: whether the functions that it stands for are unchanged.
    `hooks`: whether layers have hooks, which only fire if they are called.
    `same_results`: whether its self-check gives the plain layers' results.
"""

from cpu_kernels.accelerate import accelerate_
from cpu_kernels.frames import prepare_for_frames_

__all__ = ["accelerate_", "prepare_for_frames_"]
