"""What several tests of the studies share."""

from pathlib import Path

from experiments.execute import command_lines
from experiments.plan import RECORD, Plan, split_flags
from experiments.status import find_result
from scenes import noise
from tests.conftest import SMALL
from tests.helpers import run
from util import write_json


def write_record(out: Path, experiment: str, steps: int) -> None:
    """The record of an experiment with the flags `SMALL` that has planned nothing yet."""
    content = {"experiment": experiment, "steps": steps, "flags": split_flags("test", SMALL)[0]}
    write_json(out / RECORD, {**content, "scenes": {}, "runs": {}, "fingerprints": {}})


def work_here(plan: Plan, names: list[str], flags: list[str], _) -> None:
    """`experiments.work.work` in this thread and process: starting others takes longer than small
    runs do."""
    for name in names:
        if find_result(plan.folder(name)):
            continue
        for words in command_lines(plan, name, flags):
            if words[:2] == ["-m", "scenes.noise"]:
                noise.main(words[2:])
            else:
                assert run(*words[1:]) == 0
