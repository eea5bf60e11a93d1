"""The version of this program, and the commit of its checkout."""

import argparse
import subprocess
from pathlib import Path

VERSION = "1.0"


def git_commit() -> str:
    """The commit that is checked out, in full; empty without git or its repository."""
    try:
        return subprocess.run(
            ["git", "rev-parse", "HEAD"],
            cwd=Path(__file__).parent.parent,
            capture_output=True,
            text=True,
            check=False,
        ).stdout.strip()
    except OSError:  # git is not installed
        return ""


class ShowVersion(argparse.Action):
    """The flag `--version`: prints the version and the commit, if there is one, and exits."""

    def __init__(self, option_strings, dest, **kwargs):
        super().__init__(option_strings, argparse.SUPPRESS, nargs=0, **kwargs)

    def __call__(self, parser, namespace, values, option_string=None):
        commit = git_commit()
        print(f"DeepVoxels {VERSION}" + (f", commit {commit[:12]}" if commit else ""))
        parser.exit()
