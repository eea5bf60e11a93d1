"""What is to be measured on a GPU, in three calls of at most 8 minutes each, for machines that are
lent for minutes.

    bash benchmarks/gpu.sh measure OUT
    bash benchmarks/gpu.sh compile OUT SCENE
    bash benchmarks/gpu.sh train OUT SCENE

measure: versions; does a training step agree with the CPU's? Seconds of a step at the paper's size
in each precision, with both optimizers; where they go. compile: a model of the size medium, trained
and packed; then a step as a CUDA graph, and compiled. train: the fast recipe at 512 pixels, in the
precision and compiled or not as gives the most steps by what the others measured (`compile` may be
left out); then pictures and metrics of the test views.

SCENE is an imported scene folder with SCENE/train and SCENE/test. The calls work in --work, which
must stay between them. OUT gets a tar of logs, figures and some frames, and a few files to look at,
none larger than 16 MiB. What fails or finds no time is named at the end, and the rest goes on. It
has been run on a CPU only, at tiny size (--tiny).
"""

import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from machine.cli import Parser, number, run
from machine.installed import is_installed
from util import InputError, write_json

PROG = "benchmarks.gpu"
ROOT = Path(__file__).parent.parent
MAX_BYTES = 16 * 2**20
RESERVED_SECONDS = 30  # last seconds of a call: processes are stopped, results are packed
STOPPING = 20  # seconds that a stopped process has to end; a training saves a checkpoint
TESTING = 100  # seconds of a call in which a trained model is tested
STARTING = 30  # seconds from the start of a training to its first steps, at the most
# Of the time that steps alone would fill. Logging and validation take the rest.
FILLED = 0.8
MEDIUM = 100.0  # seconds in which the size medium is trained
TEST_FRAMES = 6  # of a test, about
KEPT_FILES = ("**/*.txt", "**/*.json", "frames/*.png")
VERSIONS = (
    "import platform, torch\n"
    "print('Python', platform.python_version(), 'PyTorch', torch.__version__)\n"
    "print('CUDA', torch.version.cuda, 'cuDNN', torch.backends.cudnn.version())\n"
    "for i in range(torch.cuda.device_count()):\n"
    "    print(torch.cuda.get_device_properties(i))\n"
)


class Sizes(NamedTuple):
    """What is run where. precisions: those to choose from."""

    device: str
    large: str
    medium: str
    precisions: tuple[str, ...]
    repeats: int
    most_steps: int


ON_GPU = Sizes("cuda", "paper", "medium", ("tf32", "bf16"), repeats=5, most_steps=100_000)
TINY = Sizes("cpu", "small", "small", ("fp32",), repeats=1, most_steps=2)


