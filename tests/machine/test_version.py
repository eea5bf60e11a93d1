"""`--version` says what is written where people cite it, and which commit runs."""

import re
import subprocess

from machine.version import VERSION
from tests.helpers import ROOT, run


def shown(capsys) -> str:
    assert run("--version") == 0
    return capsys.readouterr().out


def test_the_version_is_that_of_the_citation_and_the_changelog(capsys):
    assert shown(capsys).split(",")[0].strip() == f"DeepVoxels {VERSION}"
    assert f'\nversion: "{VERSION}"\n' in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(r"^## (.+)$", changelog, re.MULTILINE)[1] == VERSION


def test_the_commit_is_named_where_there_is_one(capsys, monkeypatch):
    words = ["git", "-C", str(ROOT), "rev-parse", "--short=12", "HEAD"]
    commit = subprocess.run(words, capture_output=True, text=True, check=False).stdout.strip()
    assert shown(capsys) == f"DeepVoxels {VERSION}" + (f", commit {commit}\n" if commit else "\n")
    monkeypatch.setenv("PATH", "")
    assert shown(capsys) == f"DeepVoxels {VERSION}\n"
