"""Several processes on one run, for real: torchrun starts them, signals and kills reach them
(docs/clusters.md).

The tests marked `long` repeat the quick ones often enough to believe them.
"""

import json
import shutil
import signal
import subprocess
import sys
import time

import psutil
import pytest
import torch

from machine.ranks import ALONE, Ranks
from run_deepvoxels import on_rank
from tests.conftest import write_scene
from tests.helpers import (
    STARTED,
    arguments,
    assert_one_line,
    assert_same,
    checkpoints,
    final_checkpoint,
    finish,
    options_of,
    render_arguments,
    resume,
    run,
    start,
    start_python,
    tensorboard_events,
    wait_for,
)
from tests.ranks_worker import RECIPES, train_steps
from util import InputError

pytest.importorskip("resource")  # not on Windows
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
ENDLESS = ["--max_steps", 100000]
STEPS = 20


# Two ranks with the environment that torchrun gives them, forked by a process that has imported
# PyTorch for both. They end like this, or the copies of the store would wait for its threads.
FORK_RANKS = """
import os, runpy, sys
import run_deepvoxels
from torch.distributed import TCPStore

store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
os.environ |= {
    "TORCHELASTIC_RUN_ID": "none",
    "TORCHELASTIC_USE_AGENT_STORE": "True",
    "MASTER_ADDR": "127.0.0.1",
    "MASTER_PORT": str(store.port),
    "WORLD_SIZE": "2",
    "LOCAL_WORLD_SIZE": "2",
}
sys.argv.pop(0)
ranks = []
for rank in "01":
    ranks.append(os.fork())
    if not ranks[-1]:
        os.environ |= {"RANK": rank, "LOCAL_RANK": rank}
        code = 1
        try:
            runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
            code = 0
        except SystemExit as end:
            code = end.code or 0
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
codes = {os.waitstatus_to_exitcode(os.waitpid(rank, 0)[1]) for rank in ranks}
sys.exit(max(codes, key=abs))
"""


@pytest.fixture(autouse=True)
def no_rank_stays_running(nothing_stays_running):
    """torchrun starts its processes in sessions of their own."""
    yield
    for process in STARTED:
        if process.poll() is None:
            for rank in psutil.Process(process.pid).children():
                rank.kill()


def torchrun(*words, options=()):
    """run_deepvoxels.py in two processes."""
    return start(*words, wrapper=[*TORCHRUN, *options, "--no-python"])


def two_ranks(module, *words) -> subprocess.Popen:
    """A module in two processes that are connected as those of torchrun are."""
    return start_python("-c", FORK_RANKS, module, *words)


def ranks_of(process) -> list[psutil.Process]:
    """The processes that a torchrun started, by rank."""
    return sorted(
        (child for child in psutil.Process(process.pid).children() if "RANK" in child.environ()),
        key=lambda child: int(child.environ()["RANK"]),
    )


def logged_steps(logs) -> list[int]:
    """The steps whose losses are in tensorboard's files."""
    return [
        event.step
        for path in logs.glob("runs/*/*/events*")
        for event in tensorboard_events(path)
        if any(value.tag == "train/l1" for value in event.summary.value)
    ]


def test_two_ranks_of_a_target_are_one_process_with_two(scene, tmp_path):
    """Whose batch norms see one view at a time. And a NaN on one rank changes nothing on either."""
    words = arguments(scene, tmp_path, "--kernels", "plain")
    process = two_ranks("tests.ranks_worker", tmp_path, *words)
    expected = train_steps(words, ALONE)
    code, _, error = finish(process)
    assert code == 0, error
    first, second = (torch.load(tmp_path / f"rank{rank}.pth") for rank in (0, 1))
    for name in RECIPES:
        assert_same(first[name], second[name])
        assert not first[name]["finite"][0]
        assert not first[name]["changed"]
        torch.testing.assert_close(
            first[name]["losses"], expected[name]["losses"], rtol=0, atol=1e-5
        )
        assert first[name]["state"].keys() == expected[name]["state"].keys()
        for tensor, values in first[name]["state"].items():
            torch.testing.assert_close(values, expected[name]["state"][tensor], rtol=0, atol=1e-5)


