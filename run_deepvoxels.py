"""DeepVoxels from the command line: learn a scene from posed images, or render a camera path
through it.

python run_deepvoxels.py --train_test train --data_root SCENE/train --logging_root LOGS python
run_deepvoxels.py --train_test test --data_root SCENE/test --logging_root LOGS --checkpoint
CHECKPOINT
"""

import argparse
import sys
from argparse import Namespace
from collections.abc import Iterable
from pathlib import Path

from baselines import MODELS, UNTRAINED, recorded_model
from checkpoints import find_checkpoint, latest_checkpoint, load_checkpoint
from data_util import BACKGROUNDS, DEFAULT_NEAR_PLANE
from deep_voxels import SIZES
from evaluation.command import test
from machine.cli import Parser, exit_code, number
from machine.ranks import Ranks, joined
from machine.runtime import PRECISIONS, choose_device, keep_freed_memory
from training.loop import train
from training.recipes import RECIPES
from util import InputError, run_name

PROG = "run_deepvoxels.py"

# Flags that a resumed run may change: how long it runs, where, and what it records. The others
# decide what it learns. It takes them from its checkpoint unless they are given, but for those that
# belong to one command alone.
OF_ONE_COMMAND = {
    "train_test",
    "resume",
    "checkpoint",
    "logging_root",
    "experiment_name",
    "max_steps",
    "start_epoch",
    "device",
    "lpips",
    "dry_run",
    "train_root",
}
FREE_ON_RESUME = OF_ONE_COMMAND | {
    "data_root",
    "max_epoch",
    "log_every",
    "validate_every",
    "checkpoint_every",
    "checkpoint_minutes",
    "keep_checkpoints",
    "keep_optimizer",
    "kernels",
    "compile",
}
SEEN_WITH = [
    "near_plane",
    "background",
    "sampling_pattern",
]  # with which a test sees a scene as its training did
SIZED = [
    "img_sidelength",
    "proj_sidelength",
    "grid_dim",
    "num_grid_feats",
    "nf0",
]  # the flags that --size sets


