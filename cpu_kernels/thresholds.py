"""When a kernel takes over from PyTorch's own layer. These numbers decide about speed and memory,
never about results.

Where processors differ, the first number is for those with AVX-512, the second for those without,
as PyTorch reports it. The first were tuned on 2 cores of an AMD EPYC (Zen 4) with PyTorch 2.15, at
the presets of `benchmarks/speed.py`; the second with PyTorch 2.14, `FOLDED_CELL` on 2 cores of a
Zen 3, the others kept to AVX2 on a processor that has more. `python -m benchmarks.kernels` measures
what each kernel gains (docs/performance.md has the tables).
"""

import torch

HAS_AVX512 = torch.backends.cpu.get_cpu_capability().startswith(("AVX512", "AMX"))


def choose(with_avx512: int, without: int) -> int:
    """The number for this processor."""
    return with_avx512 if HAS_AVX512 else without


NEVER = 2**60
LANES = choose(16, 8)  # float32 values in a vector register

# few_pixels.py: convolutions of small maps as matrix products
FEW_PIXELS_MAX_PAIRS = (
    2048  # input pixels x output pixels; with more, gathering the windows costs more than it saves
)
FEW_PIXELS_MIN_CHANNELS = 64  # of the input; with fewer, the weights are small

# winograd.py: 3x3 convolutions of many channels
# Of input and output; with fewer, moving the tiles costs more than it saves.
WINOGRAD_MIN_CHANNELS = choose(256, 128)
WINOGRAD_MIN_TILES = 64  # over the batch; with fewer, transforming the kernel does
WINOGRAD_MAX_WEIGHTS = 9 * 2**20  # in training: a transformed kernel takes four times the memory

# folded_conv3d.py: 3x3x3 convolutions to few channels
FOLDED_MAX_CHANNELS = 4  # of the output: with four pixels, or two, they fill the lanes
FOLDED_CELL = choose(2, 1)  # neighbouring voxels of the input that are seen as one
FOLDED_MAX_KEPT = (
    2**20
)  # elements of the input; larger inputs are padded again in backward, to save memory

# conv3d.py
SLOW_CONV3D_MAX_ELEMENTS = (
    20480  # channels x depth x height; up to here PyTorch takes a slow path for a batch of one
)

# weight_gradient.py: elements of the input and channels from which copies gain
COPIED_GRADIENT_MIN_ELEMENTS = choose(NEVER, 2**20)
COPIED_GRADIENT_MIN_CHANNELS = 64

# batch_norm.py: batch norm of few channels
ROWS_MAX_CHANNELS = 8
ROW = 64  # floats that are normalised as one row
ROWS = 4096  # that are computed at a time, so that they stay in the cache

# padding.py, norm_act.py: layers that keep less for backward, elements of a map from which they do
LEAN_MIN_ELEMENTS = 2**20

# occlusion.py: elements of the collapse's gradient that are computed at a time, so that they stay
# in the cache
COLLAPSE_ELEMENTS = 2**18
