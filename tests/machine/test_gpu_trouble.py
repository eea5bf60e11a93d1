"""A driver that is too old, too little memory, and a GPU that fails: one line each."""

import gc
import os
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch

from machine.cli import exit_code
from machine.ranks import ALONE
from tests.helpers import ROOT, assert_same, final_checkpoint, resume, run
from training import loop
from training.memory import Needs, report_memory

# Of CUDA 11.4. PyTorch asks for its version before anything else.
OLD_DRIVER = """
int cuDriverGetVersion(int *version) { *version = 11040; return 0; }
int cuInit(unsigned flags) { return 0; }
int cuGetProcAddress(const char *name, void **function, int version, unsigned long long flags) {
    *function = 0;
    return 500;
}
"""
TOO_OLD = "The NVIDIA driver on your system is too old (found version 11040)."
# PyTorch's message of a failed kernel.
FAILED = (
    "CUDA error: {}\nSearch for `cudaErrorX' in the documentation for more information.\n"
    "CUDA kernel errors might be asynchronously reported at some other API call."
)


@pytest.fixture(scope="module")
def old_driver(tmp_path_factory) -> Path:
    """A folder with the driver."""
    folder = tmp_path_factory.mktemp("driver")
    (folder / "driver.c").write_text(OLD_DRIVER)
    subprocess.run(
        ["gcc", "-shared", "-fPIC", "-o", folder / "libcuda.so.1", folder / "driver.c"], check=True
    )
    return folder


@pytest.mark.skipif(
    sys.platform != "linux" or not torch.version.cuda or not shutil.which("gcc"),
    reason="needs Linux, PyTorch with CUDA, and gcc",
)
def test_an_old_driver_is_one_line(old_driver, train_arguments, logs):
    """With auto a warning, and the CPU is taken; with cuda an error."""
    script = (
        "import run_deepvoxels\n"
        f"words = {train_arguments}\n"
        "for device in ('auto', 'cuda'):\n"
        "    print(run_deepvoxels.main([*words, '--dry_run', '--device', device]))\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        env={**os.environ, "LD_LIBRARY_PATH": str(old_driver)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert [line for line in ended.stdout.splitlines() if line.isdigit()] == ["0", "2"]
    assert "on cpu" in ended.stdout
    warning, error = ended.stderr.splitlines()
    assert warning.startswith(f"warning: {TOO_OLD}")
    assert warning.endswith("The CPU computes instead.")
    assert error.startswith(f"run_deepvoxels.py: error: --device cuda: {TOO_OLD}")
    assert not logs.exists()


@pytest.mark.parametrize(
    ("precision", "suggested"),
    [("fp32", "a smaller --size or --precision bf16; "), ("bf16", "a smaller --size; ")],
)
def test_too_little_memory_names_what_needs_less(precision, suggested, capsys):
    report_memory(Needs(2**60, 2**60, 0, 0), torch.device("cpu"), ALONE, precision)
    assert f"it needs less with {suggested}" in capsys.readouterr().err


@pytest.mark.parametrize(
    "failure",
    [
        "unspecified launch failure",
        "the launch timed out and was terminated",
        "uncorrectable ECC error encountered",
        "no CUDA-capable device is detected",
        "device lost",
    ],
)
def test_a_gpu_that_fails_is_one_line(failure, capsys):
    def fails():
        raise torch.AcceleratorError(FAILED.format(failure))

    assert exit_code("thing", fails) == 1
    assert capsys.readouterr().err == (
        f"thing: error: the GPU failed: {failure}; what was saved before is intact\n"
    )


def test_an_error_of_the_program_on_a_gpu_is_none_of_the_gpu():
    def fails():
        raise torch.AcceleratorError(FAILED.format("an illegal memory access was encountered"))

    with pytest.raises(torch.AcceleratorError):
        exit_code("thing", fails)


def test_a_gpu_that_fails_in_training_leaves_the_last_checkpoint(
    train_arguments, logs, monkeypatch, capsys
):
    """From which the run then goes on. No file stays open."""
    words = [*train_arguments, "--checkpoint_every", 2, "--max_steps", 4]
    step = loop.train_step
    steps = []

    def fails_in_the_third(*arguments):
        steps.append(arguments)
        if len(steps) == 3:
            raise torch.AcceleratorError(FAILED.format("unspecified launch failure"))
        return step(*arguments)

    with monkeypatch.context() as patch, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ResourceWarning)
        patch.setattr(loop, "train_step", fails_in_the_third)
        assert run(*words) == 1
        gc.collect()
    assert not [str(w.message) for w in caught if w.category is ResourceWarning]
    assert "error: the GPU failed: unspecified launch failure; " in capsys.readouterr().err
    final_checkpoint(logs, 2)
    assert run(*resume(logs, "--max_steps", 4)) == 0
    _, resumed = final_checkpoint(logs, 4)
    assert run(*words, "--logging_root", logs / "undisturbed") == 0
    assert_same(resumed["model"], final_checkpoint(logs / "undisturbed", 4)[1]["model"])
