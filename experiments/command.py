"""What the experiments' command lines share, and how a signal stops them."""
import argparse
import signal
from collections.abc import Sequence
from pathlib import Path

from cli import Parser, number
from util import InputError

# The flags of run_deepvoxels.py that an experiment sets for each run.
RESERVED = {"--train_test", "--data_root", "--train_root", "--logging_root", "--experiment_name", "--checkpoint",
            "--resume", "--model", "--max_steps", "--max_epoch", "--start_epoch", "--seed", "--dry_run"}


def experiment_parser(prog: str, description: str | None) -> Parser:
    """A parser for the arguments of every experiment."""
    parser = Parser(prog, description, allow_abbrev=False)  # --step must be refused, not read as --steps
    parser.add_argument("--scenes", type=Path, nargs="+", required=True, metavar="DIR",
                        help="scenes: folders with train/ and test/, both with images, or in the original's layout "
                             "ROOT/train/NAME, with ROOT/test/NAME")
    parser.add_argument("--steps", type=number(int, 1), required=True, help="training steps of every run")
    parser.add_argument("--seeds", type=number(int, 0), nargs="+", default=[0],
                        help="train once with each seed (default: 0)")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR",
                        help="folder for results and runs; repeating the command runs what is missing")
    return parser


def parse(parser: Parser, argv: Sequence[str] | None, reserved: set[str]) -> argparse.Namespace:
    """The arguments, with unknown ones in `flags`, for run_deepvoxels.py; none may be in `RESERVED` or `reserved`."""
    args, args.flags = parser.parse_known_args(argv)
    for flag in args.flags:
        if flag.partition("=")[0] in RESERVED | reserved:
            raise InputError(f"{flag}: cannot be given, the experiment sets it for each run")
    for name, values in [("scenes", args.scenes), ("seeds", args.seeds)]:
        if len(set(values)) < len(values):
            raise InputError(f"--{name}: a value is repeated")
    # SIGTERM, which batch systems send, and SIGHUP, of a closed terminal, end an experiment as Ctrl-C does: the current
    # run is saved. Under `nohup`, SIGHUP stays ignored. Windows has no SIGHUP.
    for ending in ("SIGTERM", "SIGHUP"):
        if hasattr(signal, ending) and signal.getsignal(getattr(signal, ending)) != signal.SIG_IGN:
            signal.signal(getattr(signal, ending), signal.default_int_handler)
    return args
