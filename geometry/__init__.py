"""Pure functions on camera poses and the voxel grid; they read no files and need no torch.

cameras: placing cameras, which way is up, axis conventions. coverage: what cameras see of the grid,
whether poses make sense. grid: choosing the grid. paths: through keyframes, between two poses,
around the grid.
"""
