"""New folders, whole or not at all, and locks that keep a folder for one process.

    with new_folder(target) as folder:
        (folder / "a.txt").write_text("")  # shows at `target` once the block ends without an error

Work in progress lies in a hidden folder beside its target. A killed process cannot remove it; the
next one that makes the same target does.
"""

import errno
import os
import shutil
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import filelock

from util import InputError, naming

NO_FILE_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP}


class Lock:
    """Holds a lock file for this process until it is released or the process ends, however it ends.

    Raises `InputError` if another process holds it, after `wait` seconds (-1: waits as long as it
    takes): the line is `busy` and which process it is. On a file system without file locks there is
    only a warning.
    """

    def __init__(self, path: Path, busy: str, wait: int | float = 0):
        # No soft lock (a marker file) where locks are missing: the marker of a process killed on
        # another machine would be believed for ever.
        self.path = path
        self._lock = filelock.FileLock(path, timeout=wait, fallback_to_soft=False)
        try:
            self._lock.acquire()
        except filelock.Timeout:
            raise InputError(busy + self._holder()) from None
        except OSError as error:
            if error.errno not in NO_FILE_LOCKS:
                raise
            print(
                f"warning: {path.parent}: this file system has no file locks ({error.strerror}); "
                "make sure that only "
                "one process writes here",
                file=sys.stderr,
            )
        with suppress(OSError):  # the name is for messages alone
            path.write_text(f"{os.getpid()} on {socket.gethostname()}", encoding="utf-8")

    def _holder(self) -> str:
        try:
            holder = self.path.read_text(encoding="utf-8", errors="replace")[:200]
        except OSError:
            holder = ""
        return f" (process {holder})" if holder else ""

    def descriptor(self) -> int | None:
        """The open file of the lock; a process that inherits it holds the lock too, until it ends.
        None where there are no locks."""
        return self._lock._context.lock_file_fd  # filelock has no public name for it

    def __enter__(self) -> "Lock":
        return self

    def __exit__(self, *_) -> None:
        self._lock.release()

    def remove(self) -> None:
        """Releases the lock and removes its file."""
        with suppress(OSError):  # Windows removes no file that is in use
            self.path.unlink()  # before the release: the next process makes a file of its own
        self._lock.release()


def is_locked(path: Path) -> bool:
    """Whether a process holds a `Lock` on this path. Looking takes the lock for an instant."""
    lock = filelock.FileLock(path, timeout=0, fallback_to_soft=False)
    try:
        if path.exists():
            lock.acquire()
            lock.release()
    except filelock.Timeout:
        return True
    except OSError:  # no file locks, or a folder of somebody else: nothing is known
        return False
    return False


@contextmanager
def held_folder(folder: Path) -> Iterator[Path]:
    """Makes the folder if there is none, and holds it for this process. The lock lies beside it, as
    `.NAME.lock`, so that the folder can be renamed or removed meanwhile."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    lock = Lock(
        folder.with_name(f".{folder.name.lstrip('.')}.lock"),
        f"{folder}: another process is writing here",
    )
    try:
        with naming(folder):
            folder.mkdir(exist_ok=True)
            yield folder
    finally:
        lock.remove()


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """Yields an empty folder `.NAME.partial` beside `target`; renames it to `target` on success and
    deletes it on an error. What a killed process left in it is removed first.

    Raises `InputError` if `target` exists and is not an empty folder that can be replaced, or if
    another process is making it.
    """
    refuse_existing(target)
    destination = real_path(target)
    with held_folder(destination.with_name(f".{destination.name}.partial")) as partial:
        try:
            for path in partial.iterdir():
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
            yield partial
            finish_folder(partial, target)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def real_path(path: Path) -> Path:
    """The absolute path without links. Unlike `Path.resolve`, it raises nothing on a loop of
    links."""
    return Path(os.path.realpath(path))


def refuse_existing(target: Path) -> None:
    """Raises `InputError` unless `target` is absent or an empty folder, or links to one, and can be
    replaced."""
    destination = real_path(target)
    is_empty = destination.is_dir() and not any(destination.iterdir())
    if os.path.lexists(destination) and not is_empty:
        raise InputError(f"{target}: already exists; delete it or choose another folder")
    kind = None
    if os.path.ismount(destination):
        kind = "a mount point"
    elif destination.is_dir() and destination.samefile("."):
        kind = "the current folder"
    if kind:
        raise InputError(f"{target}: is {kind}, which cannot be replaced; choose a folder in it")


def finish_folder(partial: Path, target: Path) -> None:
    """Renames the complete folder to `target`, or to what `target` links to."""
    refuse_existing(target)
    destination = real_path(target)
    if destination.exists():
        destination.rmdir()
    partial.rename(destination)
