"""Days of training are never lost, and no file is trusted: done for real, in processes of their own.

The tests marked `long` repeat the quick ones often enough to believe them (`make test-long`).
"""
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from checkpoints import load_checkpoint, save_checkpoint
from run_deepvoxels import main
from tests.test_cli import ROOT
from tests.test_training import arguments, assert_same, final_checkpoint, tensorboard_events

STEPS = 40
# A progress bar that nobody reads must not fill its pipe, or the process would wait for ever.
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "TQDM_MININTERVAL": "1"}
IN_CHECKPOINT = ("model", "discriminator", "model_optimizer", "discriminator_optimizer", "step", "epoch", "rng")


def command(scene, logs, *more) -> list[str]:
    return [sys.executable, "run_deepvoxels.py", *arguments(scene, logs, "--max_steps", STEPS, "--checkpoint_every", 3,
                                                            "--log_every", 20, *more)]


def start(words, **kwargs) -> subprocess.Popen:
    return subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                            env=ENVIRONMENT, **kwargs)


def finish(process) -> tuple[int, str, str]:
    output, error = process.communicate(timeout=120)
    assert "Traceback" not in error, error
    return process.returncode, output, error


def wait_for(condition, process, seconds=60):
    end = time.time() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.time() < end
        time.sleep(0.01)


def checkpoints(logs) -> list[Path]:
    return list(logs.glob("logs/*/*/model-*.pth"))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """A scene, and the final checkpoint of a run over it that nothing disturbed."""
    from tests.conftest import write_scene
    folder = tmp_path_factory.mktemp("undisturbed")
    write_scene(folder / "scene" / "train", views=8)
    code, _, error = finish(start(command(folder / "scene", folder / "logs")))
    assert code == 0, error
    return folder / "scene", final_checkpoint(folder / "logs", STEPS)[1]


def kill_and_resume(scene, logs, kills, seed):
    """Trains to the end, killed `kills` times on the way: at random moments, every other time while it saves."""
    rng, resumed = random.Random(seed), []
    for kill in range(kills):
        process = start(command(scene, logs, *resumed))
        before = len(checkpoints(logs))
        if kill % 2:
            wait_for(lambda: list(logs.glob("logs/*/*/.model*.part")) or len(checkpoints(logs)) >= STEPS // 3, process)
        else:
            wait_for(lambda: len(checkpoints(logs)) > before or process.poll() is not None, process)  # noqa: B023
            time.sleep(rng.uniform(0, 0.2))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        if checkpoints(logs):
            resumed = ["--resume", "latest"]
    code, _, error = finish(start(command(scene, logs, *resumed)))
    assert code == 0, error


def assert_ends_as(expected, logs):
    assert len(list(logs.glob("logs/*/*"))) == 1  # one run, in its own folder
    assert not list(logs.glob("logs/*/*/.*.part"))
    _, actual = final_checkpoint(logs, STEPS)
    for part in IN_CHECKPOINT:
        assert_same(expected[part], actual[part], part)
    steps = [step for events in sorted(logs.glob("runs/*/*/events*"), key=lambda path: path.name)
             for step in [tensorboard_events(events)]]
    assert visible_steps(steps) == list(range(10, STEPS + 1, 10))


def visible_steps(files) -> list[int]:
    """The steps of the l1 curve as tensorboard shows them: a restart hides what was logged from its step on."""
    shown = []
    for events in files:
        for event in events:
            if event.HasField("session_log"):
                shown = [step for step in shown if step < event.step]
            shown += [event.step for value in event.summary.value if value.tag == "l1"]
    return shown


def test_kills_at_random_moments(undisturbed, tmp_path):
    scene, expected = undisturbed
    kill_and_resume(scene, tmp_path, kills=3, seed=0)
    assert_ends_as(expected, tmp_path)


@pytest.mark.long
@pytest.mark.parametrize("round_", range(10))
def test_fifty_kills(undisturbed, tmp_path, round_):
    scene, expected = undisturbed
    kill_and_resume(scene, tmp_path, kills=5, seed=round_ + 1)
    assert_ends_as(expected, tmp_path)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_finishes_the_step_and_saves(undisturbed, tmp_path, number, code):
    scene, expected = undisturbed
    process = start(command(scene, tmp_path))
    wait_for(lambda: checkpoints(tmp_path), process)
    process.send_signal(number)
    returned, output, error = finish(process)
    assert returned == code, error
    assert "saved" in output
    returned, _, error = finish(start(command(scene, tmp_path, "--resume", "latest")))
    assert returned == 0, error
    assert_ends_as(expected, tmp_path)


def test_a_second_signal_stops_at_once_and_harms_nothing(scene, tmp_path):
    process = start(command(scene, tmp_path, "--max_steps", 100000))
    wait_for(lambda: checkpoints(tmp_path), process)
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGTERM)
    assert finish(process)[0] == 143
    for path in checkpoints(tmp_path):
        load_checkpoint(path)


