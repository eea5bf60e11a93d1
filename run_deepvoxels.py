"""DeepVoxels from the command line: learn a scene from posed images, or render a camera path
through it.

    python run_deepvoxels.py --train_test train --data_root SCENE/train --logging_root LOGS
    python run_deepvoxels.py --train_test test --data_root SCENE/test --logging_root LOGS
        --checkpoint CHECKPOINT
"""

import argparse
import gc
import sys
from collections.abc import Iterable
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import machine.importing  # noqa: F401  first, to report what goes wrong
from baselines import UNTRAINED, recorded_model
from checkpoints import load_checkpoint
from dataio import SceneOptions
from deep_voxels import SIZES, Architecture, check_architecture
from evaluation.command import EvaluationOptions, Testing, test
from files.runs import find_checkpoint, latest_checkpoint
from machine.cli import Parser, exit_code
from machine.options import Run, add_flag, default_of, inherited, options_of
from machine.ranks import Ranks, joined
from machine.runtime import (
    Machine,
    choose_device,
    fastest_precision,
    flushed_denormals,
    keep_freed_memory,
    require_compiler,
)
from machine.version import ShowVersion
from training.loop import train
from training.options import Learning, Records, TrainingOptions
from training.recipes import RECIPES
from util import InputError

PROG = "run_deepvoxels.py"

# The dataclasses that declare the options, and the heading of each in `--help`.
PARTS = {
    Run: "what to run",
    Testing: "what to run",
    Learning: "training",
    Architecture: "architecture",
    SceneOptions: "scene",
    Machine: "machine",
    Records: "records",
}
OPTIONS = {declared.name: declared for part in PARTS for declared in fields(part)}
DEFAULTS = {name: default_of(declared) for name, declared in OPTIONS.items()}
ARCHITECTURE = {declared.name for declared in fields(Architecture)} | {"model"}
OF_A_TEST = [declared.name for declared in fields(Testing) if declared.name != "train_root"]
FREE_ON_RESUME = inherited(OPTIONS.values(), "resume", "changeable", "not inherited")

Options = TrainingOptions | EvaluationOptions


def build_parser() -> Parser:
    """The parser of all options and `--size`. It returns only the flags that were given: a size, a
    recipe or a checkpoint may set the others."""
    parser = Parser(PROG, __doc__, allow_abbrev=False)
    parser.add_argument(
        "--version", action=ShowVersion, help="print the version and the commit, and stop"
    )
    groups = {}
    for part, title in PARTS.items():
        for declared in fields(part):
            heading = declared.metadata["group"] or title
            if heading not in groups:
                groups[heading] = parser.add_argument_group(heading)
                if part is Architecture:
                    add_size_flag(groups[heading])
            add_flag(groups[heading], declared)
    return parser


def add_size_flag(group: argparse._ArgumentGroup) -> None:
    """Adds `--size`, which stands for several options and is none itself."""
    sizes = {name: list(size_flags(name).values()) for name in SIZES}
    group.add_argument(
        "--size",
        default=argparse.SUPPRESS,
        help=f"preset for {', '.join(size_flags('paper'))}; explicit flags override it. "
        + "; ".join(f"{name}: {' '.join(map(str, values))}" for name, values in sizes.items())
        + " (default: paper)",
        choices=list(SIZES),
    )


def size_flags(size: str) -> dict[str, int]:
    """The flags that a `--size` sets: all numbers of the architecture."""
    flags = asdict(SIZES[size])
    del flags["no_occlusion_net"]
    return flags