def test_a_signal_saves_a_killed_rank_starts_all_again_and_ctrl_c_ends_all(scene, logs, capfd):
    """And one process continues the run, which is said."""
    command = arguments(scene, logs, *ENDLESS, "--resume", "auto")
    process = torchrun(*command, options=["--max_restarts=1"])
    wait_for(lambda: logged_steps(logs), process, 120)
    assert not checkpoints(logs)
    ranks_of(process)[1].send_signal(signal.SIGUSR1)
    wait_for(lambda: checkpoints(logs), process)
    (saved,) = checkpoints(logs)
    before = len(logged_steps(logs))
    ranks_of(process)[0].kill()
    wait_for(lambda: len(list(logs.glob("runs/*/*/events*"))) == 2, process, 120)
    wait_for(lambda: len(logged_steps(logs)) > before, process)
    (options,) = logs.glob("logs/*/*/options.json")
    first, second = (entry["first_step"] for entry in json.loads(options.read_text())["history"])
    assert first == 0
    assert second == torch.load(saved, weights_only=True)["step"]
    process.send_signal(signal.SIGINT)
    output, error = process.communicate(timeout=120)
    assert process.returncode != 0
    assert output.count("saved ") == 1
    assert error.count("lost the other processes") <= 1  # when the first was killed
    _, last = sorted(checkpoints(logs), key=lambda path: path.stat().st_mtime_ns)
    content = torch.load(last, weights_only=True)
    assert content["ranks"] == 2
    assert not list(logs.glob("logs/*/*/.*.part"))

    capfd.readouterr()
    assert run(*resume(logs, "--max_steps", content["step"] + 1)) == 0
    assert (
        "processes: 2 before, 1 now; a batch norm now sees 2 of a step's 2 target"
        in capfd.readouterr().out
    )
    assert "ranks" not in final_checkpoint(logs, content["step"] + 1)[1]


def train_with_kills(scene, logs, kills: int):
    """Kills one of two ranks, in turn, each time two more checkpoints are there; torchrun starts
    both again."""
    process = torchrun(
        *arguments(
            scene,
            logs,
            "--max_steps",
            STEPS,
            "--checkpoint_every",
            2,
            "--resume",
            "auto",
            "--keep_checkpoints",
            0,
        ),
        options=[f"--max_restarts={kills}"],
    )
    for kill in range(kills):
        wait_for(lambda: len(checkpoints(logs)) >= 2 * kill + 2, process, 180)  # noqa: B023
        ranks_of(process)[kill % 2 - 1].kill()
        time.sleep(1)  # until torchrun has seen it
    return finish(process)


@pytest.mark.long
def test_kills_do_not_change_a_bit(scene, tmp_path):
    assert train_with_kills(scene, tmp_path / "killed", 4)[0] == 0
    assert train_with_kills(scene, tmp_path / "whole", 0)[0] == 0
    expected, actual = (final_checkpoint(tmp_path / logs, STEPS)[1] for logs in ("whole", "killed"))
    for part in expected.keys() - {"options", "checksum", "seconds"}:
        assert_same(expected[part], actual[part], part)


@pytest.mark.long
def test_steps_that_are_never_finite_send_all_ranks_back(scene, logs):
    process = torchrun(*arguments(scene, logs, "--max_steps", 20, "--l1_weight", "3e38"))
    output, error = process.communicate(timeout=180)
    assert process.returncode != 0
    assert error.count("going back to the start, at half the learning rate") == 5
    assert error.count("training went back 5 times already") == 1
    assert "lost the other processes" not in error


@pytest.mark.long
def test_two_processes_continue_what_one_began(scene, logs):
    assert run(*arguments(scene, logs, "--max_steps", 2)) == 0
    code, output, _ = finish(torchrun(*resume(logs, "--max_steps", 4)))
    assert code == 0
    assert output.count(": number of processes: 1 before, 2 now; a batch norm now sees 1 of") == 1
    assert final_checkpoint(logs, 4)[1]["ranks"] == 2


