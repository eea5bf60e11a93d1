"""The study of stability: real runs, and what it reads from their summaries."""
import json

import imageio.v2 as imageio

from experiments import stability
from tests.conftest import SMALL


def test_the_legend_tells_all_groups_apart():
    groups = [(scene, 0.001, limit) for scene in ("cube", "a$b$") for limit in (5.0, 10.0, 0.0)]
    assert list(stability.legend_texts(groups).values()) == [
        f"{scene}, learning rate 0.001, {limit}" for scene in ("cube", r"a\$b\$") for limit in (
            "limit 5", "limit 10", "no limit")]
    assert stability.legend_texts(groups[1:2]) == {groups[1]: "cube, learning rate 0.001"}


def test_stability_of_runs_with_and_without_the_limit(scene, tmp_path, capsys):
    out = tmp_path / "out"
    stability.main([str(word) for word in ["--scenes", scene, "--steps", 10, "--out", out, "--volume_limits", 10, 0,
                                           "--learning_rates", 0.002, *SMALL]])
    assert "| scene | 0.002 | none | 1 of 1 |" in capsys.readouterr().out
    limited, free = json.loads((out / "stability.json").read_text())["rows"]
    assert limited["volume_max"] == free["volume_max"]  # too small to feel the limit
    assert 0 < limited["volume_max"]["0"] < 10
    assert 0 < limited["loop_gain"]["0"] < 2
    assert imageio.imread(out / "stability.png").shape[:2] == (520, 1440)