def resolve_options(arguments: list[str]) -> tuple[Options, dict | None]:
    """The options of a run, and the loaded checkpoint that it starts from, if any.

    A flag's value is the given one, else that of the given `--size`, else what the run inherits
    from its checkpoint, else the recipe's, else the default. What a `--size` sets is recorded,
    never its name. Raises `InputError` for options that contradict each other.
    """
    given = vars(build_parser().parse_args(arguments))
    check_combination(given)
    find_given_checkpoint(given)
    if "size" in given:
        given = {**size_flags(given["size"]), **given}
    if given.get("resume") and given.get("precision") == "auto":
        del given["precision"]  # a resumed run keeps what was chosen for it
    checkpoint = None
    recorded = {}
    source = given.get("resume") or given.get("checkpoint")
    if source:
        checkpoint = load_checkpoint(Path(source))
        recorded = inherit(checkpoint, given, source)
    recipe = {}
    if not given.get("resume"):  # a resumed run keeps its own
        recipe = RECIPES[given.get("recipe", DEFAULTS["recipe"])]
    values = {**DEFAULTS, **recipe, **recorded, **given}
    values.pop("size", None)
    check_values(values)
    values["device"] = choose_device(values["device"])
    if values["precision"] == "auto":
        values["precision"] = fastest_precision(values["device"])
    if values["compile"]:
        require_compiler(values["device"])
    return build_options(values), checkpoint


def build_options(values: dict[str, Any]) -> Options:
    """The typed options, from the values of all flags by name."""
    shared = {
        "run": options_of(Run, values),
        "architecture": options_of(Architecture, values),
        "scene": options_of(SceneOptions, values),
        "machine": options_of(Machine, values),
        "flags": values,
    }
    if values["train_test"] == "test":
        testing = options_of(Testing, values)
        return EvaluationOptions(testing=testing, model=values["model"], **shared)
    return TrainingOptions(
        learning=options_of(Learning, values), records=options_of(Records, values), **shared
    )


def inherit(checkpoint: dict, given: dict[str, Any], source: str) -> dict[str, Any]:
    """What a run takes over from its checkpoint: the model and its architecture and, to resume or
    to test, what the options' declarations say. Raises `InputError` if a given flag contradicts it.
    """
    model = recorded_model(checkpoint, Path(source))
    refuse_changes(given, model, source)
    recorded = {}
    if given.get("resume"):
        recorded = recorded_options(checkpoint, Path(source))
        fixed = given.keys() - FREE_ON_RESUME - {"size"}
        trained_with = {name: recorded.get(name, DEFAULTS[name]) for name in fixed}
        refuse_changes(given, trained_with, source)
    elif given["train_test"] == "test":
        names = inherited(OPTIONS.values(), "in_test", "changeable")
        recorded = parse_recorded(checkpoint, names, source)
    return recorded | model


def recorded_options(checkpoint: dict, path: Path) -> dict[str, Any]:
    """The options of a checkpoint's training that a resumed run takes over, checked like typed
    ones.

    They include `--max_steps` if the learning rates decay, since these depend on it.
    """
    options = checkpoint.get("options")
    if not isinstance(options, dict):
        raise InputError(
            f"--resume {path}: records no options to continue with; --checkpoint starts from its "
            "weights"
        )
    names = inherited(OPTIONS.values(), "resume", "fixed", "changeable")
    if options.get("lr_decay"):
        names.add("max_steps")
    return parse_recorded(checkpoint, names, f"--resume {path}")


def parse_recorded(checkpoint: dict, names: Iterable[str], source: str) -> dict[str, Any]:
    """Those of the named flags that a checkpoint records, checked like typed ones. The original's
    records none. Raises `InputError`, with the checkpoint's name `source`, if one is wrong."""
    options = checkpoint.get("options")
    arguments = []
    for name, value in options.items() if isinstance(options, dict) else []:
        if name in names and value is not None and value is not False:
            arguments += [f"--{name}"] if value is True else [f"--{name}={value}"]
    parser = build_parser()
    parser.exit_on_error = False
    try:
        return vars(parser.parse_args(arguments))
    except argparse.ArgumentError as error:
        raise InputError(
            f"{source}: records an option that this version does not take ({error})"
        ) from None


def check_combination(given: dict[str, Any]) -> None:
    """Raises `InputError` unless the given flags say what to do, and with which checkpoint."""
    for name in ("train_test", "logging_root"):
        if not given.get(name):
            raise InputError(f"--{name} is required")
    if given.get("resume") and given["resume"] != "auto" and given.get("checkpoint"):
        raise InputError(
            "--resume and --checkpoint exclude each other: continue a run, or start from its "
            "weights"
        )
    if (
        given["train_test"] == "test"
        and not given.get("checkpoint")
        and given.get("model") not in UNTRAINED
    ):
        raise InputError("--checkpoint is required to test")
    if given.get("resume") not in (None, "auto") and "start_epoch" in given:
        raise InputError("--start_epoch is for a new run; --resume goes on where the run stopped")
    for name in OF_A_TEST:
        if given["train_test"] == "train" and name in given:
            raise InputError(f"--{name} is for a test; training does not take it")
    if given["train_test"] == "test" and given.get("resume"):
        raise InputError("--resume continues training; a test takes --checkpoint")


