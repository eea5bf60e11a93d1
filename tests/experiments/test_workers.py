"""Workers that share the runs of a plan, in processes of their own. The runs are short scripts."""

import json
import shlex
import signal
import subprocess
from pathlib import Path

import pytest

from experiments import table1, work, worker
from experiments.execute import command_lines
from experiments.plan import RECORD, read_plan
from experiments.status import (
    find_result,
    read_commands,
    read_progress,
    read_state,
    reason,
    status_table,
)
from machine.cli import Parser
from machine.cli import run as run_command
from tests.helpers import assert_one_line, start_python, wait_for
from util import InputError, write_json

# What every script begins with: `folder` is the run's, `finish()` writes its result.
SCRIPT = """
import json, os, pathlib, signal, sys, time
folder = pathlib.Path(sys.argv[sys.argv.index('--logging_root') + 1])
open(folder / 'begun', 'a').write('x')
def wait_for(name):
    for _ in range(2000):
        if (folder / name).exists():
            return
        time.sleep(0.01)
    sys.exit('waited in vain')
def finish():
    (folder / 'test_traj/day/run').mkdir(parents=True)
    (folder / 'test_traj/day/run/metrics.json').write_text('{"psnr": 20.0, "ssim": 0.5}')
"""


def make_plan(out: Path, scripts: dict[str, str]):
    """The plan of an experiment whose runs are these scripts, by name."""
    out.mkdir()
    write_json(
        out / RECORD,
        {
            "experiment": "table1",
            "steps": 3,
            "flags": [],
            "scenes": {},
            "fingerprints": {},
            "runs": {
                name: {
                    "views": "",
                    "prepare": "",
                    "train": "",
                    "test": shlex.join(["python", "-c", SCRIPT + script, "--train_test", "test"]),
                }
                for name, script in scripts.items()
            },
        },
    )
    return read_plan(out)


def start(out: Path, *more) -> subprocess.Popen:
    """A worker."""
    return start_python("-m", "experiments.worker", "--out", out, *more)


def begun(folder: Path) -> int:
    """How often a run was begun."""
    return len((folder / "begun").read_text()) if (folder / "begun").exists() else 0


def test_a_worker_carries_out_the_runs_that_it_is_asked_for(tmp_path, capsys):
    plan = make_plan(
        tmp_path / "out",
        {f"run{i}": "finish()" for i in range(4)}
        | {"bad": "print('50%'); sys.exit('error: out of luck')"},
    )
    command = ["--out", str(plan.out)]
    assert worker.main([*command, "--runs", "run3", "--log_every", "5"]) == 0
    assert worker.main([*command, "--jobs", "2"]) == 1
    assert all(begun(plan.folder(name)) == 1 for name in plan.runs)
    assert read_state(plan.folder("bad")).text == "exit code 1: error: out of luck"
    output = capsys.readouterr().out
    assert all(output.count(f"] {name}: see") == 1 for name in plan.runs)
    (command,) = read_commands(plan.folder("run3"))
    assert command["where"].startswith("process ")
    assert command["exit_code"] == 0


def test_a_command_that_outlived_its_killed_worker_keeps_its_run(tmp_path):
    plan = make_plan(tmp_path / "out", {"run": "wait_for('go'); finish()"})
    folder = plan.folder("run")
    killed = start(plan.out)
    wait_for(lambda: begun(folder), killed)
    killed.kill()
    killed.wait()
    work.work(plan, ["run"], [], [{}])
    assert begun(folder) == 1
    assert read_state(folder).kind == "running"
    assert read_state(folder).text.startswith(f"process {killed.pid} on ")
    (folder / "go").touch()
    while read_state(folder).kind == "running":
        pass
    assert read_state(folder).kind == "done"
    assert find_result(folder).seconds is None  # nobody knows how long it took


def test_a_second_interrupt_kills(tmp_path):
    """And the first asks all runs to end."""
    hangs = """
signal.signal(signal.SIGTERM, lambda *_: (folder / 'asked').touch())
(folder / 'ready').write_text(str(os.getpid()))
wait_for('never')"""
    plan = make_plan(tmp_path / "out", {"run": hangs, "other": hangs})
    folders = [plan.folder(name) for name in plan.runs]
    process = start(plan.out, "--jobs", 2)
    wait_for(lambda: all((folder / "ready").exists() for folder in folders), process)
    process.send_signal(signal.SIGHUP)
    wait_for(lambda: all((folder / "asked").exists() for folder in folders), process)
    process.send_signal(signal.SIGHUP)  # a terminal that closes may send two
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(timeout=0.5)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Traceback" not in error
    for folder in folders:
        assert read_commands(folder)[-1]["exit_code"] == -signal.SIGKILL