def build_parser() -> tuple[Parser, dict]:
    """The parser and the flags' defaults. It returns only the flags that were given: a recipe or a
    checkpoint may set the others."""
    parser = Parser(PROG, __doc__, allow_abbrev=False)
    defaults = {}

    def group(title: str):
        arguments = parser.add_argument_group(title)

        def flag(name: str, default, help: str, **kwargs) -> None:
            defaults[name] = default
            shown = (
                ""
                if default is None or default is False or default == ""
                else f" (default: {default})"
            )
            arguments.add_argument(
                f"--{name}", default=argparse.SUPPRESS, help=help + shown, **kwargs
            )

        return flag

    flag = group("what to run")
    flag(
        "train_test", None, "train, or render the poses of a test folder", choices=["train", "test"]
    )
    flag(
        "data_root",
        None,
        "scene folder: pose/, intrinsics.txt and, to train or to measure, rgb/",
        metavar="DIR",
    )
    flag(
        "logging_root",
        None,
        "folder for results: logs/ and runs/ (training), test_traj/ (testing)",
        metavar="DIR",
    )
    flag(
        "experiment_name",
        "",
        "name of the run's folder, after the time (default: that of the scene or checkpoint)",
        metavar="NAME",
        type=run_name,
    )
    flag(
        "checkpoint",
        None,
        "weights to test, or to start training from, the original's too; 'latest': the newest "
        "checkpoint under logging_root",
        metavar="FILE|latest",
    )
    flag(
        "resume",
        None,
        "checkpoint of a run to continue exactly. 'latest': the newest under logging_root, or with "
        "--experiment_name the newest of the runs begun with that name. 'auto': the same, or a new "
        "run if there is "
        "none, so that one command line starts a run and, repeated, continues it; once it is done, "
        "nothing happens. "
        "Flags that contradict the run are refused",
        metavar="FILE|latest|auto",
    )
    flag(
        "train_root",
        None,
        "training views for a test: the baselines' source views and the nearest neighbours "
        "(default: the training folder of data_root's scene: SCENE/train for SCENE/test, "
        "ROOT/train/NAME for "
        "ROOT/test/NAME)",
        metavar="DIR",
    )
    flag(
        "lpips",
        False,
        "in a test, measure LPIPS too (AlexNet, weights from torchvision)",
        action="store_true",
    )
    flag("dry_run", False, "check all input, print the options and stop", action="store_true")

    flag = group("training")
    flag(
        "model", "deepvoxels", "method: DeepVoxels or a baseline of the paper", choices=list(MODELS)
    )
    flag("max_epoch", 400, "passes over the training views", type=number(int, 0))
    flag(
        "max_steps",
        None,
        "total number of steps, including those before --resume",
        type=number(int, 1),
    )
    flag("start_epoch", 0, "number of the first epoch, with --checkpoint", type=number(int, 0))
    flag("lr", 4e-4, "learning rate of all optimizers", type=number(float, 0))
    flag(
        "l1_weight",
        200.0,
        "weight of the l1 loss; the adversarial loss has weight 1",
        type=number(float, 0),
    )
    flag(
        "volume_limit",
        10.0,
        "value of the persistent volume above which a penalty keeps it from growing without "
        "bound; 0: none",
        type=number(float, 0),
    )
    flag(
        "sampling_pattern",
        "all",
        "training views: 'all', or 'skip_N' to skip N views after each one",
    )
    flag("num_trgt", 2, "target views per step", type=number(int, 1, 64))
    flag(
        "seed", 0, "random seed of weights, view selection and dropout", type=number(int, 0, 2**63)
    )

    flag = group("recipe")
    flag(
        "recipe",
        "paper",
        f"preset for {', '.join(RECIPES['fast'])}; explicit flags override it. fast: "
        + " ".join(f"--{name} {value}" for name, value in RECIPES["fast"].items()),
        choices=list(RECIPES),
    )
    flag(
        "optimizer",
        "adam",
        "of the model's kernels: adam, or muon, whose steps take longer and learn more; adam for "
        "all else",
        choices=["adam", "muon"],
    )
    flag(
        "lr_decay",
        0.0,
        "fraction of the steps, at the end, over which the learning rates fall linearly to 0",
        type=number(float, 0, 1),
    )
    flag("dropout", 1.0, "factor on the model's dropout probabilities", type=number(float, 0, 2))
    flag(
        "average",
        0.0,
        "decay of a moving average of the weights, which tests then use; 0: no average",
        type=number(float, 0, 0.99999),
    )

    flag = group("architecture")
    flag(
        "size",
        None,
        f"preset for {', '.join(SIZED)}; explicit flags override it. "
        + "; ".join(
            f"{name}: {' '.join(str(getattr(size, flag)) for flag in SIZED)}"
            for name, size in SIZES.items()
        )
        + " (default: paper)",
        choices=list(SIZES),
    )
    del defaults["size"]  # what it sets is recorded, never its name
    flag("img_sidelength", 512, "image size in pixels, a power of two from 64 to 1024", type=int)
    flag(
        "proj_sidelength",
        64,
        "feature map size in pixels, a power of two from 8 to img_sidelength",
        type=int,
    )
    flag("grid_dim", 32, "voxels along each side of the grid, a multiple of 4", type=int)
    flag("num_grid_feats", 64, "features per voxel", type=number(int, 1, 1024))
    flag("nf0", 64, "channels of the outermost 2D layers", type=number(int, 2, 1024))
    flag(
        "no_occlusion_net", False, "collapse depth without occlusion reasoning", action="store_true"
    )

    flag = group("scene")
    flag(
        "near_plane",
        DEFAULT_NEAR_PLANE,
        "near plane in world units, used if intrinsics.txt says 0",
        type=number(float, 1e-6),
    )
    flag("background", "white", "colour behind transparent pixels", choices=sorted(BACKGROUNDS))

    flag = group("machine")
    flag("device", "auto", "cpu, cuda, cuda:N, or auto: CUDA if it is available")
    flag(
        "precision",
        "fp32",
        "arithmetic of the convolutions; tf32 is for CUDA only",
        choices=PRECISIONS,
    )
    flag(
        "kernels",
        "auto",
        "auto: cpu_kernels where they apply; plain: PyTorch's own layers only",
        choices=["auto", "plain"],
    )
    flag("compile", False, "compile the networks with torch.compile", action="store_true")
    flag(
        "deterministic",
        False,
        "on CUDA, use deterministic algorithms where PyTorch has them",
        action="store_true",
    )

    flag = group("records")
    flag("log_every", 100, "steps between pictures in tensorboard", type=number(int, 1))
    flag(
        "validate_every",
        0,
        "steps between measurements of PSNR and SSIM on up to 8 held-out views: of the folder "
        "'validation' or 'test' of data_root's scene; 0: none",
        type=number(int, 0),
    )
    flag("checkpoint_every", 10000, "steps between checkpoints", type=number(int, 1))
    flag(
        "checkpoint_minutes", 30.0, "maximum minutes between checkpoints", type=number(float, 0.01)
    )
    flag(
        "keep_checkpoints", 5, "number of checkpoints kept, the newest; 0: all", type=number(int, 0)
    )
    flag(
        "keep_optimizer",
        "all",
        "which of them keep the optimizers' state, half to two thirds of their size, which "
        "--resume needs and a test does not: all, or the last alone, the newest",
        choices=["last", "all"],
    )
    return parser, defaults


