"""Files from elsewhere: what they may be, and how whatever a library raises on them becomes one
line with their name.

    with reading(path, "a mesh", max_bytes=1 << 30):
        scene = trimesh.load_scene(path)

Meshes, point clouds, pictures and depth maps are read by libraries that meet damaged and hostile
files each in its own way: they raise anything, wait for ever on a named pipe, take memory for a
count that the file merely claims, or start another program to decode a picture. `reading` rules
these out in one place.
"""

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import EpsImagePlugin, Image

from util import InputError, require_file

try:
    import resource
except ImportError:  # Windows
    resource = None

# Largest number in poses, intrinsics, points and meshes: what computes with them is in float32
MAX_NUMBER = float(np.finfo(np.float32).max)
PICTURES = ("PNG", "JPEG")  # by content, whatever a picture's name is
# bytes that reading a file may take: these, and more for each of its own
BASE_MEMORY = 512 << 20
MEMORY_PER_BYTE = 64
MEMORY_USED = Path("/proc/self/statm")
DATA_PAGES = 5  # the field that holds the pages of data and stack

# Pillow would start Ghostscript to decode an EPS.
EpsImagePlugin.gs_binary = False
# What these libraries say on damaged files names no file; `reading` does.
for library in ("PIL", "trimesh"):
    logging.getLogger(library).addHandler(logging.NullHandler())
    warnings.filterwarnings("ignore", module=rf"{library}\b")
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


@contextmanager
def reading(path: Path, kind: str, max_bytes: int) -> Iterator["Limits"]:
    """Everything raised in the block becomes an `InputError`: `path` is not `kind`.

    Raises it at once unless `path` is a regular file of at most `max_bytes`. In the block numpy
    warns of nothing, and memory can be limited.
    """
    require_file(path, max_bytes)
    limits = Limits()
    try:
        with np.errstate(all="ignore"):
            yield limits
    except InputError:
        raise
    except MemoryError:
        raise InputError(
            f"{path}: is not {kind} (it claims more than a file of its size can hold)"
        ) from None
    except Exception as error:
        raise InputError(f"{path}: is not {kind} ({error_text(error)})") from None
    finally:
        limits.lift()


def error_text(error: Exception) -> str:
    """An error's text, or its name if it has none, of at most 200 characters."""
    text = " ".join(str(error).split())
    return text[:200] if len(text) > 10 else f"{type(error).__name__}: {text}".rstrip(": ")


def inside(folder: Path, name: str, named_by: Path) -> Path:
    """The path in `folder` of a file that another file names. Raises `InputError` if it would lead
    out of the folder.

    Symbolic links are followed: they are the user's own.
    """
    path = Path(os.path.normpath(folder / name))
    if not Path(os.path.abspath(path)).is_relative_to(os.path.abspath(folder)):
        raise InputError(
            f"{named_by}: names {name[:200]}, which is not inside {folder}; only what is there is "
            "read"
        )
    return path


class Limits:
    """The memory that the process may take in a block of `reading`; Linux alone limits it."""

    def __init__(self):
        self._before = None
        if resource and MEMORY_USED.exists():
            self._before = resource.getrlimit(resource.RLIMIT_DATA)

    def memory_for(self, size: int) -> None:
        """Limits the process, from now on, to the memory that reading a file of `size` bytes can
        need."""
        if self._before is not None:
            used = int(MEMORY_USED.read_text().split()[DATA_PAGES]) * resource.getpagesize()
            bounds = used + BASE_MEMORY + MEMORY_PER_BYTE * size, *self._before
            limit = min(bound for bound in bounds if bound != resource.RLIM_INFINITY)
            resource.setrlimit(resource.RLIMIT_DATA, (limit, self._before[1]))

    def lift(self) -> None:
        """Ends the limit."""
        if self._before is not None:
            resource.setrlimit(resource.RLIMIT_DATA, self._before)


def parse_numbers(
    path: Path, number: int, line: str, counts: tuple[int, ...] | None = None
) -> list[float]:
    """The numbers on one line, all finite in float32; raises `InputError` if `counts` is given and
    not met."""
    values = []
    for word in line.split():
        try:
            value = float(word)
        except ValueError:
            raise InputError(f"{path}:{number}: {word[:40]!r} is not a number") from None
        if not abs(value) <= MAX_NUMBER:
            raise InputError(f"{path}:{number}: {word[:40]!r} is not a finite number in float32")
        values.append(value)
    if counts is not None and len(values) not in counts:
        raise InputError(
            f"{path}:{number}: holds {len(values)} numbers, expected "
            f"{' or '.join(map(str, counts))}"
        )
    return values