def find_given_checkpoint(given: dict[str, Any]) -> None:
    """Puts the checkpoint that `latest`, `best` or `auto` stands for in its place. `auto` is
    dropped if there is none; else it beats a given --checkpoint, from which the run began. Raises
    `InputError` if there is none for `latest` or `best`."""
    root = Path(given["logging_root"])
    resume = given.get("resume")
    if resume in ("latest", "auto"):
        name = given.get("experiment_name", "")
        newest = latest_checkpoint(root, name)
        if newest is None and resume == "latest":
            raise InputError(
                f"--resume latest: there is no checkpoint under {root}/logs"
                + (f" of a run begun with --experiment_name {name}" if name else "")
            )
        del given["resume"]
        if newest is not None:
            given.pop("checkpoint", None)
            given["resume"] = str(newest)
    if given.get("checkpoint"):
        given["checkpoint"] = str(find_checkpoint(given["checkpoint"], root))


def refuse_changes(given: dict[str, Any], trained_with: dict[str, Any], source: str) -> None:
    """Raises `InputError` if a given flag, or one that `--size` sets, differs from that of a
    checkpoint's training."""
    by_size = size_flags(given["size"]) if "size" in given else {}
    for flag, value in trained_with.items():
        if given.get(flag, value) != value:
            setter = f"--size {given['size']}: " if by_size.get(flag) == given[flag] else ""
            way = ""
            if given.get("resume") and flag not in ARCHITECTURE:
                way = "; to change it, start from its weights: --checkpoint instead of --resume"
            raise InputError(
                f"{setter}--{flag} {given[flag]} contradicts {source}, "
                f"which was trained with --{flag} {value}{way}"
            )


def check_values(values: dict[str, Any]) -> None:
    """Raises `InputError` for values from which no model can be built."""
    if not values["data_root"]:
        raise InputError("--data_root is required")
    if values["train_test"] == "train" and values["model"] in UNTRAINED:
        raise InputError(
            f"--model {values['model']}: has nothing to train; test it with --train_test test "
            "--train_root DIR"
        )
    if values["train_test"] == "train" and values["patience"] and not values["validate_every"]:
        raise InputError(
            f"--patience {values['patience']}: needs --validate_every, whose measurements it counts"
        )
    check_architecture(options_of(Architecture, values))


def on_rank(options: Options, ranks: Ranks) -> Options:
    """The options with the device of this rank. Raises `InputError` if they do not suit the number
    of ranks."""
    if isinstance(options, TrainingOptions) and options.learning.num_trgt % ranks.count:
        raise InputError(
            f"--num_trgt {options.learning.num_trgt}: must be a multiple of the {ranks.count} "
            "processes that torchrun started, which share the target views"
        )
    device = ranks.own_device(options.machine.device)
    machine = replace(options.machine, device=device)
    return replace(options, machine=machine, flags={**options.flags, "device": device})


def main(arguments: list[str] | None = None) -> int:
    """Runs the command and returns its exit code (`cli.exit_code`; in training, see
    `training.loop.train`)."""

    def command() -> int:
        words = sys.argv[1:] if arguments is None else arguments
        with flushed_denormals(), joined() as ranks:
            options, checkpoint = ranks.from_first(lambda: resolve_options(words))
            with ranks.fail_together():
                options = on_rank(options, ranks)
            flags = options.flags.items()
            print(" ".join(f"{name}={value}" for name, value in flags if value is not None))
            keep_freed_memory()
            if isinstance(options, TrainingOptions):
                return train(options, checkpoint, ranks)
            return test(options, checkpoint, ranks)

    return exit_code(PROG, command)


if __name__ == "__main__":
    gc.freeze()  # collections, at exit too, need not walk through what the imports made: 0.3 s
    sys.exit(main())