def resolve_options(arguments: list[str]) -> tuple[Namespace, dict | None]:
    """The options of a run, and the loaded checkpoint that it starts from, if any.

    A flag's value is the given one, else that of the given `--size`, else the checkpoint's (to
    resume: all flags but `OF_ONE_COMMAND`; to test: the architecture and `SEEN_WITH`; to start
    from: the architecture), else the recipe's, else the default. Raises `InputError` for options
    that contradict each other.
    """
    parser, defaults = build_parser()
    given = vars(parser.parse_args(arguments))
    _check_combination(given)
    _find_checkpoint(given)
    size = given.pop("size", None)
    if size:
        given = {**{flag: getattr(SIZES[size], flag) for flag in SIZED}, **given}
    checkpoint = None
    recorded = {}
    source = given.get("resume") or given.get("checkpoint")
    if source:
        checkpoint = load_checkpoint(Path(source))
        model = recorded_model(checkpoint, Path(source))
        _refuse_changes(given, size, model, source)
        if given.get("resume"):
            recorded = recorded_options(checkpoint, Path(source))
            fixed = given.keys() - FREE_ON_RESUME
            _refuse_changes(
                given, size, {name: recorded.get(name, defaults[name]) for name in fixed}, source
            )
        elif given["train_test"] == "test":
            recorded = parse_recorded(checkpoint, SEEN_WITH)
        recorded |= model
    recipe = (
        {} if given.get("resume") else RECIPES[given.get("recipe", defaults["recipe"])]
    )  # a run keeps its own
    opt = Namespace(**{**defaults, **recipe, **recorded, **given})
    validate(opt)
    opt.device = choose_device(opt.device)
    return opt, checkpoint


def recorded_options(checkpoint: dict, path: Path) -> dict:
    """The options of a checkpoint's training that a resumed run takes over, checked like typed
    ones.

    They include `--max_steps` if the learning rates decay, since these depend on it.
    """
    if not isinstance(checkpoint.get("options"), dict):
        raise InputError(
            f"--resume {path}: records no options to continue with; --checkpoint starts from its "
            "weights"
        )
    free = OF_ONE_COMMAND - ({"max_steps"} if checkpoint["options"].get("lr_decay") else set())
    return parse_recorded(checkpoint, checkpoint["options"].keys() - free)


