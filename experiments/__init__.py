"""The paper's evaluation (section 4): Table 1, the occlusion study, the sensitivity studies, each one command.

    python -m experiments.table1 --scenes data/cube data/vase --steps 3000 --seeds 0 1 --out results/table1
        --img_sidelength 64 --proj_sidelength 32 --grid_dim 16 --num_grid_feats 16 --nf0 16

Flags that an experiment does not know are those of run_deepvoxels.py and hold for all its runs.
"""
