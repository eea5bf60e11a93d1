"""Functions on camera poses and the voxel grid, which need no torch. All but `intrinsics` are pure.

cameras: placing cameras, which way is up, axis conventions. coverage: what cameras see of the grid,
whether poses make sense. grid: choosing the grid. paths: through keyframes, between two poses,
around the grid. intrinsics: reads and writes a scene's intrinsics.txt.
"""
