"""The small rooms: errors and run folders (util), numbers and exit codes (cli), signals, the
machine (runtime)."""

import os
import platform
import re
import signal
import subprocess
import sys
from argparse import ArgumentTypeError

import pytest
import torch

from machine.cli import exit_code, number, run
from machine.runtime import describe_machine
from training import run_folder
from training.run_folder import Signals
from util import InputError, make_run_folder


def test_run_folders_never_collide(tmp_path):
    runs = [make_run_folder(tmp_path, "logs", "runs", name="cube") for _ in range(3)]
    assert len({path for folders in runs for path in folders}) == 6
    assert all(folder.is_dir() for folders in runs for folder in folders)


@pytest.mark.parametrize(
    "name", ["../../outside", "/etc", "a\nb", "..", "scène\u202e", "x" * 5000, "~", "a\0b"]
)
def test_no_name_leads_out_of_the_logging_root(tmp_path, name):
    (folder,) = make_run_folder(tmp_path / "root", "logs", name=name)
    assert folder.resolve().parent.parent == (tmp_path / "root" / "logs").resolve()
    assert [path.name for path in tmp_path.iterdir()] == ["root"]


def test_no_run_folder_is_left_where_another_cannot_be_made(tmp_path):
    (tmp_path / "runs").touch()
    with pytest.raises(InputError, match="cannot be written"):
        make_run_folder(tmp_path, "logs", "runs", name="cube")
    assert not list(tmp_path.glob("logs/*/*"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_ask_to_save_then_to_stop_then_end_the_process(number, monkeypatch):
    before = signal.getsignal(number)
    exits = []
    monkeypatch.setattr(os, "_exit", exits.append)
    with Signals() as signals:
        os.kill(os.getpid(), signal.SIGUSR1)
        assert signals.save
        assert signals.stop is None
        os.kill(os.getpid(), number)
        assert signals.stop == number
        assert exits == []
        os.kill(os.getpid(), signal.SIGTERM)
        assert exits == []  # so soon, it is the same request
        monkeypatch.setattr(run_folder, "SAME_REQUEST", 0.0)
        os.kill(os.getpid(), signal.SIGTERM)
        assert exits == [143]
    assert signal.getsignal(number) is before


def test_errors_are_one_printable_line():
    assert str(InputError("a\nb\x1b[31m")) == "a\\nb\\x1b[31m"


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (InputError("a: is wrong"), 2, "thing: error: a: is wrong"),
        (FileNotFoundError(2, "No such file", "a\nb"), 2, "thing: error: a\\nb: No such file"),
        (
            OSError(28, "No space left", "a", None, "b/a"),
            2,
            "thing: error: a to b/a: No space left",
        ),
        (OSError("a: could not be written"), 2, "thing: error: a: could not be written"),
        (MemoryError("a lot"), 1, "thing: error: out of memory: a lot"),
        (torch.OutOfMemoryError("a lot"), 1, "thing: error: out of memory: a lot"),
        (
            RuntimeError("[enforce fail] DefaultCPUAllocator: a lot"),
            1,
            "thing: error: out of memory: a lot",
        ),
        (MemoryError(), 1, "thing: error: out of memory: no more could be had"),
        (
            RuntimeError("could not create a primitive"),
            1,
            "thing: error: out of memory: could not create a primitive",
        ),
        (
            OSError(12, "Cannot allocate memory"),
            1,
            "thing: error: out of memory: [Errno 12] Cannot allocate memory",
        ),
        (BrokenPipeError(32, "Broken pipe"), 2, "thing: error: [Errno 32] Broken pipe"),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_an_error_is_one_line_and_an_exit_code(capsys, error, code, line):
    def main(argv=None):
        raise error

    assert exit_code("thing", main) == code
    with pytest.raises(SystemExit) as end:
        run("thing", main)
    assert end.value.code == code
    assert capsys.readouterr().err == (line and 2 * f"{line}\n")


def test_commands_end_well_or_with_their_own_code_and_bugs_are_not_hidden():
    assert exit_code("thing", lambda: None) == 0
    assert exit_code("thing", lambda: 143) == 143
    assert run("thing", lambda argv: None) is None
    with pytest.raises(IndexError):
        exit_code("thing", lambda: [].pop())


@pytest.mark.parametrize("length", [10, 100_000])
def test_a_closed_pipe_ends_nothing_and_costs_no_word(length):
    """As in `command | head`: a short text fails only when Python flushes it at its end."""
    command = f"from machine import cli; cli.run('thing', lambda argv: print('x' * {length}))"
    process = subprocess.Popen(
        [sys.executable, "-c", command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": ""},
    )
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait() == 0


def test_commands_that_need_no_torch_do_not_wait_for_it():
    code = "import sys, machine.cli; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("convert", "good", "bad", "message"),
    [
        (number(int, 1), "1", "0", "0 is not a whole number of at least 1"),
        (number(int, 1, 64), "64", "65", "65 is not a whole number from 1 to 64"),
        (number(float, above=0), "1e-9", "0", "0 is not a number above 0"),
        (number(float, 0), "0", "inf", "inf is not a number of at least 0"),
        (number(float), "-3", "-inf", "-inf is not a finite number"),
        (number(float, 0), "0.5", "nan", "nan is not a number of at least 0"),
    ],
)
def test_numbers_of_the_command_line_say_what_they_must_be(convert, good, bad, message):
    assert convert(good) == float(good)
    with pytest.raises(ArgumentTypeError, match=re.escape(message)):
        convert(bad)


def test_a_machine_without_git_is_described_too(monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert describe_machine(torch.device("cpu"))["git_commit"] == "unknown"


def test_no_thread_computes_with_denormals():
    """Neither the one that asks for it nor those that PyTorch starts; as `run_deepvoxels.py` does
    it."""
    program = """if True:
        import torch
        from machine.runtime import flushed_denormals
        with flushed_denormals():
            torch.set_num_threads(4)
            tiny = torch.full((2 ** 22,), 1e-30) * 1e-10
        assert torch.full((1,), 1e-30) * 1e-10 > 0
        supported = torch.set_flush_denormal(False)
        print(supported, bool(tiny.view(torch.int32).any()))"""
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert run.stdout in ("True False\n", "False True\n")  # or such a processor has no such mode


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="an allocator with other settings")
def test_the_system_clears_large_blocks_once_and_not_each_time():
    """In pages of 4 KiB: a block of 64 MiB has 16384. At first malloc has to find where such blocks
    fit."""
    faults = """if True:
        import ctypes, resource, torch
        from machine.runtime import keep_freed_memory
        ctypes.CDLL(None).prctl(41, 1, 0, 0, 0)  # PR_SET_THP_DISABLE: no pages of 2 MiB
        for prepare in (lambda: None, keep_freed_memory):
            prepare()
            for _ in range(20):
                torch.ones(2 ** 24)
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
            torch.ones(2 ** 24)
            print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)"""
    run = subprocess.run([sys.executable, "-c", faults], capture_output=True, text=True, check=True)
    before, kept = map(int, run.stdout.split())
    assert kept < 1000 < before
