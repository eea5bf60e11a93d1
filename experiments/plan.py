"""An experiment's plan: its runs and their command lines, written down in the output folder.

`experiment.json` holds the experiment's name, what decides what its runs learn (steps and flags),
its scenes, with fingerprints of their files, and the command lines of each run, by the run's name.
So any process that sees the folder can carry out a run (`experiments.execute`). Repeating a command
with more scenes or seeds extends the plan.
"""

import hashlib
import json
import shlex
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import NamedTuple

from baselines import UNTRAINED
from data_util import list_images, list_poses
from dataio import find_split
from files.folders import Lock
from run_deepvoxels import FREE_ON_RESUME, OF_A_TEST, build_parser
from training.options import Learning
from util import InputError, read_json, read_text, write_json

RECORD = "experiment.json"
OUT = "{out}"  # stands for the output folder in command lines, so that it may be moved
MAX_RECORD_BYTES = 1 << 28
# The flags of run_deepvoxels.py that an experiment sets for each run.
RESERVED = {
    "train_test",
    "data_root",
    "train_root",
    "logging_root",
    "experiment_name",
    "checkpoint",
    "resume",
    "model",
    "max_steps",
    "max_epoch",
    "seed",
}
# Those that decide what is learned, also where a resumed run may change them.
LEARNED = {declared.name for declared in fields(Learning)}
# Those that its runs cannot take, and why.
UNFIT = {
    "cycle_spin": "render each view once",
    "dry_run": "must write results",
    "patience": "end after --steps, not before",
    "start_epoch": "begin with the first step",
}


class SceneData(NamedTuple):
    """The absolute folders of a scene's training and test views."""

    train: Path
    test: Path

    @property
    def root(self) -> Path:
        """SCENE of SCENE/train; in the original's layout, the training folder ROOT/train/NAME."""
        return self.train.parent if self.train.name == "train" else self.train


@dataclass(frozen=True)
class StudyRun:
    """One model, trained on one scene from one seed, and tested.

    scene: its name. data: its folders. variant: what the experiment varies, the model's name or a
    value. flags: those of run_deepvoxels.py for this run, besides the experiment's. test_flags:
    more of them, for its test alone. prepare: the arguments of `python` that make `data.train`,
    unless it exists.
    """

    scene: str
    data: SceneData
    variant: str
    seed: int
    model: str = "deepvoxels"
    flags: tuple[str, ...] = ()
    test_flags: tuple[str, ...] = ()
    prepare: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return f"{self.scene}-{self.variant}-seed{self.seed}"


@dataclass(frozen=True)
class Plan:
    """The content of `out/experiment.json`.

    flags: those of run_deepvoxels.py that decide what is learned, for all runs. scenes: their
    folders by name. runs: by name, the folder of the training views (`views`) and the command lines
    `prepare` (makes the views unless they exist; may be empty), `train` (empty for a model without
    training) and `test`. Whoever carries out a run puts the output folder for `OUT`, and adds
    --logging_root, --checkpoint and flags that do not change what is learned. fingerprints: of the
    scenes' training and test views, by the scene's name.
    """

    out: Path
    experiment: str
    steps: int
    flags: list[str]
    scenes: dict[str, str] = field(default_factory=dict)
    runs: dict[str, dict] = field(default_factory=dict)
    fingerprints: dict[str, str] = field(default_factory=dict)

    def folder(self, name: str) -> Path:
        """The logging root of a run."""
        return self.out / "runs" / name

    def add(self, runs: Sequence[StudyRun]) -> "Plan":
        """The plan with these runs too."""
        return replace(self, runs=self.runs | {run.name: self._command_lines(run) for run in runs})

    def _command_lines(self, run: StudyRun) -> dict:
        def line(train_test: str, *more) -> str:
            words = ["python", "run_deepvoxels.py", "--train_test", train_test]
            words += ["--model", run.model, *more, "--seed", run.seed, *self.flags, *run.flags]
            return shlex.join(map(str, words))

        # As many epochs as steps, so that --max_steps ends training.
        length = ["--max_steps", self.steps, "--max_epoch", self.steps]
        train = line("train", "--data_root", run.data.train, *length)
        test_roots = ["--data_root", run.data.test, "--train_root", run.data.train]
        return {
            "views": str(run.data.train),
            "prepare": shlex.join(["python", *run.prepare]) if run.prepare else "",
            "train": "" if run.model in UNTRAINED else f"{train} --resume auto",
            "test": line("test", *run.test_flags, *test_roots),
        }


class SplitFlags(NamedTuple):
    """Flags of run_deepvoxels.py, each kind sorted: those that decide what is `learned`, those that
    may differ between two calls (`free`), and those that a `test` takes, but no training."""

    learned: list[str]
    free: list[str]
    test: list[str]


def split_flags(prog: str, flags: Sequence[str], reserved: Collection[str] = ()) -> SplitFlags:
    """Ends the process with one line, as the command `prog`, if a flag is wrong. Raises
    `InputError` for one whose name is in `RESERVED`, `reserved` or `UNFIT`."""
    parser = build_parser()
    parser.prog = prog
    given = vars(parser.parse_args(list(flags)))
    split = SplitFlags([], [], [])
    for name in sorted(given):
        if name in UNFIT:
            raise InputError(f"--{name}: cannot be given, since an experiment's runs {UNFIT[name]}")
        if name in RESERVED or name in reserved:
            raise InputError(f"--{name}: cannot be given, the experiment sets it for each run")
        words = [f"--{name}"] if given[name] is True else [f"--{name}", f"{given[name]}"]
        learned = name in LEARNED or name not in FREE_ON_RESUME
        kind = split.learned if learned else split.free
        (split.test if name in OF_A_TEST else kind).extend(words)
    return split


