"""How an option is declared: as a field of a frozen dataclass, in the file that uses it.

    @dataclass(frozen=True)
    class Machine:
        precision: str = option("fp32", "arithmetic of the convolutions", choices=PRECISIONS)

The field says all that is known of the flag `--precision`: its default, its help, and what a
resumed run and a test do with the value that a checkpoint records. run_deepvoxels.py makes the
parser and these rules of it. `Run` holds the options of the run itself.
"""

import argparse
from collections.abc import Iterable
from dataclasses import MISSING, Field, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from util import run_name

Inherits = Literal["fixed", "changeable", "not inherited"]
PATH_TYPES = (Path, Path | None)


def option(
    default: Any,
    help: str,
    resume: Inherits = "fixed",
    in_test: Inherits = "not inherited",
    **flag,
) -> Any:
    """A field of a dataclass of options.

    default: `MISSING` where the flag must be given. resume: what a resumed run does with the value
    that its checkpoint records. "fixed": takes it, and refuses another one. "changeable": takes it
    unless another one is given. "not inherited": ignores it. in_test: the same of a test. flag:
    more arguments for argparse's `add_argument`, and `group`, the heading in `--help` if it is not
    that of the dataclass.
    """
    group = flag.pop("group", None)
    rules = {"resume": resume, "in_test": in_test}
    return field(
        default=default, metadata={"help": help, "flag": flag, "group": group, "rules": rules}
    )


def default_of(declared: Field) -> Any:
    """The default of a flag; None where it must be given."""
    return None if declared.default is MISSING else declared.default


def add_flag(group: argparse._ArgumentGroup, declared: Field) -> None:
    """Adds an option's flag to a parser, which then returns it only if it was given."""
    flag = dict(declared.metadata["flag"])
    default = default_of(declared)
    if declared.type is bool:
        flag["action"] = "store_true"
    elif declared.type is int:
        flag.setdefault("type", int)
    elif declared.type in PATH_TYPES:
        flag.setdefault("type", path_name)
    shown = f" (default: {default})"
    if default is None or default is False or default == "":
        shown = ""
    group.add_argument(
        f"--{declared.name}",
        default=argparse.SUPPRESS,
        help=declared.metadata["help"] + shown,
        **flag,
    )


def path_name(text: str) -> str:
    """An argparse type: the name of a file or folder. Refuses an empty name, which an unset shell
    variable gives: it would count as no flag."""
    if not text:
        raise argparse.ArgumentTypeError("names no file or folder")
    return text


def options_of(part: type, values: dict[str, Any]) -> Any:
    """An object of a dataclass of options, from the values of all flags by name."""
    chosen = {}
    for declared in fields(part):
        value = values[declared.name]
        if declared.type in PATH_TYPES:
            value = Path(value) if value else None
        chosen[declared.name] = value
    return part(**chosen)


def inherited(declared: Iterable[Field], case: str, *rules: Inherits) -> set[str]:
    """The names of the options with one of these rules in a case, `resume` or `in_test`."""
    return {each.name for each in declared if each.metadata["rules"][case] in rules}


@dataclass(frozen=True)
class Run:
    """What is run: on which views, where the results go, and the checkpoint that it starts from."""

    train_test: str = option(
        MISSING,
        "train, or render the poses of a test folder",
        resume="not inherited",
        choices=["train", "test"],
    )
    data_root: Path = option(
        MISSING,
        "scene folder: pose/, intrinsics.txt and, to train or to measure, rgb/",
        resume="changeable",
        metavar="DIR",
    )
    logging_root: Path = option(
        MISSING,
        "folder for results: logs/ and runs/ (training), test_traj/ (testing)",
        resume="not inherited",
        metavar="DIR",
    )
    experiment_name: str = option(
        "",
        "name of the run's folder, after the time (default: that of the scene or checkpoint)",
        resume="not inherited",
        metavar="NAME",
        type=run_name,
    )
    checkpoint: Path | None = option(
        None,
        "weights to test, or to start training from, the original's too; 'latest': the newest "
        "checkpoint under logging_root; 'best': that of the newest run there with the best PSNR on "
        "held-out views (--validate_every)",
        resume="not inherited",
        metavar="FILE|latest|best",
    )
    resume: Path | None = option(
        None,
        "checkpoint of a run to continue exactly. 'latest': the newest under logging_root, or with "
        "--experiment_name the newest of the runs begun with that name. 'auto': the same, or a new "
        "run if there is none, so that one command line starts a run and, repeated, continues it; "
        "once it is done, nothing happens. Flags that contradict the run are refused",
        resume="not inherited",
        metavar="FILE|latest|auto",
    )
    dry_run: bool = option(
        False, "check all input, print the options and stop", resume="not inherited"
    )


# Options of a run that name folders and files of the machine that it ran on
RUN_PATHS = {declared.name for declared in fields(Run) if declared.type in PATH_TYPES}