class Call:
    """One call: runs commands until its time is over, and keeps what they print.

    folder: for the files of this call. work: for those of all calls.
    """

    def __init__(self, args: Namespace):
        self.end = time.monotonic() + 60 * args.minutes - RESERVED_SECONDS
        self.sizes = TINY if args.tiny else ON_GPU
        self.work = args.work
        self.folder = self.work / args.stage
        self.folder.mkdir(parents=True, exist_ok=True)
        self.out = args.out.absolute()
        self.out.mkdir(parents=True, exist_ok=True)
        self.failed: list[str] = []

    def seconds_left(self) -> float:
        return self.end - time.monotonic()

    def python(self, name: str, *words: object, seconds: float | None = None) -> bool:
        """Runs Python on these words for at most `seconds` or what is left; its output is in
        NAME.txt. A command whose time is over gets SIGTERM, at which a training saves. Returns
        whether it ended well."""
        limit = min(self.seconds_left(), seconds or self.seconds_left())
        if limit < 1:
            print(f"{name}: no time is left")
            self.failed.append(name)
            return False
        print(f"== {name}", flush=True)
        path = self.folder / f"{name}.txt"
        with path.open("w") as file:
            process = subprocess.Popen(
                [sys.executable, *map(str, words)],
                cwd=ROOT,
                stdout=file,
                stderr=subprocess.STDOUT,
            )
            try:
                code = process.wait(limit)
            except subprocess.TimeoutExpired:
                process.terminate()
                try:
                    process.wait(STOPPING)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
                code = None
        lines = path.read_text(errors="replace").splitlines()
        print("\n".join(lines[-5:]))
        if code != 0:
            print(f"{name}: " + ("its time was over" if code is None else f"exit code {code}"))
            self.failed.append(name)
        return code == 0

    def speed(self, preset: str, precision: str, optimizer: str, *more: str) -> Path:
        """Measures a step. Returns the file of its figures, which may be missing."""
        name = "_".join(["speed", preset, precision, optimizer, *(m.strip("-") for m in more)])
        path = self.folder / f"{name}.json"
        words = ["--preset", preset, "--precision", precision, "--optimizer", optimizer, *more]
        words += ["--device", self.sizes.device, "--repeats", self.sizes.repeats, "--json", path]
        start = time.monotonic()
        if self.python(name, "-m", "benchmarks.speed", *words):
            command_s = time.monotonic() - start
            write_json(path, {**json.loads(path.read_text()), "command_s": command_s})
        return path

    def train(self, name: str, scene: Path, size: str, choice: dict, seconds: float) -> None:
        """Trains as chosen, or goes on where an earlier call stopped."""
        words = ["--train_test", "train", "--data_root", scene / "train", "--size", size]
        words += ["--recipe", "fast", *choice["flags"]]
        words += ["--max_steps", choice["steps"], "--validate_every", max(1, choice["steps"] // 4)]
        words += ["--device", self.sizes.device, "--logging_root", self.folder / name]
        self.python(name, "run_deepvoxels.py", *words, "--resume", "auto", seconds=seconds)

    def test(self, name: str, scene: Path) -> Path | None:
        """Tests what `train` trained, and keeps some of its frames. Returns the folder of its
        results."""
        root = self.folder / name
        words = ["--train_test", "test", "--data_root", scene / "test", "--checkpoint", "latest"]
        words += ["--logging_root", root, "--device", self.sizes.device]
        self.python(f"{name}_test", "run_deepvoxels.py", *words)
        tests = sorted(root.glob("test_traj/*/*"), key=lambda path: path.stat().st_mtime)
        if not tests:
            return None
        frames = sorted(tests[-1].glob("img_*.png"))
        (self.folder / "frames").mkdir(exist_ok=True)
        for frame in frames[:: max(1, len(frames) // TEST_FRAMES)]:
            shutil.copy(frame, self.folder / "frames" / f"{name}_{frame.name}")
        return tests[-1]

    def finish(self) -> int:
        """Packs the files of this call into OUT, and returns the exit code."""
        archive = self.folder / "results.tar.gz"
        kept = [path for kind in KEPT_FILES for path in self.folder.glob(kind)]
        with tarfile.open(archive, "w:gz") as tar:
            for path in sorted(kept):
                tar.add(path, path.relative_to(self.work))
        bring_home(archive, self.out / f"{self.folder.name}.tar.gz")
        archive.unlink()
        if self.failed:
            print(f"failed: {' '.join(self.failed)}; see the .txt of each in {self.out}")
            return 1
        print(f"look at {self.out}")
        return 0


def main(argv: Sequence[str] | None = None) -> int:
    args = parse(argv)
    call = Call(args)
    stages = {"measure": measure_stage, "compile": compile_stage, "train": train_stage}
    stages[args.stage](call, args)
    return call.finish()


def parse(argv: Sequence[str] | None) -> Namespace:
    """The options. Raises `InputError` where a stage has not what it needs."""
    parser = Parser(PROG, __doc__)
    parser.add_argument("stage", choices=["measure", "compile", "train"])
    parser.add_argument("out", type=Path, metavar="OUT", help="folder for the results")
    parser.add_argument("scene", type=Path, nargs="?", metavar="SCENE", help="a scene folder")
    parser.add_argument(
        "--work",
        type=Path,
        default=Path(tempfile.gettempdir()) / "deepvoxels_gpu",
        metavar="DIR",
        help="folder that stays between the calls (default: %(default)s)",
    )
    parser.add_argument(
        "--minutes", type=number(float, 4), default=8, help="of one call (default: 8)"
    )
    parser.add_argument("--tiny", action="store_true", help="try it on a CPU, at tiny size")
    args = parser.parse_args(argv)
    if args.stage != "measure":
        if args.scene is None:
            raise InputError(f"{args.stage}: needs a SCENE")
        for split in ("train", "test"):
            if not (args.scene / split).is_dir():
                raise InputError(f"{args.scene}: has no folder {split}")
        args.scene = args.scene.absolute()
    if args.stage == "train" and not list(args.work.glob("measure/speed_*_muon.json")):
        raise InputError(f"--work {args.work}: no speed was measured there; call measure first")
    args.work = args.work.absolute()
    return args


def measure_stage(call: Call, args: Namespace) -> None:
    """Versions, agreement with the CPU, seconds of a step, and the operations that they go to."""
    sizes = call.sizes
    if shutil.which("nvidia-smi"):
        words = ["-c", "import subprocess; subprocess.run(['nvidia-smi'])"]
        call.python("driver", *words)
    call.python("versions", "-c", VERSIONS)
    if is_installed("pytest") and not args.tiny:
        words = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/machine/test_cuda.py"]
        call.python("test_cuda", *words, seconds=120)
    words = ["--preset", "small", "--device", sizes.device]
    call.python("agreement", "-m", "benchmarks.agreement", *words)
    for optimizer in ["muon"] if args.tiny else ["muon", "adam"]:
        for precision in sizes.precisions:
            call.speed(sizes.large, precision, optimizer)
    words = ["--preset", sizes.large, "--device", sizes.device, "--optimizer", "muon"]
    words += ["--precision", sizes.precisions[-1]]
    call.python("operations", "-m", "benchmarks.operations", *words)
    if not args.tiny:
        for optimizer in ["adam", "muon"]:
            call.speed(sizes.large, "fp32", optimizer)


def compile_stage(call: Call, args: Namespace) -> None:
    """A model of the size medium with its weights; then a step as a CUDA graph, and compiled."""
    sizes = call.sizes
    figures = [call.speed(sizes.medium, each, "muon") for each in sizes.precisions]
    choice = choose_training(call, figures, MEDIUM - STARTING)
    call.train("medium", args.scene, sizes.medium, choice, MEDIUM)
    call.test("medium", args.scene)
    packed = call.folder / "medium.pth"
    packed.unlink(missing_ok=True)
    words = ["--checkpoint", "latest", "--logging_root", call.folder / "medium", "--out", packed]
    if call.python("pack", "-m", "evaluation.pack", *words):
        bring_home(packed, call.out / packed.name)
    if not args.tiny:
        for way in ("--graph", "--compile"):
            for precision in reversed(sizes.precisions):
                call.speed(sizes.large, precision, "muon", way)


def train_stage(call: Call, args: Namespace) -> None:
    """A training at the paper's size that ends within this call, and its test."""
    sizes = call.sizes
    seconds = call.seconds_left() - TESTING
    names = [f"speed_{sizes.large}_{precision}_muon" for precision in sizes.precisions]
    measured = [call.work / "measure" / f"{name}.json" for name in names]
    measured += [call.work / "compile" / f"{name}_compile.json" for name in names]
    choice = choose_training(call, measured, seconds - STARTING)
    call.train("paper", args.scene, call.sizes.large, choice, seconds)
    tested = call.test("paper", args.scene)
    for name in ("comparison.png", "video.mp4"):
        if tested and (tested / name).is_file():
            bring_home(tested / name, call.out / name)


def choose_training(call: Call, measured: Sequence[Path], seconds: float) -> dict:
    """`most_steps` by the files that are there. A repeated call keeps the first choice, with which
    its training goes on."""
    path = call.folder / "choice.json"
    if path.is_file():
        choice = json.loads(path.read_text())
    else:
        figures = [json.loads(file.read_text()) for file in measured if file.is_file()]
        choice = most_steps(figures, seconds, call.sizes.most_steps)
        write_json(path, choice)
    print(choice["line"], flush=True)
    return choice


def most_steps(figures: Sequence[dict], seconds: float, limit: int) -> dict:
    """The way to train that takes the most steps in `seconds`: its flags, the steps, at most
    `limit`, and a line that says why.

    figures: of `benchmarks.speed`, with the seconds that the command took, `command_s`: a compiled
    training spends about as many before its first step. Raises `InputError` if there are none.
    """
    if not figures:
        raise InputError("no step with MUON was measured; see what the measurements say")

    def steps_of(measured: dict) -> int:
        compiling = measured["command_s"] if measured["compile"] else 0.0
        return int(FILLED * (seconds - compiling) / measured["train_step_s"])

    best = max(figures, key=steps_of)
    steps = min(limit, max(1, steps_of(best)))
    flags = ["--precision", best["precision"]] + ["--compile"] * best["compile"]
    each = [
        f"{measured['precision']}{' compiled' * measured['compile']} "
        f"{measured['train_step_s']:.4g} s"
        for measured in figures
    ]
    line = f"a step takes: {', '.join(each)}; training takes {' '.join(flags)} and {steps} steps"
    return {"flags": flags, "steps": steps, "line": line}


def bring_home(path: Path, target: Path) -> None:
    """Copies a file into OUT, in parts if it is too large for one."""
    for old in target.parent.glob(f"{target.name}*"):
        old.unlink()
    content = path.read_bytes()
    if len(content) <= MAX_BYTES:
        target.write_bytes(content)
        return
    for index, begin in enumerate(range(0, len(content), MAX_BYTES)):
        part = target.with_name(f"{target.name}.{index}")
        part.write_bytes(content[begin : begin + MAX_BYTES])
    print(f"{target.name} is in parts: cat {target.name}.* > {target.name}")


if __name__ == "__main__":
    run(PROG, main, sys.argv[1:])
