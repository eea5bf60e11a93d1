"""No run is ever lost: kills, signals, full disks and missing folders, for real, in processes of
their own.

The tests marked `long` repeat the quick ones often enough to believe them (`make test-long`).
"""

import errno
import json
import os
import random
import re
import shlex
import shutil
import signal
import subprocess
import time
from contextlib import contextmanager

import pytest

from checkpoints import load_checkpoint
from tests.conftest import write_scene
from tests.helpers import (
    arguments,
    assert_one_line,
    assert_same,
    checkpoints,
    final_checkpoint,
    finish,
    resume,
    run,
    start,
    start_python,
    tensorboard_events,
    wait_for,
)

fcntl, pty, resource, termios = map(
    pytest.importorskip, ("fcntl", "pty", "resource", "termios")
)  # not on Windows

STEPS = 20
FEW_STEPS = 12
SETTINGS = ["--max_steps", STEPS, "--checkpoint_every", 3, "--log_every", 20]
ENDLESS = ["--max_steps", 100000]
# More than in the paper's recipe depends on the step.
EVERYTHING = ["--lr_decay", 0.8, "--average", 0.9, "--dropout", 0.5]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """A scene, and the logging root of a run on it that nothing disturbed."""
    folder = tmp_path_factory.mktemp("undisturbed")
    write_scene(folder / "scene" / "train", views=8)
    assert (
        run(*arguments(folder / "scene", folder / "logs", *SETTINGS, "--keep_checkpoints", 0)) == 0
    )
    return folder / "scene", folder / "logs"


def assert_same_bits(expected_logs, logs, steps):
    """One run in one folder, with the other run's bits after so many steps."""
    assert len(list(logs.glob("logs/*/*"))) == 1
    assert not list(logs.glob("logs/*/*/.*.part"))
    _, expected = final_checkpoint(expected_logs, steps)
    _, actual = final_checkpoint(logs, steps)
    for part in expected.keys() - {"options", "checksum", "seconds"}:
        assert_same(expected[part], actual[part], part)


def visible_steps(files) -> list[int]:
    """The steps of the l1 curve as tensorboard shows them: a restart hides what was logged from its
    step on."""
    shown = []
    for events in files:
        for event in events:
            if event.HasField("session_log"):
                shown = [step for step in shown if step < event.step]
            shown += [event.step for value in event.summary.value if value.tag == "train/l1"]
    return shown


def kill_and_resume(undisturbed, logs, kills, seed):
    """Trains to the end, killed `kills` times on the way: at random moments, every other time while
    it saves.

    It must end as the undisturbed run, with each step of its curve shown once.
    """
    scene, expected_logs = undisturbed
    rng = random.Random(seed)
    command = arguments(scene, logs, *SETTINGS)
    for kill in range(kills):
        process = start(*command)
        before = len(checkpoints(logs))
        if kill % 2:
            wait_for(
                lambda: (
                    list(logs.glob("logs/*/*/.model*.part")) or len(checkpoints(logs)) >= STEPS // 3
                ),
                process,
            )
        else:
            wait_for(lambda: len(checkpoints(logs)) > before or process.poll() is not None, process)  # noqa: B023
            time.sleep(rng.uniform(0, 0.2))
        process.kill()
        process.communicate()
        if checkpoints(logs):
            command = resume(logs, *SETTINGS)
    assert finish(start(*command))[0] == 0
    assert_same_bits(expected_logs, logs, STEPS)
    events = [
        tensorboard_events(path)
        for path in sorted(logs.glob("runs/*/*/events*"), key=lambda path: path.name)
    ]
    assert visible_steps(events) == list(range(10, STEPS + 1, 10))


def test_kills_at_random_moments(undisturbed, tmp_path):
    kill_and_resume(undisturbed, tmp_path, kills=2, seed=0)


@pytest.mark.long
@pytest.mark.parametrize("round_", range(10))
def test_fifty_kills(undisturbed, tmp_path, round_):
    kill_and_resume(undisturbed, tmp_path, kills=5, seed=round_ + 1)


