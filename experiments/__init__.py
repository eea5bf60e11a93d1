"""The paper's evaluation (section 4) as commands: `table1`, `occlusion`, `sensitivity`; and
`stability`, `curve`.

Each plans its runs (`plan`), trains and tests them (`execute`, `worker`), and writes tables and
pictures; repeating a command runs what is missing.

    python -m experiments.table1 --scenes data/cube data/vase --steps 3000 --seeds 0 1
        --out results/table1 --size small

Flags that an experiment does not know go to run_deepvoxels.py, for all its runs.
"""
