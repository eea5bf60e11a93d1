"""The version of this program, and the commit of its checkout."""

import argparse
import hashlib
import subprocess
from pathlib import Path

VERSION = "1.0"


def git_commit() -> str:
    """The commit that is checked out, in full. Where tracked Python files were edited since, "+"
    and a hash of the edits follow. Empty without git or its repository."""
    commit = _git("rev-parse", "HEAD").decode().strip()
    edits = _git("diff", "HEAD", "--", "*.py") if commit else b""
    return f"{commit}+{hashlib.sha256(edits).hexdigest()[:8]}" if edits else commit


def short_commit(commit: str) -> str:
    """What `git_commit` returned, for messages: twelve digits, and the hash of the edits."""
    head, plus, edits = commit.partition("+")
    return f"{head[:12]}{plus}{edits}"


def _git(*words: str) -> bytes:
    """The output of a git command in this checkout; empty if it fails."""
    try:
        return subprocess.run(
            ["git", *words], cwd=Path(__file__).parent.parent, capture_output=True, check=False
        ).stdout
    except OSError:  # git is not installed
        return b""


class ShowVersion(argparse.Action):
    """The flag `--version`: prints the version and the commit, if there is one, and exits."""

    def __init__(self, option_strings, dest, **kwargs):
        super().__init__(option_strings, argparse.SUPPRESS, nargs=0, **kwargs)

    def __call__(self, parser, namespace, values, option_string=None):
        commit = short_commit(git_commit())
        print(f"DeepVoxels {VERSION}" + (f", commit {commit}" if commit else ""))
        parser.exit()
