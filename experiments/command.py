"""What the commands of this package share: their arguments, and how they are stopped."""
import argparse
import signal
from collections.abc import Sequence
from pathlib import Path

from cli import Parser, number
from util import InputError

# What each run is given by the experiment.
RESERVED = {"--train_test", "--data_root", "--train_root", "--logging_root", "--experiment_name", "--checkpoint",
            "--resume", "--model", "--max_steps", "--max_epoch", "--start_epoch", "--seed", "--dry_run"}


def experiment_parser(prog: str, description: str | None) -> Parser:
    """A parser of the arguments that every experiment has."""
    parser = Parser(prog, description)
    parser.allow_abbrev = False  # else --step would be --steps, where it should be refused
    parser.add_argument("--scenes", type=Path, nargs="+", required=True, metavar="DIR",
                        help="scenes: folders with train/ and test/, both with images")
    parser.add_argument("--steps", type=number(int, 1), required=True, help="training steps of every run")
    parser.add_argument("--seeds", type=number(int, 0), nargs="+", default=[0],
                        help="train once with each (default: 0)")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR",
                        help="results and runs; the same command again runs what is missing")
    return parser


def parse(parser: Parser, argv: Sequence[str] | None, reserved: set[str]) -> argparse.Namespace:
    """The arguments, and as `flags` those for run_deepvoxels.py, none of which may be in `RESERVED` or `reserved`."""
    args, args.flags = parser.parse_known_args(argv)
    for flag in args.flags:
        if flag.partition("=")[0] in RESERVED | reserved:
            raise InputError(f"{flag}: is not to be given, the experiment sets it for each run")
    for name, values in [("scenes", args.scenes), ("seeds", args.seeds)]:
        if len(set(values)) < len(values):
            raise InputError(f"--{name} names one twice")
    # A batch system's SIGTERM ends an experiment as Ctrl-C does: the run at hand is saved.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    return args
