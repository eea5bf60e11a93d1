"""What the importers are made of: structure from motion, readers of other formats, undistortion, sparse points.

All of them end in a `Capture`, which becomes a scene folder. `check_picture` draws the result.
"""
import sys
from importlib.util import find_spec

if find_spec("pycolmap") is None:  # a command's import, so that its first line can be its only one
    print("error: photos, COLMAP models and transforms.json are read with pycolmap, which is not installed (it has no "
          "package for Linux on ARM); make the scene folder on another machine, it trains on any", file=sys.stderr)
    sys.exit(2)
