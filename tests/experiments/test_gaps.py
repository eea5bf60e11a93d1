"""What tables and pictures show of runs that are not done, and of what an earlier call left."""

import imageio.v2 as imageio
import numpy as np
import pytest

from evaluation.output import read_frame, write_png16
from experiments import occlusion, sensitivity, table1
from experiments.figures import Plot, write_plots
from experiments.results import cell, latex_tables, markdown_table
from tests.conftest import SMALL
from tests.experiments import write_record
from util import InputError, write_json


def collect(study, scene, out, *more) -> None:
    study.main(
        [
            str(word)
            for word in ["--scenes", scene, "--steps", 3, "--out", out, "--collect", *SMALL, *more]
        ]
    )


def plan(out, experiment: str, **psnr: float) -> None:
    """The folder of an experiment in which the runs with these variants, of seed 0, are done."""
    write_record(out, experiment, 3)
    for variant, value in psnr.items():
        folder = out / "runs" / f"scene-{variant}-seed0" / "test_traj" / "day" / "run"
        folder.mkdir(parents=True)
        write_json(
            folder / "metrics.json",
            {
                "psnr": value,
                "ssim": 0.5,
                "depth": None,
                "parameters": 7,
                "protocol": {"sidelength": 64, "background": "white"},
            },
        )


@pytest.mark.parametrize("study", [table1, occlusion])
def test_a_figure_of_no_finished_run_is_neither_kept_nor_named(study, scene, tmp_path, capsys):
    plan(tmp_path, study.__name__.rpartition(".")[2])
    (tmp_path / "figure.png").write_text("of other scenes")
    collect(study, scene, tmp_path)
    assert not (tmp_path / "figure.png").exists()
    output = capsys.readouterr().out
    assert "(not done)" in output
    assert "look at" not in output


def test_a_frame_that_was_deleted_is_named_after_the_table(scene, tmp_path, capfd):
    plan(tmp_path, "table1", pix2pix=20.0)
    with pytest.raises(InputError, match=r"scene-pix2pix-seed0/.*/img_00000.png: no such file"):
        collect(table1, scene, tmp_path)
    output, error = capfd.readouterr()
    assert "20.00 / 0.50" in output
    assert "img_00000" not in error  # OpenCV would warn of it


def test_a_frame_is_read_as_it_was_written(tmp_path):
    image = np.linspace(0, 1, 4 * 5 * 3).reshape(4, 5, 3)
    write_png16(tmp_path / "img_00002.png", image)
    np.testing.assert_array_equal(read_frame(tmp_path, 2), np.round(255 * image))


def test_sensitivity_lists_its_gaps(scene, tmp_path, capsys):
    plan(tmp_path, "sensitivity", base=20.0, skip_3=18.0)
    (tmp_path / "noise.png").write_text("of other scenes")
    collect(sensitivity, scene, tmp_path, "--studies", "images", "noise", "--degrees", 2)
    text = (tmp_path / "sensitivity.md").read_text()
    assert "| scene | training images | 8 (--skip 0) | 20.00 / 0.50 |" in text
    assert "| scene | training images | 4 (--skip 1) | – (not done) |" in text
    assert "\nNot done:\n\n- scene, training images 4 (--skip 1), seed 0: waiting\n" in text
    output = capsys.readouterr().out
    assert text in output
    assert [line for line in output.splitlines() if "look at" in line] == [
        f"look at {tmp_path / 'images.png'}"
    ]
    assert not (tmp_path / "noise.png").exists()


def test_no_line_is_drawn_across_a_gap(tmp_path):
    for name, seeds in [("whole", [1, 1, 1, 1]), ("broken", [1, 1, 0, 1])]:
        curve = sensitivity.psnr_curve(
            "scene",
            [
                {"x": x, "seeds": {str(seed): {"psnr": 20.0} for seed in range(count)}}
                for x, count in enumerate(seeds)
            ],
        )
        write_plots(tmp_path / f"{name}.png", [Plot("", "x", "y", [curve])])
    whole, broken = (imageio.imread(tmp_path / f"{name}.png") for name in ("whole", "broken"))
    changed = np.flatnonzero((whole != broken).any(axis=(0, 2)))
    assert 0.4 < np.mean(changed) / whole.shape[1] < 0.8
    assert len(changed) > 0.4 * whole.shape[1]


def test_a_cell_says_what_its_mean_hides():
    figures = [{"setbacks": 0}, {"setbacks": 2}, {"setbacks": 0}]
    summary = {
        "psnr": 20.0,
        "ssim": 0.5,
        "seeds": dict(zip("012", figures, strict=True)),
        "failed": {"3": "full"},
        "unfinished": {},
    }
    assert cell(summary, []) == "20.00 / 0.50 (3 of 4 seeds, 1 went back)"
    assert (
        cell({**summary, "seeds": {"0": figures[0]}, "failed": {}}, [], best=True)
        == "**20.00 / 0.50**"
    )


def test_a_table_is_written_for_latex_too():
    """Special characters of scenes' names and remarks are escaped."""
    rows = [["A & B", "**20.00 / 0.50**"], ["100 %", "– (failed)"]]
    text = (
        "flags: --size small\n\n" + markdown_table(["", "my_scene"], rows) + "\nNot done:\n\n- x\n"
    )
    lines = [
        r"\begin{tabular}{lc}",
        r"\toprule",
        r" & my\_scene \\",
        r"\midrule",
        r"A \& B & \textbf{20.00 / 0.50} \\",
        r"100 \% & -- (failed) \\",
        r"\bottomrule",
        r"\end{tabular}",
    ]
    assert latex_tables(text) == "\n".join([*lines, ""])
