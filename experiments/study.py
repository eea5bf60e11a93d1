"""What the studies share: their flags, and the way from runs to tables and pictures.

A study plans its runs, runs what is missing, and writes tables and pictures of what is done.
"""

import argparse
import shlex
import signal
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from data_util import list_poses, sampled_views
from evaluation.perceptual import NETWORKS, load_lpips
from experiments.execute import ROOT
from experiments.plan import (
    Plan,
    SceneData,
    StudyRun,
    draw_up,
    read_plan,
    scenes_by_name,
    split_flags,
    write_plan,
    writing,
)
from experiments.results import Outcome, latex_tables, look, measures_heading, summarize
from experiments.slurm import add_slurm_arguments, queue_states, run_on_slurm, slurm_options
from experiments.status import Result, find_result, read_state, status_table
from experiments.work import add_slot_arguments, make_slots, work
from machine.cli import Parser, number
from machine.signals import handling
from machine.version import git_commit, short_commit
from run_deepvoxels import DEFAULTS
from util import InputError, write_json, write_text

ORIGINAL_PASSES = DEFAULTS["max_epoch"]  # over the training views, the original's default
Scenes = dict[str, SceneData]  # by name
# Runs that differ only in their seed, by what they have in common
Groups = dict[Hashable, list[StudyRun]]


@dataclass(frozen=True)
class Collected:
    """What a study has to show: its arguments, scenes and runs, and what has become of these.
    measures: the names of those of `evaluation.perceptual` that it shows."""

    args: argparse.Namespace
    scenes: Scenes
    groups: Groups
    outcome: Outcome

    def summary(self, key: Hashable) -> dict:
        """The figures of a group (`results.summarize`)."""
        return summarize(self.groups[key], self.outcome)

    @property
    def measures(self) -> list[str]:
        measured = {name for result in self.outcome.results.values() for name in result.metrics}
        return [
            name for name in NETWORKS if name in measured or f"--{name}" in self.args.test_flags
        ]

    def first(self, key: Hashable) -> Result | None:
        """The result of a group's first seed, if it is done."""
        return self.outcome.results.get(self.groups[key][0])


class Study(ABC):
    """A study of many runs.

    name: in its plan, and of its command, `experiments.NAME`. table: the name of its .md and .json.
    doc: its help. heading: what its table opens with. reserved: flags of run_deepvoxels.py that it
    sets for each run, besides those that every study does.
    """

    name: str
    table: str
    doc: str | None
    heading = "Test views after {steps} steps, mean over the seeds {seeds}; flags: {flags}"
    reserved: frozenset[str] = frozenset()

    def add_flags(self, parser: Parser) -> None:  # noqa: B027  most studies have a few
        """Adds the study's own flags."""

    @abstractmethod
    def plan_runs(self, args: argparse.Namespace, scenes: Scenes) -> Groups:
        """The runs that the arguments ask for."""

    @abstractmethod
    def tables(self, collected: Collected) -> tuple[dict, str]:
        """The content of the .json, besides steps, seeds and flags, and the text of the .md."""

    @abstractmethod
    def draw(self, collected: Collected) -> None:
        """Writes pictures and plots."""

    def parse(self, argv: Sequence[str] | None) -> argparse.Namespace:
        """The arguments. Those unknown here are for run_deepvoxels.py: `flags` decide what is
        learned, `free_flags` do not, `test_flags` are for tests (`SplitFlags`). Raises `InputError`
        for wrong ones."""
        # Without abbreviations: --step must be refused, not read as --steps.
        parser = Parser(f"experiments.{self.name}", self.doc, allow_abbrev=False)
        add_arguments(parser)
        self.add_flags(parser)
        args, flags = parser.parse_known_args(argv)
        split = split_flags(parser.prog, flags, self.reserved)
        args.flags, args.free_flags, args.test_flags = split
        if args.status:
            return args
        for name in ("scenes", "steps"):
            if not getattr(args, name):
                raise InputError(f"--{name} is required")
        for name in ("scenes", "seeds"):
            values = getattr(args, name)
            if len(set(values)) < len(values):
                raise InputError(f"--{name}: a value is repeated")
        return args

    def main(self, argv: Sequence[str] | None = None) -> None:
        """The study's command. SIGTERM, which batch systems send, and SIGHUP, of a closed terminal,
        end it as Ctrl-C does: the current runs are saved."""
        args = self.parse(argv)
        with handling(signal.default_int_handler, "SIGTERM", "SIGHUP"):
            if args.status:
                plan = read_plan(args.out)
                print(status_table(plan, list(plan.runs), queue_states(args.out)))
            else:
                self._run(args)

    def _run(self, args: argparse.Namespace) -> None:
        """Runs what is missing (not with --collect), and writes what is done."""
        scenes = scenes_by_name(args.scenes)
        groups = {
            key: [replace(run, test_flags=tuple(args.test_flags)) for run in group]
            for key, group in self.plan_runs(args, scenes).items()
        }
        runs = list(dict.fromkeys(run for group in groups.values() for run in group))
        if args.collect:
            read_plan(args.out)  # there must be one
        plan = draw_up(Plan(args.out, self.name, args.steps, args.flags), scenes, runs)
        warn_of_other_code(look(plan, runs).results.values())
        if not args.collect:
            plan = launch(plan, runs, scenes, args)
        # Before the runs are looked at: of several commands, the last to write has seen the most.
        with writing(args.out):
            self._write(Collected(args, scenes, groups, look(plan, runs)))

    def _write(self, collected: Collected) -> None:
        args = collected.args
        content, text = self.tables(collected)
        heading = self.heading.format(
            steps=args.steps,
            seeds=", ".join(map(str, args.seeds)),
            flags=" ".join(args.flags) or "none",
            measures=measures_heading(collected.measures),
        )
        text = f"{heading}\n\n{text}\n{passes(args.steps, collected.scenes, args.flags)}\n"
        settings = {"steps": args.steps, "seeds": args.seeds, "flags": args.flags}
        write_json(args.out / f"{self.table}.json", settings | content)
        write_text(args.out / f"{self.table}.md", text)
        write_text(args.out / f"{self.table}.tex", latex_tables(text))
        print(text)
        self.draw(collected)


