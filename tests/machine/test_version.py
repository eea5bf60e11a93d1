"""`--version` says what is written where people cite it, and which commit runs."""

import re
import shutil
import subprocess
import sys

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
    expected = f"DeepVoxels {VERSION}" + (f", commit {commit}" if commit else "")
    assert re.fullmatch(re.escape(expected) + r"(\+[0-9a-f]{8})?\n", shown(capsys))
    monkeypatch.setenv("PATH", "")
    assert shown(capsys) == f"DeepVoxels {VERSION}\n"


def test_edited_code_is_told_from_its_commit(tmp_path):
    """Python files alone: an edited text changes no result."""

    def git(*words) -> None:
        identity = ["-c", "user.name=x", "-c", "user.email=x@example.com"]
        subprocess.run(["git", *identity, *words], cwd=tmp_path, check=True, capture_output=True)

    def commit() -> str:
        program = "from machine.version import git_commit; print(git_commit())"
        words = [sys.executable, "-c", program]
        ended = subprocess.run(words, cwd=tmp_path, check=True, capture_output=True, text=True)
        return ended.stdout.strip()

    code = tmp_path / "machine" / "version.py"
    code.parent.mkdir()
    shutil.copy(ROOT / "machine" / "version.py", code)
    (tmp_path / "README.md").write_text("one\n")
    git("init", "-q")
    git("add", ".")
    git("commit", "-q", "-m", "first")
    clean = commit()
    assert re.fullmatch("[0-9a-f]{40,64}", clean)
    (tmp_path / "README.md").write_text("two\n")
    assert commit() == clean
    code.write_text(code.read_text() + "# one\n")
    one = commit()
    assert re.fullmatch(clean + r"\+[0-9a-f]{8}", one)
    code.write_text(code.read_text() + "# two\n")
    assert commit() not in (clean, one)
    assert commit().startswith(clean + "+")