def test_the_frames_of_two_ranks_are_those_of_one_process(trained, tmp_path):
    """All files of a test but its options, to the bit: batches of views on both ranks, and a part
    of one."""
    shutil.copytree(trained[0], tmp_path / "scene")
    views = write_scene(tmp_path / "scene" / "test", views=9)
    (checkpoint,) = checkpoints(trained[1])
    words = render_arguments(views, tmp_path / "two", checkpoint)
    process = two_ranks("run_deepvoxels", *words)
    assert run(*render_arguments(views, tmp_path / "one", checkpoint)) == 0
    code, output, error = finish(process)
    assert code == 0, error
    assert output.count("metrics: ") == 1
    files = [
        {
            path.relative_to(folder): path.read_bytes()
            for path in folder.rglob("*")
            if path.is_file()
        }
        for number in ("one", "two")
        for folder in (tmp_path / number).glob("test_traj/*/*")
    ]
    assert (
        len(files[0]) == 9 + 9 + 5
    )  # frames, depth pictures; depth, video, comparison, metrics, options
    for content in files:
        content.pop(next(path for path in content if path.name == "options.json"))
    assert files[0] == files[1]


@pytest.mark.long
def test_patience_ends_all_ranks(scene, logs):
    """Though the first alone measures. At this learning rate a PSNR falls soon."""
    flags = ["--max_steps", 100, "--lr", 0.1, "--validate_every", 1, "--patience", 1]
    code, output, error = finish(torchrun(*arguments(scene, logs, *flags)))
    assert code == 0, error
    assert output.count("the run ended: 1 measurement without a better PSNR") == 1
    (saved,) = checkpoints(logs)
    assert not saved.stem.endswith("_100")


def test_what_is_wrong_is_said_once(scene, logs):
    process = two_ranks("run_deepvoxels", *arguments(scene, logs, "--num_trgt", 3))
    code, _, error = finish(process)
    assert code == 2
    assert_one_line(error, "--num_trgt 3: must be a multiple of the 2 processes")
    assert not logs.exists()


def test_options_that_do_not_suit_the_ranks(scene, logs, monkeypatch):
    two = Ranks(0, 2, 0, 2)
    options = options_of(*arguments(scene, logs))
    assert on_rank(options, two) == options
    odd = options_of(*arguments(scene, logs, "--num_trgt", 3))
    with pytest.raises(InputError, match="--num_trgt 3: must be a multiple of the 2"):
        on_rank(odd, two)
    monkeypatch.setattr("machine.runtime.cuda_devices", lambda: (2, ""))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", lambda _: None)
    on_cuda = on_rank(options_of(*arguments(scene, logs), "--device", "cuda"), two)
    assert on_cuda.machine.device == on_cuda.flags["device"] == "cuda:0"
    with pytest.raises(InputError, match="--device cuda:1: torchrun's processes take a GPU each"):
        two.own_device("cuda:1")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(
        InputError, match="--device cuda: PyTorch finds 1 GPUs here, torchrun started 2 processes"
    ):
        two.own_device("cuda")


def test_spread_dropout_is_the_dropout_of_one_process():
    """Each rank's part of it, from a random state that stays the same on all."""
    x = torch.randn(4, 8, 3, 3)
    networks = []
    states = []
    torch.manual_seed(3)
    expected = torch.nn.Dropout2d(0.4)(x)
    for rank in (0, 1):
        ranks = Ranks(rank, 2)
        networks.append(torch.nn.Sequential(torch.nn.Dropout2d(0.4)))
        ranks.spread_dropout_(networks[-1])
        torch.manual_seed(3)
        torch.testing.assert_close(networks[-1](ranks.share(x)), ranks.share(expected))
        states.append(torch.get_rng_state())
        assert torch.equal(networks[-1].eval()(x), x)
    assert torch.equal(*states)
