"""Each file that a command writes is whole or not there, however the command ends: a full disk, any
signal.

For real: on a tiny tmpfs where this user may mount one, under a limit on the size of a file
elsewhere; and in processes of their own. Each time the next try works and leaves what an
undisturbed run leaves.
"""

import os
import random
import resource
import shutil
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from benchmarks import prepare, scaling
from deep_voxels import Architecture
from evaluation.video_writer import VideoWriter
from experiments.plan import RECORD, Plan, draw_up, write_plan
from tests.commands import COMMANDS, make_inputs
from tests.conftest import write_scene
from tests.helpers import final_checkpoint
from util import new_file

PAGE = 4096
CAPTURED = 1 << 14  # bytes: pytest's own files, which hold what a command prints, are limited too
# Those that write into the output folder for about a second, and start quickly.
QUICK_SIGNALS = ["test", "render", "transforms_json"]
# One of each way to write: frames and results, a scene that goes on later, a single file, a scene
QUICK_DISK = {"test": [0.5, 1], "render": [0.5], "check": [0.5], "transforms_json": [0, 0.5, 1]}
STUDIES = {"table1", "occlusion", "sensitivity"}
BENCHMARKS = {"speed", "kernels", "scaling"}
# These write as others do.
NO_SIGNALS = {"kernels", "scaling", "occlusion"}
SIGNALS = [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT]
OTHER_SIGNALS = [
    signal.SIGABRT,
    signal.SIGALRM,
    signal.SIGPIPE,
    signal.SIGXCPU,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGVTALRM,
    signal.SIGPROF,
    signal.SIGSEGV,
    signal.SIGBUS,
    signal.SIGFPE,
    signal.SIGILL,
    signal.SIGTRAP,
    signal.SIGSYS,
    signal.SIGIO,
    signal.SIGXFSZ,
]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory, trained):
    folder = tmp_path_factory.mktemp("inputs")
    write_scene(folder / "whole" / "test", views=6)
    (folder / "whole" / "train").symlink_to(trained[0] / "train")
    make_inputs(folder, folder / "whole", final_checkpoint(trained[1], 2)[0])
    return folder


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, inputs):
    """Returns a function: the output folder of a command that nothing disturbed."""
    folders = {}

    def folder(name: str) -> Path:
        if name not in folders:
            folders[name] = tmp_path_factory.mktemp(name)
            COMMANDS[name].prepare(inputs, folders[name])
            assert COMMANDS[name].run(inputs, folders[name]) == 0
        return folders[name]

    return folder


@pytest.fixture(autouse=True, scope="module")
def no_core_dumps():
    before = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_CORE, before)


