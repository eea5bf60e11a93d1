"""Speed and memory, against the machine's own matrix-product peak.

`speed` measures a step and a frame of one preset, `scaling` measures them over sizes, `kernels`
without one CPU kernel at a time, `ranks` on several processes. `operations` lists what a step's
time goes to. `agreement` compares a step's results on a device with the CPU's. `viewer` measures
how quick the viewer is in a browser. `gpu` runs everything that needs a GPU. `prepare` holds what
they share.
"""

import machine.importing  # noqa: F401  first, to report what goes wrong
