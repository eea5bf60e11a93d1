"""Commands that a program's last lines show, to be pasted into the terminal."""

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parent.parent


def command(*words: str) -> str:
    """An indented line that runs Python with these words."""
    if shutil.which("python") == sys.executable:
        python = "python"
    else:
        python = shown_path(Path(sys.executable))
    join = subprocess.list2cmdline if os.name == "nt" else shlex.join
    return f"  {join([python, *words])}"


def shown_path(path: Path) -> str:
    """The path from the current folder if it lies in it, else in full."""
    path = path.absolute()
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)
