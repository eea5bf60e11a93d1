"""The notebook of docs/notebooks: it runs in a kernel as Jupyter runs it, its sliders move their
pictures, and its checks tell right from wrong."""

import base64
import json
import re
import shlex
import subprocess
import sys

import cv2
import jupytext
import numpy as np
import pytest
import torch
from nbformat.v4 import new_code_cell

from docs.commands import parser_of
from docs.notebooks import solutions
from docs.notebooks.checks import EXERCISES, check
from docs.notebooks.execute import HERE, SOURCE, TRAINING, has_tag, read_notebook, run_notebook
from docs.notebooks.lesson import Lesson
from tests.helpers import ENVIRONMENT, ROOT
from tests.test_install import requirements

MOVE_SLIDERS = """
for widget in (voxel, lifted, gates, ray):
    for name, slider in widget.sliders.items():
        before = widget.picture.value
        slider.value = slider.max // 2 if slider.value != slider.max // 2 else 5
        print(name, widget.picture.value != before)
"""


def printed(cell) -> str:
    return "".join(output.text for output in cell.outputs if output.output_type == "stream")


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    """The cells but for the training's, executed. Each check is followed by the solution and the
    same check, and the sliders are moved in the end."""
    folder = tmp_path_factory.mktemp("notebook")
    notebook = read_notebook()
    cells = []
    for cell in notebook.cells:
        if has_tag(cell, TRAINING):
            continue
        cell.source = cell.source.replace('root / "demo"', f"Path({str(folder)!r})")
        cells.append(cell)
        for name in re.findall(r"^check\((\w+)\)$", cell.source):
            cells.append(new_code_cell(f"from docs.notebooks.solutions import {name}"))
            cells.append(new_code_cell(cell.source))
    notebook.cells = [*cells, new_code_cell(MOVE_SLIDERS)]
    return run_notebook(notebook).cells, folder


def test_unsolved_exercises_say_what_to_do_and_solutions_are_right(executed):
    said = [printed(cell) for cell in executed[0] if cell.source.startswith("check(")]
    assert len(said) == 2 * len(EXERCISES)
    for name, unsolved, solved in zip(EXERCISES, said[::2], said[1::2], strict=True):
        assert unsolved.startswith(f"{name}: not filled in yet")
        assert solved.startswith(f"{name}: right.")
    (score,) = [printed(cell) for cell in executed[0] if cell.source == "score()"]
    assert score == "4 of 4 exercises are right.\n"


def test_sliders_move_their_pictures(executed):
    moved = printed(executed[0][-1]).split()
    sliders = ["x", "y", "z", "view", "view", "height", "column", "row", "plane"]
    assert moved == [word for name in sliders for word in (name, "True")]


def test_pictures_are_there_where_no_program_moves_them(executed):
    shown = [
        output.data
        for cell in executed[0]
        if cell.cell_type == "code"
        for output in cell.outputs
        if output.output_type == "execute_result"
    ]
    assert len(shown) == 4
    for data in shown:
        assert "application/vnd.jupyter.widget-view+json" in data
        png = np.frombuffer(base64.b64decode(data["image/png"]), np.uint8)
        assert cv2.imdecode(png, cv2.IMREAD_COLOR).std() > 10


def test_the_photos_to_train_on_are_those_of_all_cameras(executed):
    scene = executed[1] / "notebook" / "lego"
    assert [len(list((scene / split / "rgb").iterdir())) for split in ("train", "test")] == [80, 20]
    photo = cv2.imread(str(scene / "train" / "rgb" / "000000.png"))
    assert photo.shape == (64, 64, 3)
    assert photo[:2].min() == 255
    assert photo[24:40, 24:40].std() > 30


def training_commands() -> list[str]:
    cells = [cell for cell in read_notebook().cells if has_tag(cell, TRAINING)]
    return [cell.source for cell in cells if cell.source.startswith("!")]


def test_the_commands_have_flags_that_exist():
    assert len(training_commands()) == 2
    for command in training_commands():
        words = shlex.split(command.replace("\\\n", ""))[2:]
        assert parser_of("run_deepvoxels").parse_known_args(words)[1] == []


def wrong_sum(features, visibility):
    return (features * visibility).sum(dim=1)


def wrong_by_one(points, rotation, translation, camera):
    return solutions.world2image(points, rotation, translation, camera) + 1


def without_mask(features, u, v, depth):
    last = features.shape[-1] - 1
    return solutions.lift(features, u.clamp(0, last), v.clamp(0, last), depth.abs())


