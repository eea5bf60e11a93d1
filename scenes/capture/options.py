"""What a user decides about a captured scene: the flags that the importers share.

    add_flags(parser)
    options = CaptureOptions.of(parser.parse_args(argv))

Without pycolmap there is still help on these flags.
"""

import signal
import sys
import threading
from argparse import Namespace
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from files.folders import refuse_existing
from geometry.grid import GivenGrid
from machine.cli import Parser, number
from machine.errors import is_out_of_memory
from util import InputError

TEST_EVERY = 8


@dataclass(frozen=True)
class CaptureOptions:
    """test_every: every Nth view is a test view; 0: none; None: as the source says, else
    every 8th. val_every: every Nth of the others is a validation view; 0: none. sidelength: of the
    squares that images become, in pixels; None: as they are. up: whether the world is turned by how
    the cameras were held. grid: in the world after that turn.
    """

    test_every: int | None
    val_every: int
    sidelength: int | None
    up: Literal["cameras", "none"]
    grid: GivenGrid

    @classmethod
    def of(cls, args: Namespace) -> "CaptureOptions":
        """The options that the flags of `add_flags` give."""
        origin = None if args.origin is None else np.array(args.origin, dtype=np.float64)
        given = GivenGrid(origin, args.scale, args.near_plane)
        return cls(args.test_every, args.val_every, args.sidelength, args.up, given)


def add_flags(parser: Parser) -> None:
    """Adds the flags of `CaptureOptions`."""
    parser.add_argument(
        "--test_every",
        type=number(int, 0),
        metavar="N",
        help="every Nth view becomes a test view instead of a training view; 0: none (default: "
        f"{TEST_EVERY}, or as the source says)",
    )
    parser.add_argument(
        "--val_every",
        type=number(int, 0),
        default=0,
        metavar="N",
        help="every Nth of the other views becomes a validation view: --validate_every measures "
        "these, and the test views choose no checkpoint; 0: none (default: 0)",
    )
    parser.add_argument(
        "--sidelength",
        type=number(int, 1),
        metavar="N",
        help="center-crop to squares of N pixels, area-averaged (default: the images' own size)",
    )
    parser.add_argument(
        "--up",
        choices=["cameras", "none"],
        default="cameras",
        help="turn the world so that z is up, judged by how the cameras were held; none: leave it "
        "as it is (default: cameras)",
    )
    parser.add_argument(
        "--origin",
        type=number(float),
        nargs=3,
        metavar=("X", "Y", "Z"),
        help="center of the voxel grid in world units, after that turn (default: chosen and "
        "printed)",
    )
    parser.add_argument(
        "--scale",
        type=number(float, above=0),
        help="sidelength of the grid in world units (default: chosen)",
    )
    parser.add_argument(
        "--near_plane",
        type=number(float, above=0),
        help="distance of the first depth plane in world units (default: chosen)",
    )


def parse_importer(parser: Parser, argv: Sequence[str] | None) -> Namespace:
    """What the flags say of a command that imports images with cameras: adds DST, --masks and the
    flags of `CaptureOptions` to its own.

    Raises `InputError` if DST exists, or where pycolmap is not installed.
    """
    parser.add_argument(
        "target", type=Path, metavar="DST", help="the scene to make: DST/train and DST/test"
    )
    parser.add_argument(
        "--masks",
        type=Path,
        metavar="DIR",
        help="an image for each image, of its name and of its size: white (or opaque) is the "
        "object, the rest becomes transparent, and training sees --background there",
    )
    add_flags(parser)
    args = parser.parse_args(argv)
    refuse_existing(args.target)
    require_pycolmap()
    return args


def split_views(count: int, test_every: int | None, val_every: int = 0) -> dict[str, list[int]]:
    """The indices of the views of each split that has any: views 0, N, 2N, ... are test views; with
    0, none; with None, N is `TEST_EVERY`. Of the others every Nth is a validation view, from the
    middle of the first N on, where no test view is near; with 0, none.

    Raises InputError if fewer than two are left to train on.
    """
    test_every = TEST_EVERY if test_every is None else test_every
    test = list(range(0, count, test_every)) if test_every else []
    others = sorted(set(range(count)) - set(test))
    validation = others[val_every // 2 :: val_every] if val_every else []
    train = sorted(set(others) - set(validation))
    if len(train) < 2:
        flag = f" --val_every {val_every}" if val_every else ""
        raise InputError(
            f"--test_every {test_every}{flag}: leaves {len(train)} of {count} views to train on, "
            "training needs two"
        )
    splits = {"train": train, "validation": validation, "test": test}
    return {split: views for split, views in splits.items() if views}


def require_pycolmap() -> None:
    """Imports pycolmap, which the importers need. Raises InputError where it is not installed."""
    try:
        with _sigterm_waits():
            import pycolmap  # noqa: F401
    except ImportError as error:
        if is_out_of_memory(error):
            raise
        raise InputError(
            "photos, COLMAP models and transforms.json are read with pycolmap, which is not "
            "installed (it has no package for Linux on ARM); make the scene folder on another "
            "machine, it trains on any"
        ) from None


@contextmanager
def _sigterm_waits() -> Iterator[None]:
    """A SIGTERM within it takes effect at its end, as whoever handled it before decides.

    pycolmap's import installs a handler that prints a native stack trace, and that can wait for
    itself forever where the signal interrupts the loading of a library.
    """
    if threading.current_thread() is not threading.main_thread() or sys.platform == "win32":
        yield
        return
    handler = signal.getsignal(signal.SIGTERM)
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