def parse_recorded(checkpoint: dict, names: Iterable[str]) -> dict:
    """Those of the named flags that a checkpoint records, checked like typed ones. The original's
    records none."""
    parser, defaults = build_parser()
    options = checkpoint.get("options")
    arguments = []
    for name, value in options.items() if isinstance(options, dict) else []:
        if name in defaults and name in names and value is not None and value is not False:
            arguments += [f"--{name}"] if value is True else [f"--{name}={value}"]
    return vars(parser.parse_args(arguments))


def _check_combination(given: dict) -> None:
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
    if given["train_test"] == "train" and given.get("lpips"):
        raise InputError("--lpips measures a test; training does not take it")
    if given["train_test"] == "test" and given.get("resume"):
        raise InputError("--resume continues training; a test takes --checkpoint")


def _find_checkpoint(given: dict) -> None:
    """Puts the checkpoint that `latest` or `auto` stands for in its place. `auto` is dropped if
    there is none; else it beats a given --checkpoint, from which the run began. Raises `InputError`
    if there is none for `latest`."""
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
    if given.get("checkpoint") == "latest":
        given["checkpoint"] = str(find_checkpoint(given["checkpoint"], root))


def _refuse_changes(given: dict, size: str | None, trained_with: dict, source: str) -> None:
    """Raises `InputError` if a given flag, or one that `--size` sets, differs from that of a
    checkpoint's training."""
    for flag, value in trained_with.items():
        if given.get(flag, value) != value:
            by_size = size and flag in SIZED and given[flag] == getattr(SIZES[size], flag)
            raise InputError(
                (f"--size {size}: " if by_size else "")
                + f"--{flag} {given[flag]} contradicts {source}, "
                f"which was trained with --{flag} {value}"
            )


def validate(opt: Namespace) -> None:
    """Raises `InputError` for values from which no model can be built."""
    if not opt.data_root:
        raise InputError("--data_root is required")
    if opt.train_test == "train" and opt.model in UNTRAINED:
        raise InputError(
            f"--model {opt.model}: has nothing to train; test it with --train_test test "
            "--train_root DIR"
        )
    for flag, minimum, maximum in [
        ("img_sidelength", 64, 1024),
        ("proj_sidelength", 8, opt.img_sidelength),
    ]:
        value = getattr(opt, flag)
        if value & (value - 1) or not minimum <= value <= maximum:
            raise InputError(
                f"--{flag} {value}: must be a power of two from {minimum} to {maximum}"
            )
    if not 4 <= opt.grid_dim <= 512 or opt.grid_dim % 4:
        raise InputError(
            f"--grid_dim {opt.grid_dim}: must be a multiple of 4 from 4 to 512, "
            "since the inpainting network halves the grid twice"
        )
    if opt.no_occlusion_net and opt.nf0 * opt.grid_dim < 8:
        raise InputError(f"--nf0 {opt.nf0}: is too small for --no_occlusion_net")


def spread(opt: Namespace, ranks: Ranks) -> None:
    """Gives each of several ranks its device. Raises `InputError` if the options do not suit their
    number."""
    if opt.train_test == "train" and opt.num_trgt % ranks.count:
        raise InputError(
            f"--num_trgt {opt.num_trgt}: must be a multiple of the {ranks.count} processes that "
            "torchrun "
            "started, which share the target views"
        )
    opt.device = ranks.own_device(opt.device)


def main(arguments: list[str] | None = None) -> int:
    """Runs the command and returns its exit code (`cli.exit_code`; in training, see
    `training.loop.train`)."""

    def command() -> int:
        words = sys.argv[1:] if arguments is None else arguments
        with joined() as ranks:
            opt, checkpoint = ranks.from_first(lambda: resolve_options(words))
            with ranks.together():
                spread(opt, ranks)
            print(
                " ".join(
                    f"{name}={value}" for name, value in vars(opt).items() if value is not None
                )
            )
            keep_freed_memory(everything=opt.train_test == "test" or opt.precision == "bf16")
            run = train if opt.train_test == "train" else test
            return run(opt, checkpoint, ranks)

    return exit_code(PROG, command)


if __name__ == "__main__":
    sys.exit(main())
