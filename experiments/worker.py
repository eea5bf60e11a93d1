"""Takes the runs of a plan one by one until none is left, several at once on several GPUs or shares
of the cores.

    python -m experiments.worker --out results/table1 --gpus 0-7
    python -m experiments.worker --out results/table1 --runs cube-worrall-seed0 --device cuda:1

The runs are those that an experiment's command has planned. Any number of workers, on machines that
share the folder, can work on one experiment. Ctrl-C saves and stops the runs; the next worker
resumes them. Flags that it does not know go to run_deepvoxels.py, if they neither change what is
learned nor are the experiment's to set.
"""

from collections.abc import Sequence
from pathlib import Path

from experiments.plan import read_plan, split_flags
from experiments.status import read_state
from experiments.work import add_slot_arguments, make_slots, work
from machine.cli import Parser, run
from run_deepvoxels import OF_A_TEST
from util import InputError

PROG = "experiments.worker"


def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser(PROG, __doc__, allow_abbrev=False)
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="folder of the experiment"
    )
    parser.add_argument("--runs", nargs="+", metavar="NAME", help="names of runs (default: all)")
    add_slot_arguments(parser.add_mutually_exclusive_group())
    args, flags = parser.parse_known_args(argv)
    plan = read_plan(args.out)
    names = args.runs or list(plan.runs)
    for name in names:
        if name not in plan.runs:
            raise InputError(f"--runs {name}: {args.out} plans no such run")
    split = split_flags(PROG, flags, reserved=OF_A_TEST)  # these the plan holds
    if split.learned:
        raise InputError(
            f"{split.learned[0]}: cannot be given to a worker, since it decides what is learned"
        )
    work(plan, names, split.free, make_slots(args.jobs, args.gpus, flags))
    return int(any(read_state(plan.folder(name)).kind == "failed" for name in names))


if __name__ == "__main__":
    run(PROG, main)
