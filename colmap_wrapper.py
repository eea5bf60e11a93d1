"""Photos to a scene folder, under the name that the original's README gives the command.

    python colmap_wrapper.py --img_dir photos --trgt_dir data/mine

The command itself is scenes/photos.py.
"""

from machine.cli import run
from scenes.photos import PROG, main

if __name__ == "__main__":
    run(PROG, main)