@pytest.fixture
def disk(tmp_path):
    """A folder, and a function that leaves so much room in it: on a tmpfs of its own that many
    bytes in all, or, where none may be mounted, in each file. None: plenty."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = subprocess.run(
        ["mount", "-t", "tmpfs", "tmpfs", folder], capture_output=True, check=False
    )
    mounted = mount.returncode == 0
    (folder / "first page").write_bytes(bytes(PAGE))  # for a tmpfs, a size of 0 means no limit

    def leave(room: int | None) -> None:
        if mounted:
            size = "1g" if room is None else room // PAGE * PAGE + used_bytes(folder)
            subprocess.run(["mount", "-o", f"remount,size={size}", folder], check=True)
        else:
            resource.setrlimit(
                resource.RLIMIT_FSIZE,
                (resource.RLIM_INFINITY if room is None else room, hard_limit),
            )

    _, hard_limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield folder, leave, mounted
    leave(None)
    if mounted:
        subprocess.run(["umount", "--lazy", folder], check=True)


def used_bytes(folder: Path) -> int:
    """What the folder's files take on a disk."""
    return sum(
        -(-path.stat().st_size // PAGE) * PAGE
        for path in folder.rglob("*")
        if path.is_file() and not path.is_symlink()
    )


def fill_the_disk(name, disk, inputs, undisturbed, capfd, shares, prepare=None):
    """Runs the command with room for these shares of what it writes: each time one line says which
    file cannot be written, all files are whole or gone, and the next try, with room, leaves what an
    undisturbed run leaves."""
    command = COMMANDS[name]
    folder, leave, mounted = disk
    whole = undisturbed(name)
    for number, share in enumerate(shares):
        out = folder / f"out{number}"
        out.mkdir()
        (prepare or command.prepare)(inputs, out)
        if mounted:
            needed = used_bytes(whole) - used_bytes(out)
        else:
            needed = max(
                path.stat().st_size
                for path in whole.rglob("*")
                if path.is_file() and not (out / path.relative_to(whole)).exists()
            )
        room = min(int(share * needed), needed - 1)
        if not mounted and room < CAPTURED:
            continue
        leave(room)
        capfd.readouterr()
        code = command.run(inputs, out)
        leave(None)
        error = capfd.readouterr().err
        assert code in (1, 2), (share, error)
        (line,) = (line for line in error.replace("\r", "\n").splitlines() if "error: " in line)
        assert str(out) in line, line
        assert any(
            reason in line
            for reason in ("No space left", "too large", "exit code -25", "could not be saved")
        )
        assert "Traceback" not in error
        command.assert_whole(whole, out)
        assert command.run(inputs, out) == 0
        command.assert_complete(whole, out)
        shutil.rmtree(out)


@pytest.mark.parametrize("name", QUICK_DISK)
def test_a_full_disk(name, disk, inputs, undisturbed, capfd):
    fill_the_disk(name, disk, inputs, undisturbed, capfd, QUICK_DISK[name])


@pytest.mark.long
@pytest.mark.parametrize("name", sorted(COMMANDS.keys() - STUDIES - BENCHMARKS))
def test_a_disk_that_fills_at_ten_moments(name, disk, inputs, undisturbed, capfd):
    fill_the_disk(name, disk, inputs, undisturbed, capfd, np.linspace(0, 1, 10))


@pytest.mark.long
@pytest.mark.parametrize("name", sorted(STUDIES))
def test_a_disk_that_fills_while_a_study_writes_its_results(name, disk, inputs, undisturbed, capfd):
    """Its runs are those of other commands."""

    def copy_runs(_, out):
        shutil.copytree(undisturbed(name), out, symlinks=True, dirs_exist_ok=True)
        for path in (out / "study").iterdir():
            if path.is_file() and path.name != RECORD:
                path.unlink()

    fill_the_disk(name, disk, inputs, undisturbed, capfd, np.linspace(0, 1, 5), copy_runs)


@pytest.mark.long
@pytest.mark.parametrize("name", sorted(BENCHMARKS))
def test_a_disk_that_is_full_when_a_benchmark_ends(
    name, disk, inputs, undisturbed, capfd, monkeypatch
):
    monkeypatch.setitem(
        prepare.PRESETS, "small", prepare.Preset(Architecture(64, 8, 4, 4, 4), 1, 1)
    )
    monkeypatch.setattr(scaling, "VALUES", {"grid_dim": [4, 8]})
    fill_the_disk(name, disk, inputs, undisturbed, capfd, [0, 1])


def test_an_experiment_whose_record_did_not_fit_starts_again(disk, inputs):
    folder, leave, _ = disk
    plan = draw_up(Plan(folder / "study", "table1", 3, []), {}, [])
    leave(0)
    with pytest.raises(OSError, match="experiment.json"):
        write_plan(plan, [], {})
    leave(None)
    write_plan(draw_up(Plan(folder / "study", "table1", 3, []), {}, []), [], {})


@pytest.mark.parametrize("share", [0, 0.6, 1])
def test_a_video_is_whole_or_an_error(share, disk, tmp_path):
    folder, leave, _ = disk
    frames = np.random.default_rng(0).integers(0, 255, (50, 64, 128, 3), dtype=np.uint8)

    def write(path):
        with VideoWriter(path) as video:
            for frame in frames:
                video.add(frame)

    write(tmp_path / "whole.mp4")
    size = (tmp_path / "whole.mp4").stat().st_size
    leave(min(int(share * size), size - 1))
    with pytest.raises(OSError, match=f"{folder / 'video.mp4'}: ffmpeg ended with exit code"):
        write(folder / "video.mp4")
    assert not list(folder.glob("*video*"))
    leave(None)
    write(folder / "video.mp4")
    assert (folder / "video.mp4").read_bytes() == (tmp_path / "whole.mp4").read_bytes()


def interrupt(name, inputs, out, number, rng, seconds=None):
    """Ends the command by the signal: so many seconds after its start, or shortly after it has
    written something."""
    process = COMMANDS[name].start(inputs, out)
    before = set(out.rglob("*"))
    if seconds is None:
        while process.poll() is None and set(out.rglob("*")) == before:
            time.sleep(0.005)
        seconds = rng.uniform(0, 0.5)
    with suppress(subprocess.TimeoutExpired):
        process.wait(seconds)
    if process.poll() is None:
        # A terminal signals the whole group; kill and batch systems often only the process.
        (os.killpg if rng.random() < 0.5 else os.kill)(process.pid, number)
    process.communicate(timeout=120)


@pytest.mark.parametrize("name", QUICK_SIGNALS)
def test_a_signal(name, inputs, undisturbed, tmp_path):
    rng = random.Random(name)
    interrupt(name, inputs, tmp_path, rng.choice(SIGNALS), rng)
    COMMANDS[name].assert_whole(undisturbed(name), tmp_path)
    if not (tmp_path / "scene").exists():
        assert COMMANDS[name].run(inputs, tmp_path) == 0
    COMMANDS[name].assert_complete(undisturbed(name), tmp_path)


@pytest.mark.long
@pytest.mark.parametrize("name", sorted(COMMANDS.keys() - NO_SIGNALS))
def test_ten_signals_at_random_moments(name, inputs, undisturbed, tmp_path):
    """Each try continues, replaces or ignores what those before have left."""
    command = COMMANDS[name]
    rng = random.Random(name)
    out = tmp_path / "out"
    begin = time.monotonic()
    (tmp_path / "first").mkdir()
    command.prepare(inputs, tmp_path / "first")
    finish(command, inputs, tmp_path / "first")
    duration = time.monotonic() - begin
    command.assert_complete(undisturbed(name), tmp_path / "first")
    out.mkdir()
    command.prepare(inputs, out)
    for number in [*SIGNALS, *rng.sample(OTHER_SIGNALS, 5)]:
        if command.mark == "scene" and (out / "scene").exists():
            shutil.rmtree(out / "scene")
        interrupt(name, inputs, out, number, rng, rng.choice([None, rng.uniform(0, duration)]))
        command.assert_whole(undisturbed(name), out)
    if command.mark != "scene" or not (out / "scene").exists():
        finish(command, inputs, out)
    command.assert_complete(undisturbed(name), out)


def finish(command, inputs, out):
    """Runs the command to its end, again while what an earlier one has left running is not done."""
    while True:
        process = command.start(inputs, out)
        _, error = process.communicate(timeout=300)
        if "another process" not in error and not command.has_gaps(out):
            break
        time.sleep(1)
    assert process.returncode == 0, error


def test_a_link_stays_and_a_device_is_written_directly(tmp_path):
    (tmp_path / "link").symlink_to("target")
    for content in (b"first", b"second"):
        with new_file(tmp_path / "link") as file:
            file.write(content)
        assert (tmp_path / "target").read_bytes() == content
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "target"]
    with new_file(Path("/dev/null")) as file:
        file.write(b"third")
    assert Path("/dev/null").is_char_device()