def test_resuming_is_bitwise_the_run_in_one_go(scene, tmp_path):
    """From step 9 of 14, in the second epoch, under another logging root. The falling learning
    rates are those of the whole run, whose length is recorded."""
    assert (
        run(
            *arguments(
                scene, tmp_path / "whole", "--max_steps", 14, "--checkpoint_every", 9, *EVERYTHING
            )
        )
        == 0
    )
    half, _ = final_checkpoint(tmp_path / "whole", 9)
    assert run("--train_test", "train", "--logging_root", tmp_path / "rest", "--resume", half) == 0
    assert_same_bits(tmp_path / "whole", tmp_path / "rest", 14)
    _, whole = final_checkpoint(tmp_path / "whole", 14)
    assert whole["average"].keys() == whole["model"].keys()


def test_a_signal_finishes_the_step_and_saves(undisturbed, tmp_path):
    scene, expected_logs = undisturbed
    process = start(*arguments(scene, tmp_path, "--max_steps", FEW_STEPS))
    wait_for(lambda: list(tmp_path.glob("runs/*/*/events*")), process)
    process.send_signal(signal.SIGINT)
    returned, output, error = finish(process)
    assert returned == 130, error
    (saved,) = checkpoints(tmp_path)
    assert f"saved {saved}" in output
    assert 0 < load_checkpoint(saved)["step"] < FEW_STEPS
    (going_on,) = re.findall("to go on with the training:\n(.*)", output)
    assert run(*shlex.split(going_on)[2:]) == 0
    assert_same_bits(expected_logs, tmp_path, FEW_STEPS)


def test_a_closed_terminal_ends_training_with_a_checkpoint(scene, tmp_path):
    """Even though the process can then no longer print; the terminal's hangup comes twice, as from
    a shell that ends."""
    terminal, end = pty.openpty()
    process = start(
        *arguments(scene, tmp_path, *ENDLESS),
        stdin=end,
        stdout=end,
        stderr=end,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )
    os.close(end)
    seen = b""
    while b"tensorboard" not in seen:
        seen += os.read(terminal, 1000)
    wait_for(lambda: list(tmp_path.glob("runs/*/*/events*")), process)
    os.close(terminal)
    process.send_signal(signal.SIGHUP)
    assert process.wait(timeout=60) == 129
    (saved,) = checkpoints(tmp_path)
    assert load_checkpoint(saved)["step"] > 0


def test_a_run_outlives_its_terminal_and_its_reader_and_saves_when_asked(scene, tmp_path, capfd):
    """Under nohup. Meanwhile no other process writes the run. A scheduler may send SIGTERM to
    training and to its parent, which passes it on."""
    process = start(*arguments(scene, tmp_path, *ENDLESS), wrapper=["nohup"])
    wait_for(lambda: list(tmp_path.glob("runs/*/*/events*")), process)
    process.stdout.close()
    process.stderr.close()
    process.send_signal(signal.SIGHUP)
    for count in (1, 2):
        process.send_signal(signal.SIGUSR1)
        wait_for(lambda: len(checkpoints(tmp_path)) == count, process)  # noqa: B023
    assert run(*resume(tmp_path, "--max_steps", 1)) == 2
    assert_one_line(capfd.readouterr().err, "another process is writing this run")
    process.terminate()
    time.sleep(0.01)  # signals that come together may reach a process as one
    process.terminate()
    assert process.wait(timeout=60) == 143
    assert len(checkpoints(tmp_path)) == 3
    for path in checkpoints(tmp_path):
        load_checkpoint(path)


# Two processes that hang and say which they are; then their exit codes.
HANGING = """
import os, time
from training.run_folder import Signals
hanging = []
for _ in range(2):
    hanging.append(os.fork())
    if not hanging[-1]:
        with Signals():
            print(os.getpid(), flush=True)
            time.sleep(60)
for process in hanging:
    print(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), flush=True)
"""


def test_a_second_signal_ends_a_step_that_hangs():
    process = start_python("-c", HANGING)
    numbers = [signal.SIGINT, signal.SIGTERM]
    hanging = [int(process.stdout.readline()) for _ in numbers]
    for pid, number in zip(hanging, numbers, strict=True):
        os.kill(pid, number)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(1.2)
    for pid, number in zip(hanging, numbers, strict=True):
        os.kill(pid, number)
    output, _ = process.communicate(timeout=10)
    assert sorted(output.split()) == [str(128 + number) for number in numbers]


