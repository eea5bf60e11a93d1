"""The images that an importer's source lists: in which order, and whether they are there."""
import os
import re
from pathlib import Path

from util import InputError


def natural_order(name: str) -> list[int | str]:
    """A sorting key by which numbers in names compare as numbers: r_2 before r_10."""
    return [int(part[:1000]) if part.isdecimal() else part for part in re.split(r"(\d+)", name)]


def require_files(paths: list[Path], named_by: Path) -> None:
    """Raises InputError unless every image that `named_by` names exists."""
    missing = [path for path in paths if not os.path.isfile(path)]  # not path.is_file(), which raises on long names
    if missing:
        raise InputError(f"{missing[0]}: no such file, but {named_by} names it"
                         + (f" ({len(missing)} of {len(paths)} are missing)" if len(missing) > 1 else ""))
