"""Errors that a user can mend, small text files, new folders, and the number of cores."""
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import BinaryIO

MAX_TEXT_BYTES = 1 << 20


class InputError(Exception):
    """A wrong file, flag or folder. The message is one line that names it; commands then exit with code 2."""

    def __init__(self, message: str):
        super().__init__(one_line(message))


def one_line(text: str) -> str:
    """The text with every unprintable character, line breaks included, escaped."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def read_text(path: Path) -> str:
    """The content of a small text file (at most `MAX_TEXT_BYTES`). Raises `InputError` if it cannot be read."""
    try:
        if path.stat().st_size > MAX_TEXT_BYTES:
            raise InputError(f"{path}: has {path.stat().st_size} bytes, too many for a text file of this kind")
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as text ({error})") from None


@contextmanager
def new_file(path: Path) -> Iterator[BinaryIO]:
    """Yields a file to fill. It becomes `path` when the block ends, so that `path` never holds part of a file; on an
    error it is deleted. A pipe or device is written directly. Raises `OSError` that names `path`."""
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
    """The number of cores that this process may use; of all cores where the system does not say (macOS, Windows)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def make_run_folder(root: Path, *kinds: str, name: str) -> list[Path]:
    """Makes the new folders `root/KIND/MM_DD/HH-MM-SS_name`, one for each kind, named like the original's.

    Other characters than letters, digits, '.', '_' and '-' become '_', so that no name leads out of the root.
    """
    now = datetime.now()
    stem = "_".join(part for part in (now.strftime("%H-%M-%S"), re.sub(r"[^\w.-]", "_", name)[:100]) if part)
    for attempt in range(1000):
        run = Path(now.strftime("%m_%d")) / (stem if attempt == 0 else f"{stem}_{attempt + 1}")
        folders = [root / kind / run for kind in kinds]
        try:
            folders[0].mkdir(parents=True)
            for folder in folders[1:]:
                folder.mkdir(parents=True, exist_ok=True)
        except FileExistsError:
            if not folders[0].is_dir():
                raise InputError(f"--logging_root {root}: cannot be written (a file is in the way)") from None
            continue
        except OSError as error:
            raise InputError(f"--logging_root {root}: cannot be written ({error.strerror})") from None
        return folders
    raise InputError(f"--logging_root {root}: holds too many runs named {stem}")


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
