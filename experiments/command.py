"""What the experiments' command lines share: plan the runs, run what is missing, collect what is
done."""

import argparse
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path

from experiments.execute import ROOT
from experiments.plan import (
    Plan,
    Run,
    SceneData,
    draw_up,
    read_plan,
    scenes_by_name,
    split_flags,
    write_plan,
    writing,
)
from experiments.results import Outcome, look
from experiments.slurm import add_slurm_arguments, check_slurm, run_on_slurm
from experiments.slurm_queue import tasks_if_known
from experiments.status import find_result, read_state, status_table
from experiments.worker import add_slot_arguments, make_slots, work
from machine.cli import Parser, number
from util import InputError

Scenes = dict[str, SceneData]  # by name
Groups = dict[
    Hashable, list[Run]
]  # runs that differ only in their seed, by what they have in common


def experiment_parser(prog: str, description: str | None) -> Parser:
    """A parser for the arguments of every experiment."""
    parser = Parser(
        prog, description, allow_abbrev=False
    )  # --step must be refused, not read as --steps
    parser.add_argument(
        "--scenes",
        type=Path,
        nargs="+",
        metavar="DIR",
        help="scenes: folders with train/ and test/, both with images, or in the original's layout "
        "ROOT/train/NAME, with ROOT/test/NAME",
    )
    parser.add_argument("--steps", type=number(int, 1), help="training steps of every run")
    parser.add_argument(
        "--seeds",
        type=number(int, 0),
        nargs="+",
        default=[0],
        help="train once with each seed (default: 0)",
    )
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder for results and runs; repeating the command runs what is missing, and several "
        "commands at once share the runs",
    )
    group = parser.add_argument_group("how to run").add_mutually_exclusive_group()
    add_slot_arguments(group)
    group.add_argument(
        "--slurm",
        action="store_true",
        help="run each as a task of a SLURM cluster and wait; "
        "if this command ends, the tasks go on",
    )
    group.add_argument(
        "--collect",
        action="store_true",
        help="run nothing; write the tables and pictures of what is done, with gaps",
    )
    group.add_argument(
        "--status",
        action="store_true",
        help="run nothing; list the runs that are done, running, waiting and failed (needs only "
        "--out)",
    )
    add_slurm_arguments(parser)
    return parser


def parse(parser: Parser, argv: Sequence[str] | None, reserved: set[str]) -> argparse.Namespace:
    """The arguments. Unknown ones are for run_deepvoxels.py: `flags` decide what is learned,
    `free_flags` do not. None may be in `reserved` (see `split_flags`)."""
    args, flags = parser.parse_known_args(argv)
    args.flags, args.free_flags = split_flags(parser.prog, flags, reserved)
    if args.status:
        return args
    for name in ("scenes", "steps"):
        if not getattr(args, name):
            raise InputError(f"--{name} is required")
    for name, values in [("scenes", args.scenes), ("seeds", args.seeds)]:
        if len(set(values)) < len(values):
            raise InputError(f"--{name}: a value is repeated")
    # SIGTERM, which batch systems send, and SIGHUP, of a closed terminal, end an experiment as
    # Ctrl-C does: the current run is saved. Under `nohup`, SIGHUP stays ignored. Windows has no
    # SIGHUP.
    for ending in ("SIGTERM", "SIGHUP"):
        if hasattr(signal, ending) and signal.getsignal(getattr(signal, ending)) != signal.SIG_IGN:
            signal.signal(getattr(signal, ending), signal.default_int_handler)
    return args


def run_experiment(
    name: str,
    args: argparse.Namespace,
    plan_runs: Callable[[argparse.Namespace, Scenes], Groups],
    collect: Callable[[argparse.Namespace, Scenes, Groups, Outcome], None],
) -> None:
    """Plans the runs, runs what is missing (not with --collect), and collects what is done.

    plan_runs: the runs that the arguments ask for, given the scenes. collect: writes tables and
    pictures.
    """
    if args.status:
        plan = read_plan(args.out)
        print(status_table(plan, list(plan.runs), tasks_if_known(args.out)))
        return
    scenes = scenes_by_name(args.scenes)
    groups = plan_runs(args, scenes)
    runs = list(dict.fromkeys(run for group in groups.values() for run in group))
    if args.collect:
        read_plan(args.out)
    plan = draw_up(args.out, name, args.steps, args.flags, scenes, runs)
    if not args.collect:
        slots = make_slots(args, args.free_flags)
        check_slurm(args)
        # The machine that submits tasks need not have their GPUs.
        flags = [
            *args.free_flags,
            *(["--device", "cpu", "--precision", "fp32"] if args.slurm else []),
        ]
        for scene, data in scenes.items():
            check_first(plan, [run for run in runs if run.scene == scene], data, flags)
        plan = write_plan(plan, runs, scenes)
        launch(plan, [run.name for run in runs], args, slots)
    with writing(
        args.out
    ):  # before the runs are looked at, so that the last to write has seen the most
        collect(args, scenes, groups, look(plan, runs))


def launch(
    plan: Plan, names: list[str], args: argparse.Namespace, slots: list[dict[str, str]]
) -> None:
    """Runs what is missing, and says what other processes run."""
    done = sum(find_result(plan.folder(name)) is not None for name in names)
    print(f"{done} of {len(names)} runs are done", flush=True)
    if args.slurm:
        run_on_slurm(plan, names, args)
    else:
        work(plan, names, args.free_flags, slots)
    for name in names:
        state = read_state(plan.folder(name))
        if state.kind == "running":
            print(f"{name}: runs elsewhere, {state.text}")


def check_first(plan: Plan, runs: Sequence[Run], data: SceneData, flags: Sequence[str]) -> None:
    """Refuses flags and scenes with which no run can start, before hours are spent on others: a dry
    run of a scene's first run that trains and of its first that does not, of those that are not
    done, unless it was begun before. `data`: the scene, which has no noise yet."""
    missing = [run.name for run in runs if find_result(plan.folder(run.name)) is None]
    first = {bool(plan.runs[name]["train"]): name for name in reversed(missing)}
    for name in first.values():
        if plan.folder(name).exists():
            continue
        run = plan.runs[name]
        words = [
            str(data.train) if word == run["views"] else word
            for word in shlex.split(run["train"] or run["test"])
        ]
        logs = plan.folder(name).absolute()
        check = [sys.executable, *words[1:], "--logging_root", str(logs), *flags, "--dry_run"]
        ended = subprocess.run(check, cwd=ROOT, capture_output=True, text=True, check=False)
        if ended.returncode == 2:
            raise InputError(ended.stderr.strip().splitlines()[-1].partition("error: ")[2])
