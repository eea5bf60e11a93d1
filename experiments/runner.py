"""The runs of an experiment: run_deepvoxels.py trains and tests each once, in a folder of its own.

A run is done when its test has written `metrics.json`. Repeating a command skips runs that are done, resumes one that
was stopped and tries failed ones again; a failed run is a gap in the results.
"""
import json
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from baselines import UNTRAINED
from data_util import list_images
from dataio import find_split
from training.run_folder import RunLock
from util import InputError, read_text, write_json

ROOT = Path(__file__).parent.parent
RECORD = "experiment.json"


class SceneData(NamedTuple):
    """The absolute folders of a scene's training and test views."""

    train: Path
    test: Path

    @property
    def root(self) -> Path:
        """SCENE of SCENE/train; in the original's layout, the training folder ROOT/train/NAME."""
        return self.train.parent if self.train.name == "train" else self.train


@dataclass(frozen=True)
class Run:
    """One model, trained on one scene from one seed, and tested.

    scene: its name. data: its folders. variant: what the experiment varies, the model's name or a value.
    flags: those of run_deepvoxels.py for this run, besides the experiment's.
    """

    scene: str
    data: SceneData
    variant: str
    seed: int
    model: str = "deepvoxels"
    flags: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return f"{self.scene}-{self.variant}-seed{self.seed}"


@dataclass(frozen=True)
class Result:
    """A finished run's metrics, the folder with its frames, and the seconds that all its commands took; None if one of
    them was killed together with the experiment."""

    folder: Path
    metrics: dict
    seconds: float | None


@contextmanager
def open_experiment(name: str, out: Path, scenes: list[Path], steps: int, flags: list[str]) -> Iterator["Experiment"]:
    """An experiment in a new folder, or in that of an earlier command with equal settings, locked while it is open."""
    by_name, settings = scenes_by_name(scenes), {"experiment": name, "steps": steps, "flags": flags}
    # Hidden files, such as the lock, may be left of a command that ended before it wrote its record.
    if out.exists() and not (out / RECORD).is_file() and (
            not out.is_dir() or any(not path.name.startswith(".") for path in out.iterdir())):
        raise InputError(f"--out {out}: exists and holds no experiment; name another folder")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--out {out}: cannot be created ({error.strerror})") from None
    with RunLock(out):
        known_scenes = earlier_scenes(out, settings)
        for scene, data in by_name.items():
            if known_scenes.setdefault(scene, str(data.root)) != str(data.root):
                raise InputError(f"{out}: has results of another scene named {scene}, {known_scenes[scene]}")
        write_json(out / RECORD, {**settings, "scenes": known_scenes})
        yield Experiment(out, by_name, steps, flags)


def scenes_by_name(scenes: list[Path]) -> dict[str, SceneData]:
    """The scenes' folders by name. Raises `InputError` for a scene that has no images to train on or measure."""
    by_name = {}
    for scene in scenes:
        data = find_data(scene)
        name = data.root.name
        if name in by_name:
            raise InputError(f"{scene}: another scene is named {name} too; rename one")
        by_name[name] = data
    return by_name


def find_data(scene: Path) -> SceneData:
    """The folders of a scene, SCENE or in the original's layout ROOT/train/NAME. Raises `InputError` unless both hold
    images."""
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


def earlier_scenes(out: Path, settings: dict) -> dict[str, str]:
    """The scenes of earlier commands in this folder, which must have had the same settings."""
    if not (out / RECORD).is_file():
        return {}
    try:
        earlier = json.loads(read_text(out / RECORD))
        scenes = dict(earlier["scenes"])
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{out / RECORD}: is not an experiment's record ({error})") from None
    for setting, value in settings.items():
        if earlier.get(setting) != value:
            raise InputError(f"--out {out}: holds an experiment with {setting} {earlier.get(setting)}, not {value}; "
                             "name another folder")
    return scenes