def test_the_states_of_runs(tmp_path):
    log = repr("error: of an earlier command\n" * 3000)
    bar = """
sys.path.insert(0, os.getcwd())
from machine.progress import Progress
Progress(total=1000, initial=400, unit='step', mininterval=0).update(50)
"""
    plan = make_plan(
        tmp_path / "out",
        {
            "done": "finish()",
            "failed": "print('50%|##\\rrun.py: error: no such thing\\n'); print('100%|##\\r'); "
            "sys.exit(2)",
            "no_result": "",
            "stopped": f"print({log}){bar}sys.exit(143)",
            "killed": f"print({log}, flush=True); os.kill(os.getpid(), signal.SIGKILL)",
            "new": "",
        },
    )
    work.work(plan, [name for name in plan.runs if name != "new"], [], [{}] * 2)
    table = status_table(plan, list(plan.runs))
    assert [line.split(maxsplit=2) for line in table.splitlines()] == [
        ["done", "done", "PSNR 20.00 dB"],
        ["failed", "failed", "exit code 2: run.py: error: no such thing"],
        ["no_result", "failed", "wrote no metrics"],
        ["stopped", "waiting", "stopped at step 450 of 1000"],
        ["killed", "failed", table.splitlines()[4].split(maxsplit=2)[2]],
        ["new", "waiting"],
        ["1", "done,", "0 running, 2 waiting, 3 failed"],
    ]
    assert "exit code -9" in table


@pytest.mark.parametrize("content", ['{"psnr": 20', "[]", "{}", '{"commands": [1]}', "[" * 100_000])
@pytest.mark.parametrize("name", ["metrics.json", "commands.json"])
def test_a_damaged_file_of_a_run_is_named(tmp_path, capfd, name, content):
    plan = make_plan(tmp_path / "out", {"run": "finish()"})
    work.work(plan, ["run"], [], [{}])
    (damaged,) = plan.folder("run").rglob(name)
    damaged.write_text(content)
    capfd.readouterr()
    with pytest.raises(SystemExit) as end:
        run_command(table1.Table1.name, table1.main, ["--out", str(plan.out), "--status"])
    assert end.value.code == 2
    assert_one_line(capfd.readouterr().err, f"{damaged}: is not")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (
            '{"done": 450, "total": 1000, "unit": "step", "per_second": 0.5}',
            "step 450 of 1000, 0.5 steps/s, 18:20 left",
        ),
        ('{"done": 0, "total": 3, "unit": "frame", "per_second": null}', "frame 0 of 3"),
        ('{"done": 7, "total": null, "unit": "step", "per_second": 0.5}', None),
        ("{", None),
        ("[]", None),
    ],
)
def test_the_progress_that_a_command_writes(tmp_path, text, shown):
    (tmp_path / "progress.json").write_text(text)
    progress = read_progress(tmp_path)
    assert (progress and str(progress)) == shown


def test_the_reason_is_the_last_error_of_the_last_command(tmp_path):
    def check(log, expected, begin=0):
        (tmp_path / "log.txt").write_text(log)
        write_json(tmp_path / "commands.json", {"commands": [{"log_begin": begin}]})
        assert reason(tmp_path) == expected

    check("50%|##\r60%|###\nrun.py: error: no such thing\n\n", "run.py: error: no such thing")
    check(
        "50%|##\rerror: model.pth could not be saved\n100%|#####\r100%|#####\n",
        "error: model.pth could not be saved",
    )
    check("error: earlier\nKilled\n\n", "Killed", begin=15)
    check("", "no output")


