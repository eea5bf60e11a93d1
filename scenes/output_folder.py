"""A folder that appears under its name only when it is complete."""
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from util import InputError


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """Yields a temporary folder beside `target`; renames it to `target` on success and deletes it on an error.

    Raises `InputError` if `target` exists and is not an empty folder.
    """
    refuse_existing(target)
    partial = target.absolute().with_name(f".{target.absolute().name}.{os.getpid()}.partial")
    partial.mkdir(parents=True)
    try:
        yield partial
        finish_folder(partial, target)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def refuse_existing(target: Path) -> None:
    """Raises `InputError` unless `target` is absent or an empty folder."""
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise InputError(f"{target}: already exists; delete it or choose another folder")


def finish_folder(partial: Path, target: Path) -> None:
    """Renames the complete folder to `target`."""
    refuse_existing(target)
    if target.exists():
        target.rmdir()
    partial.rename(target)
