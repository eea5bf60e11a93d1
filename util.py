"""What every part leans on: user errors, text files, a scene's intrinsics, run folders and their lock, signals."""
import fcntl
import json
import os
import re
import signal
from datetime import datetime
from pathlib import Path

MAX_TEXT_BYTES = 1 << 20


class InputError(Exception):
    """A file, flag or folder of the user's is wrong. The message is one line that names it; commands exit with 2."""

    def __init__(self, message: str):
        super().__init__(one_line(message))


def one_line(text: str) -> str:
    """The text with whatever does not print, line ends included, written as escapes."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def read_text(path: Path) -> str:
    """A small text file's content."""
    try:
        if path.stat().st_size > MAX_TEXT_BYTES:
            raise InputError(f"{path}: has {path.stat().st_size} bytes, too many for what it should be")
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as text ({error})") from None


def write_json(path: Path, content: dict) -> None:
    """Writes JSON that a person can read, whole or not at all."""
    part = path.with_name(f".{path.name}.part")
    part.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    os.replace(part, path)


def make_run_folder(root: Path, *kinds: str, name: str) -> list[Path]:
    """New folders `root/KIND/MM_DD/HH-MM-SS_name`, the same for every kind, as the original names them.

    Of the name only letters, digits, '.', '_' and '-' are kept, so that no name leads out of the root.
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


class RunLock:
    """Keeps a run's folder to one process, until it is released or the process ends."""

    def __init__(self, folder: Path):
        self._file = open(folder / ".lock", "w")  # noqa: SIM115 - held open
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._file.close()
            raise InputError(f"{folder}: another process is writing this run") from None

    def __enter__(self) -> "RunLock":
        return self

    def __exit__(self, *_) -> None:
        self._file.close()

    def fileno(self) -> int:
        """The file descriptor whose owners hold the lock: a child that inherits it does so too."""
        return self._file.fileno()


class Signals:
    """SIGINT and SIGTERM as a request to stop after the step at hand, SIGUSR1 as one to save.

    stop: the signal that asked to stop, or None. A second one ends the process at once.
    """

    def __init__(self):
        self.stop: int | None = None
        self.save = False

    def __enter__(self) -> "Signals":
        self._previous = {number: signal.signal(number, self._handle)
                          for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)}
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _handle(self, number: int, _frame) -> None:
        if number == signal.SIGUSR1:
            self.save = True
        elif self.stop is None:
            self.stop = number
        else:
            os._exit(128 + number)