def test_every_slot_has_its_share(monkeypatch):
    def slots(*words, flags=()):
        parser = Parser("test", None)
        work.add_slot_arguments(parser.add_mutually_exclusive_group())
        args = parser.parse_args(words)
        return work.make_slots(args.jobs, args.gpus, flags)

    monkeypatch.setattr(work, "usable_cores", lambda: 9)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(work.torch.cuda, "device_count", lambda: 8)
    assert slots() == slots("--jobs", "1") == [{}]
    assert slots("--jobs", "2") == [{"OMP_NUM_THREADS": "4"}] * 2
    assert slots("--jobs", "20") == [{"OMP_NUM_THREADS": "1"}] * 20
    assert [slot["CUDA_VISIBLE_DEVICES"] for slot in slots("--gpus", "0-2,7")] == [
        "0",
        "1",
        "2",
        "7",
    ]
    assert slots("--gpus", "3") == [{"OMP_NUM_THREADS": "9", "CUDA_VISIBLE_DEVICES": "3"}]
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert slots("--jobs", "2") == [{"OMP_NUM_THREADS": "3"}] * 2
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,GPU-5")  # as a batch system sets it
    assert [slot["CUDA_VISIBLE_DEVICES"] for slot in slots("--gpus", "0-1")] == ["4", "GPU-5"]
    with pytest.raises(InputError, match="--gpus 8: PyTorch finds 8 CUDA devices here"):
        slots("--gpus", "0-8")
    with pytest.raises(InputError, match="--gpus and --device"):
        slots("--gpus", "0", flags=["--device", "cpu"])


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--out", "OUT", "--runs", "run", "other"], "--runs other: "),
        (["--out", "OUT", "--gpus", "99"], "--gpus 99: PyTorch finds"),
        (["--out", "OUT", "--gpus", "3-"], "3- is not a list of GPUs"),
        (["--out", "OUT", "--gpus", "3-1"], "twice, or none"),
        (["--out", "OUT", "--gpus", "0,0"], "twice, or none"),
        (["--out", "OUT", "--jobs", "0"], "0 is not a whole number of at least 1"),
        (["--out", "OUT", "--jobs", "2", "--gpus", "0"], "not allowed with"),
        (["--out", "OUT", "--nf0", "8"], "--nf0: cannot be given to a worker"),
        (["--out", "OUT", "--lr", "1"], "--lr: cannot be given to a worker"),
        (["--out", "OUT", "--log_evry", "8"], "--log_evry"),
        *(
            (
                ["--out", "OUT", *words],
                f"{words[0].partition('=')[0]}: cannot be given, the experiment sets it",
            )
            for words in (
                ["--data_root", "other"],
                ["--train_root", "other"],
                ["--logging_root=other"],
                ["--experiment_name", "mine"],
                ["--lpips"],
                ["--checkpoint", "latest"],
            )
        ),
        (
            ["--out", "OUT", "--dry_run"],
            "--dry_run: cannot be given, since an experiment's runs must",
        ),
        (["--out", "OUT", "--start_epoch", "2"], "runs begin with the first step"),
        (["--out", "OUT", "--cycle_spin", "2"], "runs render each view once"),
        (
            ["--out", "OUT", "--patience", "2"],
            "--patience: cannot be given, since an experiment's runs end",
        ),
        (["--out", "nowhere"], "nowhere: holds no experiment"),
    ],
)
def test_a_worker_refuses(tmp_path, capfd, words, expected):
    plan = make_plan(tmp_path / "out", {"run": "finish()"})
    with pytest.raises(SystemExit) as end:
        run_command(
            worker.PROG, worker.main, [str(plan.out) if word == "OUT" else word for word in words]
        )
    error = capfd.readouterr().err
    assert end.value.code == 2
    assert error.startswith("experiments.worker: error: ")
    assert_one_line(error, expected)
    assert not begun(plan.folder("run"))
    assert not Path("nowhere").exists()


def test_a_training_that_leaves_no_checkpoint_is_named(tmp_path):
    plan = make_plan(tmp_path / "out", {"run": ""})
    plan.runs["run"]["train"] = "python train.py"
    with pytest.raises(InputError, match=f"{plan.folder('run')}: holds no checkpoint of step 3"):
        list(command_lines(plan, "run", []))


def test_an_experiment_lists_its_runs(tmp_path, capsys):
    plan = make_plan(tmp_path / "out", {"run": "finish()", "other": "finish()"})
    work.work(plan, ["other"], [], [{}])
    capsys.readouterr()
    table1.main(["--out", str(plan.out), "--status"])
    assert capsys.readouterr().out == (
        "run    waiting\nother  done     PSNR 20.00 dB\n1 done, 0 running, 1 waiting, 0 failed\n"
    )
    assert json.loads((plan.out / RECORD).read_text())["steps"] == 3