def scenes_by_name(scenes: list[Path]) -> dict[str, SceneData]:
    """The scenes' folders by name. Raises `InputError` for a scene that has no images to train on
    or measure."""
    by_name = {}
    for scene in scenes:
        data = find_data(scene)
        name = data.root.name
        if name in by_name:
            raise InputError(f"{scene}: another scene is named {name} too; rename one")
        by_name[name] = data
    return by_name


def find_data(scene: Path) -> SceneData:
    """The folders of a scene, SCENE or in the original's layout ROOT/train/NAME. Raises
    `InputError` unless both hold images."""
    if not scene.is_dir():
        raise InputError(f"{scene}: no such folder")
    is_split = (scene / "pose").is_dir()
    folders = []
    for split, use in [("train", "to train on"), ("test", "to measure with")]:
        folder = find_split(scene, split) if is_split else scene.resolve() / split
        if folder is None:
            raise InputError(f"{scene}: no {split} folder belongs to it")
        if not (folder / "rgb").is_dir() or not list_images(folder / "rgb"):
            raise InputError(f"{scene}: has no images {use} ({split}/rgb)")
        folders.append(folder)
    return SceneData(*folders)


def read_plan(out: Path) -> Plan:
    """The plan in an output folder. Raises `InputError` if there is none."""
    record = out / RECORD
    if not record.is_file():
        raise InputError(f"--out {out}: holds no experiment")
    content = read_json(record, MAX_RECORD_BYTES)
    try:
        return Plan(
            out,
            content["experiment"],
            int(content["steps"]),
            list(content["flags"]),
            dict(content["scenes"]),
            dict(content["runs"]),
            dict(content["fingerprints"]),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{record}: is not an experiment's record ({error})") from None


def draw_up(wanted: Plan, scenes: dict[str, SceneData], runs: Sequence[StudyRun]) -> Plan:
    """The plan in the folder `wanted.out`, if there is one, else `wanted`, with these scenes and
    runs too. Writes nothing.

    Raises `InputError` if the folder holds anything else: another experiment, other steps, flags or
    scenes, or results of a scene that has changed since.
    """
    roots = {name: str(data.root) for name, data in scenes.items()}
    fingerprints = {name: views_fingerprint(*data) for name, data in scenes.items()}
    out = wanted.out
    if is_unused(out):
        return replace(wanted, scenes=roots, fingerprints=fingerprints).add(runs)
    if not (out / RECORD).is_file():
        raise InputError(f"--out {out}: exists and holds no experiment; name another folder")
    plan = read_plan(out)
    for setting in ("experiment", "steps", "flags"):
        earlier = getattr(plan, setting)
        now = getattr(wanted, setting)
        if earlier != now:
            raise InputError(
                f"--out {out}: holds an experiment with {setting} {shown_setting(earlier)}, not "
                f"{shown_setting(now)}; name another folder"
            )
    for scene, root in roots.items():
        if plan.scenes.setdefault(scene, root) != root:
            raise InputError(
                f"{out}: has results of another scene named {scene}, {plan.scenes[scene]}"
            )
        if plan.fingerprints.setdefault(scene, fingerprints[scene]) != fingerprints[scene]:
            raise InputError(
                f"{root}: has changed since {out} was begun; name another folder for --out"
            )
    return plan.add(runs)


def is_unused(out: Path) -> bool:
    """Whether nothing was written to an output folder. Hidden files, such as the lock, may be left
    of a command that ended before it wrote its record."""
    if not out.exists():
        return True
    return out.is_dir() and all(path.name.startswith(".") for path in out.iterdir())


def shown_setting(setting: str | int | list[str]) -> str:
    """A setting of a plan, for messages."""
    if isinstance(setting, list):
        return " ".join(setting) or "none"
    return str(setting)


def views_fingerprint(*folders: Path) -> str:
    """Identifies scene folders, so that results are reused only for the same views, wherever the
    folders are.

    A hash of poses and intrinsics by content, and of images and true depth by name and size, so
    that none is read. Raises `InputError` for what cannot be read.
    """
    content = []
    for folder in folders:
        texts = [folder / "intrinsics.txt", *list_poses(folder / "pose")]
        others = [*list_images(folder / "rgb"), *sorted((folder / "depth").glob("*.npz"))]
        content.append(
            [[path.relative_to(folder).as_posix(), read_text(path)] for path in texts]
            + [[path.relative_to(folder).as_posix(), path.stat().st_size] for path in others]
        )
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def write_plan(plan: Plan, runs: Sequence[StudyRun], scenes: dict[str, SceneData]) -> Plan:
    """Adds the runs to what is in the folder, which another process may just have extended, and
    returns the plan."""
    try:
        plan.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--out {plan.out}: cannot be created ({error.strerror})") from None
    with writing(plan.out):
        plan = draw_up(plan, scenes, runs)
        content = asdict(plan)
        del content["out"]
        write_json(plan.out / RECORD, content)
    return plan


def writing(out: Path) -> Lock:
    """Held while a process writes the record or the results; others wait for it."""
    return Lock(out / ".lock", f"{out}: another process is writing here", wait=-1)