def without_return(sums, memory, proposal):
    torch.sigmoid(sums)


def of_another_shape(sums, memory, proposal):
    return torch.sigmoid(sums)


def with_a_mistake(features, visibility):
    return features[visibility]


@pytest.mark.parametrize(
    "function, name, message",
    [
        (wrong_sum, "collapse", "not yet: this is the sum over the planes"),
        (
            wrong_by_one,
            "world2image",
            "not yet: 0 % of the numbers are right; the largest difference is 1, and the right "
            "numbers go from",
        ),
        (without_mask, "lift", "not yet: a voxel that the photo does not show must take 0"),
        (without_return, "update_memory", "not yet: TypeError: it returns None in place of a"),
        (of_another_shape, "update_memory", "not yet: ValueError: the result has the shape (1, 16"),
        (with_a_mistake, "collapse", "not yet: IndexError: "),
    ],
)
def test_a_wrong_answer_is_told_how_it_is_wrong(function, name, message, monkeypatch, capsys):
    monkeypatch.setattr(function, "__name__", name)
    check(function)
    said = capsys.readouterr().out
    assert said.startswith(f"{name}: {message}")
    assert said.count("\n") == 1


def test_each_hint_is_for_one_mistake(capsys):
    for name, exercise in EXERCISES.items():
        for hint, mistaken in exercise.mistakes.items():
            mistaken.__name__ = name
            check(mistaken)
            assert capsys.readouterr().out == f"{name}: not yet: {hint}.\n"


def test_without_the_example_it_ends_with_one_line(tmp_path):
    with pytest.raises(SystemExit, match="lego.pth is not there: run this in a clone of the repo"):
        Lesson(tmp_path)


def first_cell(repository: str) -> str:
    source = next(cell.source for cell in read_notebook().cells if cell.cell_type == "code")
    return re.sub(r"(?m)^REPOSITORY = .*$", f"REPOSITORY = {repository!r}", source)


def run_cell(source: str, folder) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", source], cwd=folder, env=ENVIRONMENT, capture_output=True, text=True
    )


def test_where_there_is_no_clone_the_first_cell_makes_one(tmp_path):
    origin = tmp_path / "origin"
    hosted = tmp_path / "hosted"
    (origin / "docs" / "notebooks").mkdir(parents=True)
    hosted.mkdir()
    (origin / "deep_voxels.py").touch()
    needed = (HERE / "requirements.txt").read_text(encoding="utf-8")
    (origin / "docs" / "notebooks" / "requirements.txt").write_text(needed)
    git = ["git", "-C", str(origin), "-c", "user.name=a", "-c", "user.email=a@b"]
    for words in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "all"]):
        subprocess.run([*git, *words], check=True)
    source = first_cell(origin.as_uri()) + "\nprint(root)"
    ended = run_cell(source, hosted)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.splitlines()[-1] == str(hosted / "deepvoxels")
    assert run_cell(source, hosted).stdout == f"{hosted / 'deepvoxels'}\n"  # it is there now
    failed = run_cell(first_cell((tmp_path / "nothing").as_uri()), tmp_path)
    assert failed.returncode == 1
    assert "could not be cloned: run this in a clone of the repository" in failed.stderr
    assert "Traceback" not in failed.stderr


def test_a_hosted_notebook_gets_packages_that_the_project_knows():
    known = {r.name for name in ("", "-dev") for r in requirements(f"requirements{name}.txt")}
    assert {r.name for r in requirements("docs/notebooks/requirements.txt")} <= known


@pytest.mark.long
def test_the_bar_of_the_training_is_reached(tmp_path):
    notebook = read_notebook()
    for cell in notebook.cells:
        cell.source = cell.source.replace('root / "demo"', f"Path({str(tmp_path)!r})")
    run_notebook(notebook)
    (metrics,) = (tmp_path / "notebook" / "logs" / "test_traj").rglob("metrics.json")
    assert json.loads(metrics.read_text())["psnr"] > 20.5  # 21.40 where it was measured


def test_one_command_makes_a_notebook(tmp_path):
    words = re.search(r"python -m jupytext .*\.py", SOURCE.read_text(encoding="utf-8"))[0].split()
    out = tmp_path / "made.ipynb"
    subprocess.run([sys.executable, *words[1:], "--output", out], cwd=ROOT, check=True)
    assert [c.source for c in jupytext.read(out).cells] == [c.source for c in read_notebook().cells]
