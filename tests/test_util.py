"""Run folders, their lock, and what signals ask for."""
import os
import platform
import re
import signal
import subprocess
import sys
from argparse import ArgumentTypeError

import pytest

from cli import number
from util import InputError, RunLock, Signals, make_run_folder


def test_run_folders_never_collide(tmp_path):
    runs = [make_run_folder(tmp_path, "logs", "runs", name="cube") for _ in range(3)]
    assert len({path for folders in runs for path in folders}) == 6
    assert all(folder.is_dir() for folders in runs for folder in folders)


@pytest.mark.parametrize("name", ["../../outside", "/etc", "a\nb", "..", "scène\u202e", "x" * 5000, "~", "a\0b"])
def test_no_name_leads_out_of_the_logging_root(tmp_path, name):
    (folder,) = make_run_folder(tmp_path / "root", "logs", name=name)
    assert folder.resolve().parent.parent == (tmp_path / "root" / "logs").resolve()
    assert [path.name for path in tmp_path.iterdir()] == ["root"]


def test_a_logging_root_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="--logging_root"):
        make_run_folder(tmp_path / "file", "logs", name="x")


def test_two_processes_cannot_write_one_run(tmp_path):
    attempt = [sys.executable, "-c", "import sys, pathlib, util; util.RunLock(pathlib.Path(sys.argv[1]))", tmp_path]
    with RunLock(tmp_path):
        refused = subprocess.run(attempt, capture_output=True, text=True, check=False)
        assert "another process is writing this run" in refused.stderr
    assert subprocess.run(attempt, check=False).returncode == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_ask_to_stop_or_to_save(number):
    before = signal.getsignal(number)
    with Signals() as signals:
        os.kill(os.getpid(), signal.SIGUSR1)
        assert signals.save
        assert signals.stop is None
        os.kill(os.getpid(), number)
        assert signals.stop == number
    assert signal.getsignal(number) is before


def test_errors_are_one_printable_line():
    assert str(InputError("a\nb\x1b[31m")) == "a\\nb\\x1b[31m"


@pytest.mark.parametrize(("convert", "good", "bad", "message"), [
    (number(int, 1), "1", "0", "0 is not a whole number of at least 1"),
    (number(int, 1, 64), "64", "65", "65 is not a whole number from 1 to 64"),
    (number(float, above=0), "1e-9", "0", "0 is not a number above 0"),
    (number(float, 0), "0", "inf", "inf is not a number of at least 0"),
    (number(float), "-3", "-inf", "-inf is not a finite number"),
    (number(float, 0), "0.5", "nan", "nan is not a number of at least 0"),
])
def test_numbers_of_the_command_line_say_what_they_must_be(convert, good, bad, message):
    assert convert(good) == float(good)
    with pytest.raises(ArgumentTypeError, match=re.escape(message)):
        convert(bad)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="an allocator with other settings")
@pytest.mark.parametrize("everything", [True, False])
def test_large_blocks_are_cleared_by_the_system_once_or_each_time(everything):
    """In pages of 4 KiB: a block of 64 MiB has 16384. At first malloc has to find where such blocks fit."""
    faults = """if True:
        import ctypes, resource, torch, runtime
        ctypes.CDLL(None).prctl(41, 1, 0, 0, 0)  # PR_SET_THP_DISABLE: no pages of 2 MiB
        runtime.keep_freed_memory(everything=%s)
        for _ in range(20):
            torch.ones(2 ** 24)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        torch.ones(2 ** 24)
        print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)"""
    run = subprocess.run([sys.executable, "-c", faults % everything], capture_output=True, text=True, check=True)
    assert (int(run.stdout) < 1000) == everything
