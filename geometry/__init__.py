"""Pure functions on camera poses and the voxel grid: placing cameras, what they see of the grid,
choosing the grid.

They need numpy alone and know no files.
"""