def test_sigusr1_saves_now_and_training_goes_on(scene, tmp_path):
    process = start(command(scene, tmp_path, "--max_steps", 100000, "--checkpoint_every", 100000))
    wait_for(lambda: list(tmp_path.glob("runs/*/*/events*")), process)
    time.sleep(0.5)
    process.send_signal(signal.SIGUSR1)
    wait_for(lambda: checkpoints(tmp_path), process)
    process.send_signal(signal.SIGUSR1)
    wait_for(lambda: len(checkpoints(tmp_path)) == 2, process)
    process.send_signal(signal.SIGTERM)
    assert finish(process)[0] == 143


def limit_file_size(size):
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def test_a_disk_that_is_full_is_reported_and_training_goes_on(undisturbed, tmp_path):
    """No file may grow beyond what half a checkpoint needs."""
    scene, _ = undisturbed
    code, _, error = finish(start(command(scene, tmp_path), preexec_fn=limit_file_size(1_000_000)))
    assert code == 1
    assert "warning" in error
    assert "error" in error
    assert f"{STEPS}/{STEPS}" in error  # it went on to the end
    assert not checkpoints(tmp_path)
    assert not list(tmp_path.glob("logs/*/*/latest.pth"))
    assert not list(tmp_path.glob("logs/*/*/.*.part"))


def test_the_last_good_checkpoint_survives_a_full_disk(undisturbed, tmp_path):
    scene, expected = undisturbed
    assert finish(start(command(scene, tmp_path, "--max_steps", 5)))[0] == 0
    good = next(tmp_path.glob("logs/*/*/latest.pth"))
    code, _, error = finish(start(command(scene, tmp_path, "--resume", "latest"),
                                  preexec_fn=limit_file_size(1_000_000)))
    assert code == 1, error
    assert load_checkpoint(good.resolve())["step"] == 5
    assert finish(start(command(scene, tmp_path, "--resume", "latest")))[0] == 0
    assert_same(expected["model"], final_checkpoint(tmp_path, STEPS)[1]["model"])


def test_a_folder_that_cannot_be_written_is_reported_and_tried_again(undisturbed, tmp_path):
    """The run's folder is moved away for a while, as an unmounted disk would be."""
    scene, _ = undisturbed
    process = start(command(scene, tmp_path, "--max_steps", 100000, "--log_every", 100000))
    wait_for(lambda: checkpoints(tmp_path), process)
    (folder,) = tmp_path.glob("logs/*/*")
    folder.rename(tmp_path / "away")
    time.sleep(1)
    (tmp_path / "away").rename(folder)
    newest = max(path.stat().st_mtime for path in checkpoints(tmp_path))
    wait_for(lambda: max(path.stat().st_mtime for path in checkpoints(tmp_path)) > newest, process)
    process.send_signal(signal.SIGTERM)
    code, _, error = finish(process)
    assert code == 143
    assert "could not be saved" in error


def test_a_run_that_cannot_begin_to_write_is_refused(scene, tmp_path, capfd):
    (tmp_path / "file").write_text("")
    assert main(arguments(scene, tmp_path / "file" / "logs")) == 2
    assert "--logging_root" in capfd.readouterr().err


def test_a_resumed_run_cannot_change_what_it_learns(undisturbed, tmp_path, capfd):
    scene, checkpoint = undisturbed
    save_checkpoint(tmp_path / "model.pth", checkpoint)
    resume = ["--train_test", "train", "--logging_root", str(tmp_path / "logs"),
              "--resume", str(tmp_path / "model.pth")]
    for change in ("--lr 0.1", "--seed 7", "--num_trgt 3", "--precision bf16", "--grid_dim 16", "--deterministic"):
        assert main([*resume, *change.split()]) == 2
        assert change in capfd.readouterr().err
    shutil.copytree(scene / "train", tmp_path / "other")
    (tmp_path / "other" / "rgb" / "000000.png").write_bytes((scene / "train" / "rgb" / "000001.png").read_bytes())
    assert main([*resume, "--data_root", str(tmp_path / "other"), "--max_steps", str(STEPS + 1)]) == 2
    assert "not the scene" in capfd.readouterr().err
    assert not (tmp_path / "logs").exists()


