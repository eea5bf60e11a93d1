"""What several tests of the studies share."""

from pathlib import Path

from experiments.plan import RECORD, split_flags
from tests.conftest import SMALL
from util import write_json


def write_record(out: Path, experiment: str, steps: int) -> None:
    """The record of an experiment with the flags `SMALL` that has planned nothing yet."""
    content = {"experiment": experiment, "steps": steps, "flags": split_flags("test", SMALL)[0]}
    write_json(out / RECORD, {**content, "scenes": {}, "runs": {}, "fingerprints": {}})
