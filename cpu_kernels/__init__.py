"""What makes the model fast on a CPU; no plain class knows of it.

`accelerate_(model)` exchanges layers for subclasses with the same parameters and results, each in a
file of its own; `prepare_for_frames_(model)` then folds and freezes it for evaluation.
`thresholds.py` says when a kernel applies.
"""

from cpu_kernels.accelerate import accelerate_
from cpu_kernels.frames import prepare_for_frames_

__all__ = ["accelerate_", "prepare_for_frames_"]
