"""Studies of a model that is changed between their commands (docs/change_the_model.md)."""

from baselines import MODELS
from deep_voxels import DeepVoxels
from experiments.status import Result
from experiments.study import warn_of_other_code
from experiments.table1 import models_shown, paper_layout
from machine.version import git_commit, short_commit
from util import write_json


def test_runs_of_other_code_are_named_in_a_warning(tmp_path, capsys):
    now = git_commit()
    other = f"{40 * '0'}+12345678"
    results = [Result(tmp_path / "not recorded", {}, None)]
    for name, commit in [("a", now or "unknown"), ("b", other), ("c", other)]:
        (tmp_path / name).mkdir()
        write_json(tmp_path / name / "options.json", {"machine": {"git_commit": commit}})
        results.append(Result(tmp_path / name, {}, None))
    warn_of_other_code(results[:2])
    assert capsys.readouterr().err == ""
    warn_of_other_code(results)
    named = f"are kept: 2 (commit {12 * '0'}+12345678; now {short_commit(now)})"
    assert (named in capsys.readouterr().err) == bool(now)  # nothing is known without git


def test_a_variant_stands_below_the_papers_methods(monkeypatch):
    monkeypatch.setitem(MODELS, "variant", DeepVoxels)
    models = models_shown(["variant", "deepvoxels", "pix2pix"])
    assert models == ["pix2pix", "deepvoxels", "variant"]
    figures = {
        "psnr": 20.0,
        "ssim": 0.5,
        "parameters": 2_000_000,
        "seeds": {"0": {"setbacks": 0}},
        "failed": {},
        "unfinished": {},
    }
    table = paper_layout({"cube": dict.fromkeys(models, figures)}, models, [])
    assert "| variant | 2.00 M | **20.00 / 0.50** | 20.00 / 0.50 |" in table
