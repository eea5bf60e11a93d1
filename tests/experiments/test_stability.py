"""The study of stability: real runs, and what it reads from their summaries."""

import json
from contextlib import nullcontext
from pathlib import Path

import imageio.v2 as imageio
import pytest
from matplotlib.figure import Figure

from experiments import stability, study
from tests.conftest import SMALL
from tests.experiments import work_here, write_record


def words(scene, out, *more) -> list[str]:
    return [str(word) for word in ["--scenes", scene, "--steps", 10, "--out", out, *SMALL, *more]]


def test_the_legend_tells_all_groups_apart():
    groups = [(scene, 0.001, limit) for scene in ("cube", "a$b$") for limit in (5.0, 10.0, 0.0)]
    assert list(stability.legend_texts(groups).values()) == [
        f"{scene}, learning rate 0.001, {limit}"
        for scene in ("cube", "a$b$")
        for limit in ("limit 5", "limit 10", "no limit")
    ]
    assert stability.legend_texts(groups[1:2]) == {groups[1]: "cube, learning rate 0.001"}


def test_stability_of_a_run_without_the_limit(scene, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(study, "check_first", lambda *_: None)
    monkeypatch.setattr(study, "work", work_here)
    out = tmp_path / "out"
    stability.main(words(scene, out, "--volume_limits", 0, "--learning_rates", 0.002))
    assert "| scene | 0.002 | none | 1 of 1 |" in capsys.readouterr().out
    (row,) = json.loads((out / "stability.json").read_text())["rows"]
    assert 0 < row["volume_max"]["0"] < 10
    assert 0 < row["loop_gain"]["0"] < 2
    assert imageio.imread(out / "stability.png").shape[:2] == (480, 1440)


def test_the_table_and_the_picture_are_whole_or_the_earlier_ones(scene, tmp_path, monkeypatch):
    write_record(tmp_path, "stability", 10)
    (tmp_path / "stability.png").write_text("an earlier one")

    def save_half(figure, file, **_):
        with open(file, "wb") if isinstance(file, Path) else nullcontext(file) as opened:
            opened.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(
        Path,
        "write_text",
        lambda path, text, **_: path.name == ".lock" or pytest.fail(f"{path} may be half written"),
    )
    monkeypatch.setattr(Figure, "savefig", save_half)
    with pytest.raises(OSError, match="No space"):
        stability.main(words(scene, tmp_path, "--collect"))
    assert (tmp_path / "stability.md").is_file()
    assert (tmp_path / "stability.png").read_text() == "an earlier one"
