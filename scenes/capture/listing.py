"""The images that an importer's source lists: in which order, whether they are there, and which are
the same."""

import hashlib
import os
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from data_util import IMAGE_SUFFIXES
from files.untrusted import inside
from util import InputError, one_line

LISTED_SUFFIXES = IMAGE_SUFFIXES | {".webp", ".tif", ".tiff"}


def natural_order(name: str) -> list[int | str]:
    """A sorting key by which numbers in names compare as numbers: r_2 before r_10."""
    return [int(part[:1000]) if part.isdecimal() else part for part in re.split(r"(\d+)", name)]


class ImageFinder:
    """Finds the images that a source lists, in a folder or below it.

    A listed name may lack the file's suffix or have another one, use backslashes, or differ in
    upper and lower case, if only one file can be meant.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self._listings: dict[Path, _Listing] = {}

    def find(self, name: str, named_by: Path) -> Path | None:
        """The image's path, None if there is no such file. Raises `InputError` if the name leads
        out of the folder, or if several files can be meant."""
        path = inside(self.folder, name, named_by)
        if os.path.isfile(path):  # not path.is_file(), which raises on long names
            return path
        path = inside(self.folder, name.replace("\\", "/"), named_by)
        found = Path(os.path.normpath(self.folder))
        for part in path.relative_to(found).parts[:-1]:
            folders = self._listing(found).by_name.get(part.casefold(), [])
            if len(folders) != 1:
                return None
            found = found / folders[0]
        return self._image(found, path.name, named_by)

    def _image(self, folder: Path, name: str, named_by: Path) -> Path | None:
        listing = self._listing(folder)
        stem = Path(name).stem if is_image(name) else name
        for entries in (
            [entry for entry in listing.by_name.get(name.casefold(), []) if entry == name],
            listing.by_name.get(name.casefold(), []),
            listing.by_stem.get(name.casefold(), []),
            listing.by_stem.get(stem.casefold(), []),
        ):
            files = [folder / entry for entry in entries if not os.path.isdir(folder / entry)]
            if len(files) > 1:
                raise InputError(
                    f"{folder / name}: no such file; {named_by} names it, which could mean "
                    f"{' or '.join(file.name for file in files[:3])}"
                )
            if files:
                return files[0]
        return None

    def _listing(self, folder: Path) -> "_Listing":
        if folder not in self._listings:
            self._listings[folder] = _Listing(folder)
        return self._listings[folder]


class _Listing:
    """What lies in a folder, hidden files left out, sorted, by name in lower case; by_stem: images
    alone, by name without suffix."""

    def __init__(self, folder: Path):
        self.by_name = defaultdict(list)
        self.by_stem = defaultdict(list)
        for name in sorted(os.listdir(folder)) if os.path.isdir(folder) else []:
            if not name.startswith("."):
                self.by_name[name.casefold()].append(name)
                if is_image(name):
                    self.by_stem[Path(name).stem.casefold()].append(name)


def is_image(name: str) -> bool:
    """Whether a file's name ends as an image's."""
    return Path(name).suffix.lower() in LISTED_SUFFIXES


_held: ContextVar[list[str] | None] = ContextVar("held", default=None)


def warn(line: str) -> None:
    """Prints a warning, on one line; in a block of `warnings_last` when that ends."""
    held = _held.get()
    if held is None:
        print(f"warning: {one_line(line)}", file=sys.stderr)
    else:
        held.append(line)


def warn_of_enlarging(sidelength: int | None, pixels: int) -> None:
    """Warns if images of that many pixels a side are to be enlarged. sidelength: that they are to
    have; None: theirs."""
    if sidelength and sidelength > pixels:
        warn(
            f"--sidelength {sidelength}: the images have {pixels} pixels a side; larger ones show "
            "no more and are blurred"
        )


@contextmanager
def warnings_last() -> Iterator[None]:
    """Shows the warnings of the block when it ends without an error, which would be the only line
    that counts."""
    held = []
    token = _held.set(held)
    try:
        yield
    finally:
        _held.reset(token)
    for line in held:
        warn(line)


def warn_of_missing(missing: list[str], count: int, named_by: Path) -> None:
    """Warns of listed images that are not there. Raises `InputError` if more than half of `count`
    are missing."""
    if not missing:
        return
    if 2 * len(missing) > count:
        raise InputError(
            f"{missing[0]}: no such file, but {named_by} names it"
            f" ({len(missing)} of {count} are missing)"
        )
    warn(
        f"{named_by}: {len(missing)} of {count} images are missing and left out, the first "
        f"{missing[0]}"
    )


def warn_of_rounded(rounded: list[str], count: int, named_by: Path) -> None:
    """Warns if poses, those of these images, were rounded."""
    if rounded:
        warn(
            f"{named_by}: {len(rounded)} of {count} rotations are off by rounding (the first of "
            f"{rounded[0]}); the nearest rotations are taken"
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
        warn(
            f"{len(leaks)} of {len(test)} test views are trained on too: {held_out} is "
            f"the same picture as {seen}{', ...' if len(leaks) > 1 else ''}"
        )
