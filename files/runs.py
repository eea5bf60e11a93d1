"""Finds checkpoints: the newest and the best of a run, and the newest run under a logging root.

A run's folder is `LOGGING_ROOT/logs/DAY/NAME`. It holds its checkpoints, whose names say their
steps, `latest.pth`, which points at the newest one, `best.pth`, and `options.json`.
"""

import json
import os
import sys
from datetime import datetime
from pathlib import Path

from util import InputError, read_text

LATEST = "latest.pth"
BEST = "best.pth"
MAX_LATEST_BYTES = 255  # of a file name in `latest.pth`; any checkpoint is larger
MAX_HISTORY_BYTES = 1 << 26  # of a run's options.json, which records every start: some 30,000


def grouped_tag(tag: str) -> str:
    """What a tag of a run's summaries is called today: runs begun with versions before 1.0 have
    `l1` in place of `train/l1`, and `val/psnr` in place of `validation/psnr`."""
    if tag.startswith("val/"):
        return f"validation/{tag.removeprefix('val/')}"
    return tag if "/" in tag else f"train/{tag}"


def newest_checkpoint(folder: Path) -> Path | None:
    """The checkpoint that `latest.pth` in a run's folder points at, if there is one; without a
    `latest.pth`, or if that is damaged, the one with the most steps."""
    latest = folder / LATEST
    if os.path.lexists(latest):
        try:
            path = follow(latest)
            return path if os.path.isfile(path) else None
        except InputError:
            pass
    return next(reversed(checkpoints_by_step(folder)), None)


def checkpoints_by_step(folder: Path) -> list[Path]:
    """The checkpoints that a run's folder holds, by their steps."""
    paths = {}
    for path in folder.glob("model-epoch_*_iter_*.pth"):
        if (step := _step_of(path)) is not None and os.path.isfile(path):
            paths[step] = path
    return [paths[step] for step in sorted(paths)]


def _step_of(path: Path) -> int | None:
    """The number of steps that a checkpoint's name says."""
    step = path.stem.rpartition("_")[2]
    return int(step) if step.isdecimal() else None


def point_latest_at(path: Path) -> None:
    """Makes `latest.pth` beside a checkpoint a link to it, atomically; a file with its name where
    links cannot be made (Windows without the right to, some file systems)."""
    part = path.with_name(f".{LATEST}.part")
    part.unlink(missing_ok=True)
    try:
        part.symlink_to(path.name)
    except OSError:
        with open(part, "wb") as file:
            file.write(path.name.encode())
            file.flush()
            os.fsync(file.fileno())
    os.replace(part, path.with_name(LATEST))
    sync_folder(path.parent)


def follow(path: Path) -> Path:
    """The checkpoint that a path names: that which `point_latest_at` chose if it is a `latest.pth`,
    else its own. Raises `InputError` for a `latest.pth` that names none."""
    return Path(os.path.realpath(named_in_text(path) or path))


def named_in_text(path: Path) -> Path | None:
    """The checkpoint whose name a `latest.pth` holds as text; None for any other file."""
    latest = Path(os.path.realpath(path))
    if latest.name != LATEST or not os.path.isfile(latest):
        return None
    if os.path.getsize(latest) > MAX_LATEST_BYTES:
        return None  # a copy of a checkpoint, by a program that follows links
    name = read_text(latest)
    if name in ("", ".", "..", LATEST) or name != Path(name).name or not name.isprintable():
        raise InputError(f"{path}: does not name a checkpoint")
    return latest.with_name(name)


def latest_checkpoint(logging_root: Path, experiment_name: str = "") -> Path | None:
    """The checkpoint of the newest run under a logging root, or of those begun with this name, if
    any.

    The newest run is the one that records the latest start; of several, that with the most steps.
    So a copy, whose files have other times, has the same newest run. A damaged `latest.pth` is
    passed over with a warning.
    """
    newest = []
    for run in sorted(logging_root.glob("logs/*/*")):
        record = _record(run)
        if experiment_name and _begun_as(record) != experiment_name:
            continue
        path = newest_checkpoint(run)
        if path is not None:
            _warn_of_damage(run, path)
            # A program that follows links makes `latest.pth` a copy, whose name says no step.
            named = next(reversed(checkpoints_by_step(run)), path)
            step = _step_of(path) or _step_of(named) or 0
            newest.append((_started(record, path), step, path))
    return max(newest, default=(None,))[-1]


def _warn_of_damage(run: Path, instead: Path) -> None:
    try:
        follow(run / LATEST)
    except InputError as error:
        print(f"warning: {error}; {instead.name} is taken instead", file=sys.stderr)


def find_checkpoint(checkpoint: str, logging_root: Path | None) -> Path:
    """The file that `--checkpoint FILE|latest|best` names. Raises `InputError` if there is none
    under the logging root."""
    if checkpoint not in ("latest", "best"):
        return Path(checkpoint)
    if logging_root is None:
        raise InputError(f"--checkpoint {checkpoint}: needs --logging_root")
    if checkpoint == "best":
        return best_checkpoint(logging_root)
    newest = latest_checkpoint(logging_root)
    if newest is None:
        raise InputError(f"--checkpoint latest: there is no checkpoint under {logging_root}/logs")
    return newest


def best_checkpoint(logging_root: Path) -> Path:
    """The best checkpoint of the run under a logging root that was started last, of those that have
    any checkpoint. Raises `InputError` if its training measured no held-out views."""
    runs = [
        run
        for run in sorted(logging_root.glob("logs/*/*"))
        if (run / BEST).is_file() or newest_checkpoint(run) is not None
    ]
    if not runs:
        raise InputError(f"--checkpoint best: there is no checkpoint under {logging_root}/logs")
    newest = max(runs, key=start_of)
    if not (newest / BEST).is_file():
        raise InputError(
            f"--checkpoint best: {newest} has none: its training measured no held-out views "
            "(--validate_every)"
        )
    return newest / BEST


def start_of(run: Path) -> tuple[bool, datetime]:
    """When a run's folder says that the run was started last, to compare runs by."""
    return _started(_record(run), run)


def _record(run: Path) -> dict:
    """What a run's `options.json` holds; empty if it is damaged or, as of the original's runs, not
    there."""
    try:
        record = json.loads(read_text(run / "options.json", MAX_HISTORY_BYTES))
    except (InputError, RecursionError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def _begun_as(record: dict) -> str | None:
    """The --experiment_name that a run was begun with. A resumed run may have been given
    another."""
    try:
        return record["history"][0]["options"]["experiment_name"]
    except (IndexError, KeyError, TypeError):
        return None


def _started(record: dict, path: Path) -> tuple[bool, datetime]:
    """When a run was started last; by the time of its file `path` if that is not recorded, which
    counts as before any recorded one."""
    try:
        return True, datetime.fromisoformat(record["time"]).replace(tzinfo=None)
    except (KeyError, TypeError, ValueError):
        pass
    try:
        return False, datetime.fromtimestamp(os.path.getmtime(path))
    except (OSError, OverflowError, ValueError):  # removed meanwhile; a time of no calendar
        return False, datetime.min


def sync_folder(folder: Path) -> None:
    """Makes a rename in the folder survive a power cut. Windows cannot open folders, and does it by
    itself."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
