"""Errors that a user can mend, small files, run folders, and the number of cores."""

import io
import json
import os
import re
import stat
from argparse import ArgumentTypeError
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO

MAX_TEXT_BYTES = 1 << 20
# File systems take 255 bytes, of which the time and a number need some.
MAX_RUN_NAME_BYTES = 200
# A named pipe then opens at once, and a terminal does not take over the process.
OPEN_FLAGS = os.O_RDONLY
for flag in ("O_NONBLOCK", "O_NOCTTY", "O_BINARY"):  # those of this system
    OPEN_FLAGS |= getattr(os, flag, 0)


class InputError(Exception):
    """A wrong file, flag or folder. The message is one line that names it; commands then exit with
    code 2."""

    def __init__(self, message: str):
        super().__init__(one_line(message))


def one_line(text: str) -> str:
    """The text with every unprintable character, line breaks included, escaped."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Adds this path to an `OSError` in the block that names no file, such as that of a full
    disk."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = str(path)
        raise


def require_file(path: Path, max_bytes: int | None = None) -> int:
    """The size in bytes of a regular file. Raises `InputError` unless it is one, of at most
    `max_bytes`: a named pipe or a device may have no end."""
    with _named_errors(path):
        return _size_of_regular(path, path.stat(), max_bytes)


@contextmanager
def open_file(path: Path, max_bytes: int | None = None) -> Iterator[BinaryIO]:
    """Opens a regular file of at most `max_bytes` for reading. Raises `InputError` if it is none.

    What is checked is what is opened: a pipe or a device that takes the file's place meanwhile is
    refused too, without waiting for it.
    """
    require_file(path, max_bytes)  # first, because opening some devices has an effect
    with _named_errors(path):
        descriptor = os.open(path, OPEN_FLAGS)
    with os.fdopen(descriptor, "rb") as file:
        _size_of_regular(path, os.fstat(descriptor), max_bytes)
        yield file


def read_text(path: Path, max_bytes: int = MAX_TEXT_BYTES) -> str:
    """The content of a text file of at most `max_bytes`. Raises `InputError` if it cannot be
    read."""
    with open_file(path, max_bytes) as file:
        try:
            content = file.read(max_bytes + 1) or b""
            if len(content) > max_bytes:  # it grows, or the system gives no size (/proc)
                raise InputError(f"{path}: has too many bytes for a file of this kind")
            # With a byte order mark or without.
            return io.TextIOWrapper(io.BytesIO(content), encoding="utf-8-sig").read()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{path}: cannot be read as text ({error})") from None


def read_json(path: Path, max_bytes: int = MAX_TEXT_BYTES) -> Any:
    """The content of a JSON file of at most `max_bytes`. Raises `InputError` if it cannot be read
    or is not JSON."""
    try:
        return json.loads(read_text(path, max_bytes))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: is not JSON ({error})") from None


@contextmanager
def _named_errors(path: Path) -> Iterator[None]:
    """Errors of the system on opening a file become an `InputError` that names it."""
    try:
        yield
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (
        OSError,
        ValueError,
    ) as error:  # a name too long, a loop of links; a zero byte in the name
        raise InputError(f"{path}: cannot be read ({error})") from None


def _size_of_regular(path: Path, status: os.stat_result, max_bytes: int | None) -> int:
    if not stat.S_ISREG(status.st_mode):
        raise InputError(f"{path}: is not a regular file")
    if max_bytes is not None and status.st_size > max_bytes:
        raise InputError(f"{path}: has {status.st_size} bytes, too many for a file of this kind")
    return status.st_size


@contextmanager
def new_file(path: Path) -> Iterator[BinaryIO]:
    """Yields a file to fill. It becomes `path` when the block ends, so that `path` never holds part
    of a file; on an error it is deleted. A pipe or device is written directly. Raises `OSError`
    that names `path`."""
    target = path.resolve()  # a link stays
    direct = target.exists() and not target.is_file()
    part = target if direct else target.with_name(f".{target.name}.part")
    try:
        with open(part, "wb") as file:
            yield file
        if not direct:
            part.replace(target)
    except BaseException as error:
        if not direct:
            part.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno and error.filename in (None, str(part)):
            raise OSError(error.errno, error.strerror, str(path)) from None
        raise


def write_text(path: Path, text: str) -> None:
    """Writes a text file, whole or not at all."""
    with new_file(path) as file:
        file.write(text.encode())


def write_json(path: Path, content: dict) -> None:
    """Writes indented JSON, whole or not at all."""
    write_text(path, json.dumps(content, indent=1) + "\n")


def usable_cores() -> int:
    """The number of cores that this process may use; of all cores where the system does not say
    (macOS, Windows)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_name(text: str) -> str:
    """An argparse type: a name for a run's folder, short enough for a file system."""
    if len(text.encode(errors="backslashreplace")) > MAX_RUN_NAME_BYTES:
        raise ArgumentTypeError(
            f"{text[:20]}... is longer than {MAX_RUN_NAME_BYTES} bytes, "
            "too long for a folder's name"
        )
    return text


def make_run_folder(root: Path, *kinds: str, name: str) -> list[Path]:
    """Makes the new folders `root/KIND/MM_DD/HH-MM-SS_name`, one for each kind, named like the
    original's.

    Other characters than letters, digits, '.', '_' and '-' become '_', so that no name leads out of
    the root. A name that is too long is cut off.
    """
    now = datetime.now()
    name = re.sub(r"[^\w.-]", "_", name).encode()[:MAX_RUN_NAME_BYTES].decode(errors="ignore")
    stem = "_".join(part for part in (now.strftime("%H-%M-%S"), name) if part)
    for attempt in range(1000):
        run = Path(now.strftime("%m_%d")) / (stem if attempt == 0 else f"{stem}_{attempt + 1}")
        folders = [root / kind / run for kind in kinds]
        try:
            folders[0].mkdir(parents=True)
            for folder in folders[1:]:
                folder.mkdir(parents=True, exist_ok=True)
        except FileExistsError:
            if not folders[0].is_dir():
                raise InputError(
                    f"--logging_root {root}: cannot be written (a file is in the way)"
                ) from None
            continue
        except OSError as error:
            with suppress(OSError):  # the first may not be there
                folders[0].rmdir()
            raise InputError(
                f"--logging_root {root}: cannot be written ({error.strerror})"
            ) from None
        return folders
    raise InputError(f"--logging_root {root}: holds too many runs named {stem}")