@contextmanager
def full_disk():
    """No file may grow beyond what half a checkpoint needs."""
    before, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (before, hard))


def test_a_full_disk_costs_no_checkpoint_and_training_goes_on(undisturbed, tmp_path, capfd):
    scene, expected_logs = undisturbed
    assert run(*arguments(scene, tmp_path, "--max_steps", 5)) == 0
    capfd.readouterr()
    with full_disk():
        assert run(*resume(tmp_path, "--max_steps", 8, "--checkpoint_every", 3)) == 1
    error = capfd.readouterr().err
    assert "warning: " in error and "error: " in error
    assert "8/8" in error  # it went on to the end
    (saved,) = checkpoints(tmp_path)
    (latest,) = tmp_path.glob("logs/*/*/latest.pth")
    assert latest.resolve() == saved
    assert load_checkpoint(saved)["step"] == 5
    assert run(*resume(tmp_path, "--max_steps", FEW_STEPS)) == 0
    assert_same_bits(expected_logs, tmp_path, FEW_STEPS)


def move_away(folder):
    """As an unmounted disk would."""
    folder.rename(folder.with_name("away"))
    return lambda: folder.with_name("away").rename(folder)


def make_read_only(folder):
    folder.chmod(0o500)
    return lambda: folder.chmod(0o700)


def test_a_folder_that_cannot_be_written_is_reported_and_tried_again(scene, tmp_path):
    troubles = [(move_away, "No such file")]
    wrapper = []
    is_root = os.geteuid() == 0
    if not is_root or shutil.which("setpriv"):
        troubles.append((make_read_only, "Permission denied"))
    if is_root and shutil.which("setpriv"):
        wrapper = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]  # takes root's power
    process = start(*arguments(scene, tmp_path, *SETTINGS, *ENDLESS), wrapper=wrapper)
    wait_for(lambda: checkpoints(tmp_path), process)
    (folder,) = tmp_path.glob("logs/*/*")
    for take, reason in troubles:
        give_back = take(folder)
        line = ""
        while not ("could not be saved" in line and reason in line):
            line = process.stderr.readline()
            assert line, "training ended"
        give_back()
        failed = time.time()
        wait_for(
            lambda since=failed: any(
                path.stat().st_mtime > since for path in checkpoints(tmp_path)
            ),
            process,
        )
    process.terminate()
    assert finish(process)[0] == 143
    assert (folder / "latest.pth").resolve() == max(
        checkpoints(tmp_path), key=lambda path: path.stat().st_mtime_ns
    )


def test_a_run_starts_and_resumes_where_there_are_no_file_locks(
    scene, tmp_path, monkeypatch, capfd
):
    reasons = [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP]

    def flock(*_):
        raise OSError(reasons[0], os.strerror(reasons[0]))

    monkeypatch.setattr(fcntl, "flock", flock)
    assert run(*arguments(scene, tmp_path, "--max_steps", 1)) == 0
    for steps in (2, 3):
        reasons.pop(0)
        assert run(*resume(tmp_path, "--max_steps", steps)) == 0
    assert capfd.readouterr().err.count("has no file locks") == 3
    assert len(checkpoints(tmp_path)) == 3


def test_a_resumed_run_records_its_history(trained, tmp_path):
    shutil.copytree(trained[1], tmp_path, symlinks=True, dirs_exist_ok=True)
    assert run(*resume(tmp_path, "--max_steps", 4, "--log_every", 7)) == 0
    (options,) = tmp_path.glob("logs/*/*/options.json")
    history = json.loads(options.read_text())["history"]
    assert [(entry["first_step"], entry["options"]["log_every"]) for entry in history] == [
        (0, 100),
        (2, 7),
    ]


def test_only_the_newest_checkpoints_are_kept(scene, tmp_path):
    assert (
        run(
            *arguments(
                scene, tmp_path, "--max_steps", 10, "--checkpoint_every", 2, "--keep_checkpoints", 2
            )
        )
        == 0
    )
    assert sorted(path.name for path in checkpoints(tmp_path)) == [
        "model-epoch_0_iter_8.pth",
        "model-epoch_1_iter_10.pth",
    ]
