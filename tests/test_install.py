"""What a new machine meets: the Makefile, the lists of packages, a missing compiler."""

import os
import re
import shlex
import shutil
import socket
import subprocess
import sys

import pytest
from packaging.requirements import Requirement

from tests.helpers import ROOT, arguments, make


def requirements(name: str) -> list[Requirement]:
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    return [Requirement(line) for line in lines if re.match(r"\w", line)]


@pytest.mark.parametrize("version", [(3, 10, 14), (3, 15, 0)])
def test_a_python_without_pytorch_is_refused_in_one_line(tmp_path, version):
    """By a Python that says it is of that version."""
    for name in ("Makefile", "requirements.txt"):
        shutil.copy(ROOT / name, tmp_path)
    python = tmp_path / "python"
    code = f"import sys; sys.version_info = {version}; $2"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" -c "{code}"\n')
    python.chmod(0o755)
    ended = make(f"PYTHON={python}", "view", cwd=tmp_path)
    refusal, end = ended.stderr.splitlines()
    assert refusal.startswith("Python 3.11 to 3.14 is needed")
    assert end.startswith("make: ***")
    assert ended.stdout == ""
    assert not (tmp_path / ".venv").exists()


@pytest.mark.parametrize("given", ["", "PORT=9123"])
def test_make_view_takes_the_port_that_is_free_or_given(tmp_path, given):
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            taken.bind(("127.0.0.1", 8080))
            taken.listen()
        except OSError:  # something else has it
            pass
        python = shlex.quote(sys.executable)
        shown = make("-n", "-o", ".venv/installed", f"PY={python}", "view", *given.split()).stdout
    port = int(re.search(r"--port (\d+)", shown)[1])
    if given:
        assert port == 9123
    else:
        assert 8080 < port < 9080


def test_the_constraints_hold_every_package_within_its_bounds():
    pinned = {
        requirement.name.lower().replace("_", "-"): str(requirement.specifier)
        for requirement in requirements("constraints.txt")
    }
    for name in ("requirements.txt", "requirements-dev.txt"):
        for requirement in requirements(name):
            version = pinned[requirement.name.lower().replace("_", "-")]
            assert version.startswith("==")
            assert requirement.specifier.contains(version.removeprefix("==")), requirement


@pytest.mark.skipif(os.name == "nt", reason="the compiler is looked for in another way")
def test_compiling_without_a_compiler_is_refused_before_anything_is_read(scene, tmp_path):
    ended = subprocess.run(
        [
            sys.executable,
            "run_deepvoxels.py",
            *arguments(scene, tmp_path / "logs", "--max_steps", 1, "--compile"),
        ],
        cwd=ROOT,
        env={**os.environ, "PATH": str(tmp_path), "CXX": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 2
    assert ended.stdout == ""
    assert re.fullmatch(
        r"run_deepvoxels.py: error: --compile: needs a C\+\+ compiler, .*\n", ended.stderr
    )
    assert not (tmp_path / "logs").exists()
