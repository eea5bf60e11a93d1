"""What the importers are made of: structure from motion, readers of other formats, undistortion,
sparse points.

All of them end in a `Capture`, which becomes a scene folder. `check_picture` draws the result.
"""
