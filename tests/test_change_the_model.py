"""The page "Change the model": its four examples, applied and run as they are printed."""

import re
import shlex
import subprocess

import pytest
import torch

from tests.conftest import SMALL
from tests.helpers import (
    ROOT,
    copy_of_the_code,
    final_checkpoint,
    finish,
    in_turn,
    start_python,
    tensorboard_events,
)

PAGE = (ROOT / "docs" / "change_the_model.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^python (.*)$", PAGE.replace("\\\n", " "), re.MULTILINE)
EXAMPLES = {
    title: re.search(r"```diff\n(.*?)```", text, re.DOTALL)[1]
    for title, text in re.findall(r"^## (A.*?)\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
}


def test_the_page_has_four_examples_and_two_commands():
    assert list(EXAMPLES) == [
        "An average in place of the GRU",
        "A wider occlusion net",
        "Another loss",
        "A second GRU layer, beside the unchanged model",
    ]
    assert len(COMMANDS) == 2


@pytest.mark.parametrize("title", EXAMPLES)
def test_an_example_trains_and_is_tested(title, scene, trained, tmp_path):
    tree = copy_of_the_code(tmp_path / "tree")
    apply = ["git", "apply", "-"]
    subprocess.run(apply, input=EXAMPLES[title], cwd=tree, check=True, text=True, timeout=60)
    commands = []
    for command in COMMANDS:
        command = command.replace("SCENE", str(scene)).replace("LOGS", str(tmp_path))
        command = command.replace("--size small", shlex.join(SMALL)).replace("200", "4")
        model = ["--model", "two_layers"] if "second" in title else []
        commands.append([*shlex.split(command), *model])
    code, _, error = finish(start_python(*in_turn(*commands), cwd=tree))
    assert code == 0, error
    assert "left out" not in error
    assert "Warning" not in error
    state = final_checkpoint(tmp_path, 4)[1]["model"]
    (events,) = tmp_path.glob("runs/*/*/events*")
    logged = {value.tag for event in tensorboard_events(events) for value in event.summary.value}
    usual = trained[2]["model"]
    if "second" in title:
        assert state["integration_net.first_state"].abs().max() > 0
        assert state["deepvoxels"].abs().max() > 0
        assert state.keys() > {name for name in usual if not name.startswith("integration_net.")}
        assert "train/loop_gain" not in logged
    elif "average" in title:
        assert state.keys() == {name for name in usual if not name.startswith("integration_net.")}
        assert state["deepvoxels"].abs().max() > 0
        assert "train/volume_max" in logged
        assert "train/loop_gain" not in logged
    else:
        assert state.keys() == usual.keys()
        assert "train/loop_gain" in logged
    if "occlusion" in title:
        assert len(state["occlusion_net.occlusion_prep.0.net.1.weight"]) == 8
    assert all(torch.isfinite(tensor).all() for tensor in state.values())
    assert len(list(tmp_path.glob("test_traj/*/*/img_*.png"))) == 3