def test_a_resumed_run_records_its_history(undisturbed, tmp_path):
    scene, _ = undisturbed
    assert main(arguments(scene, tmp_path, "--max_steps", 2)) == 0
    assert main(["--train_test", "train", "--logging_root", str(tmp_path), "--resume", "latest", "--max_steps", "4",
                 "--log_every", "7"]) == 0
    (options,) = tmp_path.glob("logs/*/*/options.json")
    history = json.loads(options.read_text())["history"]
    assert [(entry["first_step"], entry["options"]["log_every"]) for entry in history] == [(0, 100), (2, 7)]


def test_a_damaged_record_of_options_is_named(scene, tmp_path, capfd):
    assert main(arguments(scene, tmp_path, "--max_steps", 2)) == 0
    (options,) = tmp_path.glob("logs/*/*/options.json")
    for content in ("{", "[]", "{}", '{"history": 3}'):
        options.write_text(content)
        capfd.readouterr()
        assert main(["--train_test", "train", "--logging_root", str(tmp_path), "--resume", "latest",
                     "--max_steps", "3"]) == 2
        error = capfd.readouterr().err
        assert "options.json: is damaged" in error
        assert error.count("\n") == 1


def test_only_the_newest_checkpoints_are_kept(scene, tmp_path):
    assert main(arguments(scene, tmp_path, "--max_steps", 10, "--checkpoint_every", 2, "--keep_checkpoints", 2)) == 0
    assert sorted(path.name for path in checkpoints(tmp_path)) == [
        "model-epoch_0_iter_8.pth", "model-epoch_1_iter_10.pth"]


@pytest.mark.long
def test_soak(tmp_path):
    """3,000 steps and 500 frames: resident memory grows by less than 2 %, open files not at all."""
    from tests.conftest import write_scene
    write_scene(tmp_path / "scene" / "train", views=20)
    write_scene(tmp_path / "scene" / "test", views=500, images=False)
    logs = tmp_path / "logs"
    process = start([sys.executable, "run_deepvoxels.py", *arguments(tmp_path / "scene", logs), "--max_steps", "3000",
                     "--checkpoint_every", "500", "--log_every", "100"])
    wait_for(lambda: checkpoints(logs), process, seconds=120)
    assert_steady("training", observe(process))
    assert finish(process)[0] == 0
    path, _ = final_checkpoint(logs, 3000)
    process = start([sys.executable, "run_deepvoxels.py", "--train_test", "test", "--data_root",
                     str(tmp_path / "scene" / "test"), "--logging_root", str(logs), "--checkpoint", str(path)])
    wait_for(lambda: list(logs.glob("test_traj/*/*/img_00050.png")), process)
    assert_steady("testing", observe(process))
    assert finish(process)[0] == 0


def assert_steady(name, observed):
    """From the first observation on, when all is warm, to the last, just before the process ends."""
    warm, late = observed[0], observed[-2]
    print(f"{name}: {warm[0] / 2 ** 20:.1f} MiB and {warm[1]} files, then {late[0] / 2 ** 20:.1f} and {late[1]}; "
          f"at most {max(memory for memory, _ in observed) / 2 ** 20:.1f} and {max(files for _, files in observed)}")
    assert late[0] < 1.02 * warm[0]
    assert late[1] <= warm[1]


def observe(process) -> list[tuple[int, int]]:
    """Resident bytes and open files of the process, ten times a second while it lives."""
    samples = []
    while process.poll() is None:
        try:
            pages = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1])
            samples.append((pages * resource.getpagesize(), len(os.listdir(f"/proc/{process.pid}/fd"))))
        except (FileNotFoundError, ProcessLookupError, IndexError):
            break
        time.sleep(0.1)
    return samples


def test_non_finite_steps_change_nothing_and_end_training(undisturbed, tmp_path, capfd):
    """A loss weight so large that the gradient overflows, from the start."""
    scene, _ = undisturbed
    assert main(arguments(scene, tmp_path, "--max_steps", 20, "--l1_weight", "3e38")) == 1
    error = capfd.readouterr().err
    assert "step 1 was skipped, not finite: " in error
    assert "model's gradient" in error
    assert "views 0000" in error
    assert "5 steps in a row" in error
    assert not checkpoints(tmp_path)