def warn_of_other_code(results: Iterable[Result]) -> None:
    """Warns if code other than this tested finished runs: they are not run again, though the model
    may have been changed."""
    now = git_commit()
    others = [result.commit for result in results if result.commit not in (None, now)]
    if now and others:
        commits = sorted({short_commit(commit) for commit in others})
        print(
            f"warning: runs done before with other code, which are kept: {len(others)} (commit "
            f"{', '.join(commits)}; now {short_commit(now)}). If the model was "
            "changed since, name another --out",
            file=sys.stderr,
        )


def passes(steps: int, scenes: Scenes, flags: Sequence[str]) -> str:
    """How often training goes through each scene's views; steps compare with the paper's only by
    that."""
    pattern = dict(zip(flags, flags[1:], strict=False)).get("--sampling_pattern", "all")
    counts = {
        scene: len(sampled_views(len(list_poses(data.train / "pose")), pattern))
        for scene, data in scenes.items()
    }
    listed = [f"{scene} {steps / views:,.1f} ({views} views)" for scene, views in counts.items()]
    return (
        f"Passes over the training views in {steps:,} steps; the original's default is "
        f"{ORIGINAL_PASSES}: {', '.join(listed)}"
    )


def add_arguments(parser: Parser) -> None:
    """The flags of every study."""
    parser.add_argument(
        "--scenes",
        type=Path,
        nargs="+",
        metavar="DIR",
        help="scenes: folders with train/ and test/, both with images, or in the original's layout "
        "ROOT/train/NAME, with ROOT/test/NAME",
    )
    parser.add_argument(
        "--steps",
        type=number(int, 1),
        help="training steps of every run; the original's default is "
        f"{ORIGINAL_PASSES} times the number of a scene's training views",
    )
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


def launch(plan: Plan, runs: Sequence[StudyRun], scenes: Scenes, args: argparse.Namespace) -> Plan:
    """Writes the plan, runs what is missing, and says what other processes run. Returns the
    plan."""
    for name in NETWORKS:
        if f"--{name}" in args.test_flags:
            load_lpips(name)  # an error, or a download, that no run should meet
    slots = make_slots(args.jobs, args.gpus, args.free_flags)
    slurm = slurm_options(args)
    flags = list(args.free_flags)
    if slurm:  # the machine that submits tasks need not have their GPUs
        flags += ["--device", "cpu", "--precision", "fp32"]
    for scene, data in scenes.items():
        check_first(plan, [run for run in runs if run.scene == scene], data, flags)
    plan = write_plan(plan, runs, scenes)
    names = [run.name for run in runs]
    done = sum(find_result(plan.folder(name)) is not None for name in names)
    print(f"{done} of {len(names)} runs are done", flush=True)
    if slurm:
        run_on_slurm(plan, names, args.free_flags, slurm)
    else:
        work(plan, names, args.free_flags, slots)
    for name in names:
        state = read_state(plan.folder(name))
        if state.kind == "running":
            print(f"{name}: runs elsewhere, {state.text}")
    return plan


def check_first(
    plan: Plan, runs: Sequence[StudyRun], data: SceneData, flags: Sequence[str]
) -> None:
    """Refuses flags and scenes with which no run can start, before hours are spent on others.

    It makes a dry run of a scene's first run that trains and of its first that does not, among
    those that were never begun. data: the scene, which has no noise yet.
    """
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
