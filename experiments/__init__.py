"""The paper's evaluation (section 4) as commands: `table1`, `occlusion`, `sensitivity`; besides
them `stability`, and `curve`, which measures the checkpoints of runs. `worker` helps with a study's
runs.

What the studies share: `study` (flags, and the way from runs to tables), `plan` (the runs, written
down), `execute` (one run), `work` (several at once), `slurm` (on a cluster), `status` (how far they
are), `results` (tables) and `figures` (plots and pictures). Repeating a command runs what is
missing.

    python -m experiments.table1 --scenes data/cube data/vase --steps 3000 --seeds 0 1
        --out results/table1 --size small

Flags that an experiment does not know go to run_deepvoxels.py, for all its runs.
"""

import machine.importing  # noqa: F401  first, to report what goes wrong
