"""A forked Python does what a Python that is started does."""

import os
import signal
import subprocess
import sys

import pytest

from tests import helpers
from tests.helpers import start_python, wait_for

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nothing is forked")

ENVIRONMENT = {**helpers.ENVIRONMENT, "PYTHONUNBUFFERED": ""}

# What it was given, and ends of all kinds
GIVEN = """
import os, sys, tempfile
print(sys.argv, sys.path[0], __name__, os.getcwd(), dict(os.environ), tempfile.gettempdir())
print(os.getsid(0) == os.getpid(), os.listdir("/proc/self/fd"), sys.stdin.read(), file=sys.stderr)
"""
ENDS = {
    "nothing": "",
    "a code": "raise SystemExit(3)",
    "a large code": "raise SystemExit(256 + 7)",
    "a text": "raise SystemExit('no')",
    "Ctrl-C": "raise KeyboardInterrupt",
    "at exit": "import atexit; atexit.register(print, 'later')",
    "a thread": "import threading; threading.Timer(0.2, print, ['later']).start()",
    "a signal": "import os; os.kill(os.getpid(), 15)",
    "os._exit": "import os; print('lost'); os._exit(5)",
    "a closed pipe": "import os, sys; os.close(1); print('lost')",
}


def both(words, **kwargs) -> list[tuple]:
    """The exit code and the outputs of a Python that is forked, and of one that is started: with a
    `wrapper`, `start_python` does so."""
    ends = []
    for wrapper in ([], ["env"]):
        process = start_python(*words, wrapper=wrapper, stdin=subprocess.PIPE, **kwargs)
        ends.append((*process.communicate("input", timeout=60), process.returncode))
    return ends


@pytest.mark.parametrize("session", [False, True])
@pytest.mark.parametrize("how", ["-c", "-m", "script"])
def test_it_takes_over_words_folder_environment_and_streams(how, session, tmp_path):
    (tmp_path / "given.py").write_text(GIVEN)
    (tmp_path / "temporary").mkdir()
    words = {"-c": ["-c", GIVEN], "-m": ["-m", "given"], "script": ["given.py"]}[how]
    environment = {**ENVIRONMENT, "TMPDIR": str(tmp_path / "temporary"), "LANGUAGE": "any"}
    forked, started = both(
        [*words, "a", "--b"], cwd=tmp_path, env=environment, start_new_session=session
    )
    assert forked == started
    assert started[2] == 0


@pytest.mark.parametrize("code", ENDS.values(), ids=ENDS)
def test_it_ends_as_python_does(code):
    forked, started = both(["-c", code], env=ENVIRONMENT)
    assert forked[::2] == started[::2]
    assert forked[1].splitlines()[-1:] == started[1].splitlines()[-1:]


def test_it_can_be_waited_for_and_killed(tmp_path):
    process = start_python("-c", "import time; open('there', 'w'); time.sleep(60)", cwd=tmp_path)
    wait_for((tmp_path / "there").exists, process)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.1)
    process.kill()
    assert process.wait(10) == -signal.SIGKILL
    with pytest.raises(ProcessLookupError):
        os.kill(process.pid, 0)
