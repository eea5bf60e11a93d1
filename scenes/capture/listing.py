"""The images that an importer's source lists: in which order, whether they are there, and which are
the same."""

import hashlib
import os
import re
import sys
from collections import Counter
from pathlib import Path

from util import InputError, one_line


def natural_order(name: str) -> list[int | str]:
    """A sorting key by which numbers in names compare as numbers: r_2 before r_10."""
    return [int(part[:1000]) if part.isdecimal() else part for part in re.split(r"(\d+)", name)]


def require_files(paths: list[Path], named_by: Path) -> None:
    """Raises InputError unless every image that `named_by` names exists."""
    missing = [
        path for path in paths if not os.path.isfile(path)
    ]  # not path.is_file(), which raises on long names
    if missing:
        raise InputError(
            f"{missing[0]}: no such file, but {named_by} names it"
            + (f" ({len(missing)} of {len(paths)} are missing)" if len(missing) > 1 else "")
        )


def same_pictures(paths: list[Path]) -> list[tuple[int, int]]:
    """The files whose content an earlier one has, as pairs of indices: the first file with that
    content, and this one.

    Only files of equal size are read.
    """
    sizes = [path.stat().st_size for path in paths]
    files_of_size = Counter(sizes)
    first = {}
    pairs = []
    for index, (path, size) in enumerate(zip(paths, sizes, strict=True)):
        if files_of_size[size] > 1:
            with open(path, "rb") as file:
                content = hashlib.file_digest(file, "sha256").digest()
            if first.setdefault(content, index) != index:
                pairs.append((first[content], index))
    return pairs


def warn_of_leaks(train: list[tuple[str, Path]], test: list[tuple[str, Path]]) -> None:
    """Warns on stderr if a training and a test view, given by name and image, are the same
    picture."""
    views = train + test
    leaks = [
        pair
        for pair in same_pictures([path for _, path in views])
        if pair[0] < len(train) <= pair[1]
    ]
    if leaks:
        seen, held_out = (one_line(views[index][0]) for index in leaks[0])
        print(
            f"warning: {len(leaks)} of {len(test)} test views are trained on too: {held_out} is "
            "the same picture as "
            f"{seen}{', ...' if len(leaks) > 1 else ''}",
            file=sys.stderr,
        )
