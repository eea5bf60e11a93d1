"""What every part leans on: user errors, text files, a scene's intrinsics, run folders and their lock, signals."""
import argparse
import ctypes
import fcntl
import json
import math
import os
import platform
import re
import signal
import subprocess
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import version
from pathlib import Path

import numpy as np
from jaxtyping import Float

MAX_TEXT_BYTES = 1 << 20
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -3, -4  # of malloc.h


class InputError(Exception):
    """A file, flag or folder of the user's is wrong. The message is one line that names it; commands exit with 2."""

    def __init__(self, message: str):
        super().__init__(one_line(message))


def number(kind, least=-math.inf, most=math.inf, above=-math.inf):
    """An argparse type: a finite number of this kind, int or float, from `least` to `most` and more than `above`."""
    whole = "whole " if kind is int else ""
    if above > -math.inf:
        what = f"{whole}number above {above:g}"
    elif most < math.inf:
        what = f"{whole}number from {least:g} to {most:g}"
    else:
        what = f"{whole}number of at least {least:g}" if least > -math.inf else f"finite {whole}number"

    def convert(text: str):
        value = kind(text)
        if not (least <= value <= most and above < value and abs(value) < math.inf):
            raise argparse.ArgumentTypeError(f"{text} is not a {what}")
        return value

    convert.__name__ = kind.__name__  # which argparse names where `kind` refuses
    return convert


def keep_freed_memory(everything: bool) -> None:
    """Lets glibc keep what a step or a frame frees for the next one; handed back to the system, it would have to be
    cleared page by page before its next use.

    `everything` is for a test or training in bfloat16, which need less memory. Training in float32 keeps up to 256 MiB,
    and hands back what was over 32 MiB at once, lest the rest fragments.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(M_MMAP_THRESHOLD, 32 * 2 ** 20)
        libc.mallopt(M_MMAP_MAX, 0 if everything else 2 ** 16)
        libc.mallopt(M_TRIM_THRESHOLD, 2 ** 31 - 1 if everything else 256 * 2 ** 20)


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


def parse_numbers(path: Path, number: int, line: str, counts: tuple[int, ...] | None) -> list[float]:
    """The finite numbers of one line, as many as one of `counts` says."""
    values = []
    for word in line.split():
        try:
            value = float(word)
        except ValueError:
            raise InputError(f"{path}:{number}: {word[:40]!r} is not a number") from None
        if not np.isfinite(value):
            raise InputError(f"{path}:{number}: {word[:40]!r} is not a finite number")
        values.append(value)
    if counts is not None and len(values) not in counts:
        raise InputError(f"{path}:{number}: holds {len(values)} numbers, expected {' or '.join(map(str, counts))}")
    return values


@dataclass(frozen=True)
class SceneIntrinsics:
    """What `intrinsics.txt` says, in the pixels of the image size that it names.

    focal, cx, cy: pixels. grid_origin: world coordinates of the grid's center. near_plane: world units, 0 where the
    default is to be used. scale: the grid's sidelength in world units. world2cam: the pose files hold the inverse.
    """

    focal: float
    cx: float
    cy: float
    grid_origin: tuple[float, float, float]
    near_plane: float
    scale: float
    height: int
    width: int
    world2cam: bool = False

    def matrix(self, sidelength: int) -> Float[np.ndarray, "3 3"]:
        """The intrinsic matrix of the image after the center crop to a square and scaling to `sidelength` pixels.

        The crop keeps the shorter side; the principal point moves with it (DESIGN: non-square images).
        """
        square = min(self.height, self.width)
        ratio = sidelength / square
        left, top = (self.width - square) // 2, (self.height - square) // 2
        return np.array([[self.focal * ratio, 0, (self.cx - left) * ratio],
                         [0, self.focal * ratio, (self.cy - top) * ratio],
                         [0, 0, 1]], dtype=np.float64)


def load_intrinsics(path: Path) -> SceneIntrinsics:
    """Reads `intrinsics.txt`: `f cx cy [0]`, origin, near plane, scale, `height width`, and an optional sixth line
    that is 1 where the poses are world-to-camera."""
    lines = [line for line in read_text(path).splitlines() if line.strip()]
    names = ["f cx cy", "the grid's origin x y z", "the near plane", "the scale", "height width"]
    if len(lines) < len(names):
        raise InputError(f"{path}: has {len(lines)} lines, expected {len(names)}; line {len(lines) + 1} should hold "
                         f"{names[len(lines)]}")
    counts = [(3, 4), (3,), (1,), (1,), (2,), (1,)]
    rows = [parse_numbers(path, number, line, count)
            for number, (line, count) in enumerate(zip(lines, counts, strict=False), start=1)]
    (focal, cx, cy, *_), origin, (near_plane,), (scale,), (height, width) = rows[:5]
    for line, name, value, least in [(1, "focal length", focal, 1e-9), (3, "near plane", near_plane, 0),
                                     (4, "scale", scale, 1e-9), (5, "height", height, 1), (5, "width", width, 1)]:
        if value < least:
            raise InputError(f"{path}:{line}: the {name} is {value:g}, which cannot be")
    return SceneIntrinsics(focal, cx, cy, tuple(origin), near_plane, scale, int(height), int(width),
                           world2cam=len(rows) > 5 and rows[5][0] != 0)


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


def describe_machine(device: "torch.device") -> dict[str, str | int]:
    """Versions, device and git commit: what a run's `options.json` says about where it ran."""
    import torch  # here, since whoever makes scenes has no use for it

    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True,
                            check=False).stdout.strip()
    return {"python": platform.python_version(), "torch": torch.__version__, "torchvision": version("torchvision"),
            "numpy": np.__version__, "git_commit": commit or "unknown", "threads": torch.get_num_threads(),
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or "cpu"}