@dataclass(frozen=True)
class Experiment:
    """An output folder, and what all its runs share: scenes by name, steps and flags of run_deepvoxels.py."""

    out: Path
    scenes: dict[str, SceneData]
    steps: int
    flags: list[str]

    def run_all(self, runs: Sequence[Run]) -> tuple[dict[Run, Result], dict[Run, str]]:
        """Runs what is missing. Returns the results, and why the other runs failed."""
        missing = [run for run in runs if self.result(run) is None]
        print(f"{len(runs) - len(missing)} of {len(runs)} runs are done", flush=True)
        for run in missing:
            self._refuse_running(run)
        for scene in self.scenes:
            self._check_first([run for run in missing if run.scene == scene])
        failed = {}
        for number, run in enumerate(missing, start=1):
            print(f"[{number}/{len(missing)}] {run.name}: see {self.folder(run) / 'log.txt'}", flush=True)
            problem = self._execute(run)
            result = self.result(run)
            if problem or result is None:
                failed[run] = problem or "wrote no metrics"
                print(f"  failed: {failed[run]}", flush=True)
            else:
                print(f"  PSNR {result.metrics['psnr']:.2f} dB, SSIM {result.metrics['ssim']:.3f}"
                      + ("" if result.seconds is None else f" after {result.seconds:.0f} s"), flush=True)
        return {run: result for run in runs if (result := self.result(run))}, failed

    def folder(self, run: Run) -> Path:
        """The logging root of a run."""
        return self.out / "runs" / run.name

    def result(self, run: Run) -> Result | None:
        """The result of a run, if it is done."""
        done = sorted(self.folder(run).glob("test_traj/*/*/metrics.json"))
        if not done:
            return None
        seconds = [command["seconds"] for command in self._commands(run)]
        return Result(done[-1].parent, json.loads(done[-1].read_text()),
                      None if None in seconds else sum(seconds, start=0.0))

    def _refuse_running(self, run: Run) -> None:
        """Raises `InputError` if a training that outlived its killed experiment still holds the lock of its folder."""
        for logs in self.folder(run).glob("logs/*/*/"):
            with RunLock(logs):
                pass

    def _check_first(self, runs: list[Run]) -> None:
        """Refuses flags and scenes with which no run can start, before hours are spent on others."""
        if not runs or self.folder(runs[0]).exists():
            return
        check = self._command_line(runs[0], "test" if runs[0].model in UNTRAINED else "train") + ["--dry_run"]
        ended = subprocess.run(check, cwd=ROOT, capture_output=True, text=True, check=False)
        if ended.returncode == 2:
            raise InputError(ended.stderr.strip().splitlines()[-1].partition("error: ")[2])

    def _execute(self, run: Run) -> str | None:
        """Trains, resuming where an earlier command was stopped, and tests. Returns what went wrong, if anything."""
        self.folder(run).mkdir(parents=True, exist_ok=True)
        checkpoint = []
        if run.model not in UNTRAINED:
            problem = self._call(run, [*self._command_line(run, "train"), "--resume", "auto"])
            if problem:
                return problem
            # By its step: the newest may be of a training that outlived a killed experiment and is not finished.
            trained = self.folder(run).absolute().glob(f"logs/*/*/model-epoch_*_iter_{self.steps}.pth")
            checkpoint = ["--checkpoint", str(max(trained))]
        return self._call(run, [*self._command_line(run, "test"), *checkpoint])

    def _command_line(self, run: Run, train_test: str) -> list[str]:
        # As many epochs as steps, so that --max_steps ends training.
        roots = (["--data_root", f"{run.data.train}", "--max_steps", f"{self.steps}", "--max_epoch", f"{self.steps}"]
                 if train_test == "train" else
                 ["--data_root", f"{run.data.test}", "--train_root", f"{run.data.train}"])
        return [sys.executable, "run_deepvoxels.py", "--train_test", train_test, "--model", run.model, *roots,
                "--logging_root", f"{self.folder(run).absolute()}", "--seed", f"{run.seed}", *self.flags, *run.flags]

    def _call(self, run: Run, command: list[str]) -> str | None:
        """Runs a command with its output in `log.txt`, and records it in `commands.json`. Returns why it failed.

        When this process is stopped, it asks the command to stop, which lets training save, and waits for it.
        """
        begin, earlier = time.monotonic(), self._commands(run)

        def record(seconds: float | None, exit_code: int | None) -> None:
            write_json(self.folder(run) / "commands.json", {"commands": [*earlier, {
                "command": shlex.join(["python", *command[1:]]), "seconds": seconds, "exit_code": exit_code}]})

        record(None, None)
        with open(self.folder(run) / "log.txt", "a", encoding="utf-8") as log:
            process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT,
                                       stdin=subprocess.DEVNULL,
                                       start_new_session=True)  # so that Ctrl-C reaches it once, through this process
            try:
                process.wait()
            except KeyboardInterrupt:
                process.terminate()
                process.wait()
                raise
            finally:
                if process.poll() is None:  # interrupted a second time
                    process.kill()
                record(round(time.monotonic() - begin, 1), process.poll())
        if process.returncode == 0:
            return None
        return f"exit code {process.returncode}: {reason(self.folder(run) / 'log.txt')}"

    def _commands(self, run: Run) -> list[dict]:
        path = self.folder(run) / "commands.json"
        return json.loads(path.read_text())["commands"] if path.is_file() else []


def reason(log: Path) -> str:
    """What a log says last: its last line with an error if it has one (a progress bar may follow), else its last line
    that is not blank; at most 200 characters of it."""
    lines = [line for line in log.read_text(errors="replace").replace("\r", "\n").splitlines() if line.strip()]
    errors = [line for line in lines if "error: " in line]
    return (errors or lines or ["no output"])[-1].strip()[:200]
