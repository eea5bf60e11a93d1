"""Speed and memory, against the machine's own matrix-product peak: `speed` measures a step and a
frame of one preset, `scaling` measures them over sizes, `gpu` runs everything that needs a GPU.
"""

import machine.importing  # noqa: F401  first, to report what goes wrong
