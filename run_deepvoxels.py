"""DeepVoxels from the command line: learn a scene from posed images, or render a camera path through it.

    python run_deepvoxels.py --train_test train --data_root SCENE/train --logging_root LOGS
    python run_deepvoxels.py --train_test test --data_root SCENE/test --logging_root LOGS --checkpoint CHECKPOINT
"""
import argparse
import math
import os
import sys
from dataclasses import fields
from pathlib import Path

import torch

from baselines import MODELS, UNTRAINED, recorded_model
from checkpoints import latest_checkpoint, load_checkpoint
from cli import number
from data_util import BACKGROUNDS
from deep_voxels import Architecture
from evaluation.command import test
from runtime import PRECISIONS, keep_freed_memory
from training.loop import FREE_ON_RESUME, train
from training.recipes import RECIPES
from util import InputError, one_line

ARCHITECTURE_FLAGS = [field.name for field in fields(Architecture)]


class Parser(argparse.ArgumentParser):
    """Reports a wrong command line as one line. Keeps defaults apart, so that it is known which flags were given."""

    def __init__(self):
        super().__init__(description=__doc__.splitlines()[0], formatter_class=argparse.RawDescriptionHelpFormatter,
                         epilog="\n".join(__doc__.splitlines()[2:]), allow_abbrev=False)
        self.defaults = {}

    def flag(self, name: str, default, help: str, **kwargs) -> None:
        self.defaults[name] = default
        shown = "" if default is None or default is False else f" (default: {default})"
        self.add_argument(f"--{name}", default=argparse.SUPPRESS, help=help + shown, **kwargs)

    def error(self, message: str):
        self.exit(2, f"{self.prog}: error: {one_line(message)}\n")


def build_parser() -> Parser:
    parser = Parser()
    flag = parser.flag
    flag("train_test", None, "train, or render the poses of a test folder", choices=["train", "test"])
    flag("data_root", None, "scene folder: pose/, intrinsics.txt and, to train or to measure, rgb/", metavar="DIR")
    flag("logging_root", None, "where runs are written: logs/ and runs/, or test_traj/", metavar="DIR")
    flag("experiment_name", "", "name of the run's folder, after the time", metavar="NAME")
    flag("checkpoint", None, "weights to test, or to start training from; the original's work too", metavar="FILE")
    flag("resume", None, "checkpoint whose training is continued exactly, or 'latest': the newest under logging_root",
         metavar="FILE")

    flag("model", "deepvoxels", "the method; the others are the paper's baselines", choices=list(MODELS))
    flag("max_epoch", 400, "passes over the training views", type=number(int, 0))
    flag("max_steps", None, "end after so many steps in all, resumed ones counted", type=number(int, 1))
    flag("start_epoch", 0, "epoch to start counting at, with --checkpoint", type=number(int, 0))
    flag("lr", 4e-4, "learning rate of both optimizers", type=number(float, 0))
    flag("recipe", "paper", "what flags below are not given are the paper's, or such that learning is fast: "
         + " ".join(f"--{name} {value:g}" for name, value in RECIPES["fast"].items()), choices=list(RECIPES))
    flag("lr_decay", 0.0, "share of the steps, the last ones, in which the learning rates fall linearly to 0",
         type=number(float, 0, 1))
    flag("dropout", 1.0, "factor on the model's dropout probabilities", type=number(float, 0, 2))
    flag("average", 0.0, "decay of a moving average of the weights, which a test then uses; 0 for none",
         type=number(float, 0, 0.99999))
    flag("l1_weight", 200.0, "weight of the l1 loss against the adversarial loss", type=number(float, 0))
    flag("sampling_pattern", "all", "training views: 'all', or 'skip_N' to leave out N after each kept")
    flag("num_trgt", 2, "target views a step", type=number(int, 1, 64))
    flag("seed", 0, "seed of the weights, the triplets and dropout", type=number(int, 0, 2 ** 63))

    flag("img_sidelength", 512, "pixels a side of the images, a power of two from 64 to 1024", type=int)
    flag("proj_sidelength", 64, "pixels a side of the feature maps, a power of two from 8 to img_sidelength", type=int)
    flag("grid_dim", 32, "voxels a side of the grid, a multiple of 4", type=int)
    flag("num_grid_feats", 64, "features a voxel", type=number(int, 1, 1024))
    flag("nf0", 64, "features of the outermost 2D layers", type=number(int, 2, 1024))
    flag("no_occlusion_net", False, "collapse depth without occlusion reasoning", action="store_true")
    flag("near_plane", math.sqrt(3) / 2, "near plane in world units where intrinsics.txt says 0",
         type=number(float, 1e-6))
    flag("background", "white", "colour behind transparent pixels", choices=sorted(BACKGROUNDS))

    flag("train_root", None, "training views of a test: source views of the baselines, and for the nearest-neighbour "
         "comparison (default: the folder 'train' beside data_root)", metavar="DIR")
    flag("device", "auto", "auto, cpu, cuda or cuda:N")
    flag("precision", "fp32", "arithmetic of the convolutions; tf32 on CUDA alone", choices=PRECISIONS)
    flag("kernels", "auto", "auto: CPU kernels where they apply; plain: PyTorch's own layers alone",
         choices=["auto", "plain"])
    flag("compile", False, "compile the networks with torch.compile", action="store_true")
    flag("log_every", 100, "steps between pictures in tensorboard", type=number(int, 1))
    flag("checkpoint_every", 10000, "steps between checkpoints", type=number(int, 1))
    flag("checkpoint_minutes", 30.0, "most minutes between checkpoints", type=number(float, 0.01))
    flag("keep_checkpoints", 5, "newest checkpoints of a run that are kept, 0 for all", type=number(int, 0))
    flag("deterministic", False, "on CUDA, deterministic algorithms where PyTorch has them", action="store_true")
    flag("dry_run", False, "check everything, print the options and stop", action="store_true")
    return parser


def resolve_options(arguments: list[str]) -> tuple[argparse.Namespace, dict | None]:
    """The options of a run and the checkpoint that it starts from, if any.

    A flag that is not given takes its value from the checkpoint where that records it (to resume: every flag; else
    the architecture), and its default where not.
    """
    parser = build_parser()
    given = vars(parser.parse_args(arguments))
    for name in ("train_test", "logging_root"):
        if not given.get(name):
            raise InputError(f"--{name} is required")
    if given.get("resume") and given.get("checkpoint"):
        raise InputError("--resume and --checkpoint exclude each other: to continue a run, or to take its weights")
    if given["train_test"] == "test" and not given.get("checkpoint") and given.get("model") not in UNTRAINED:
        raise InputError("--checkpoint is required to test")
    if given["train_test"] == "test" and given.get("resume"):
        raise InputError("--resume continues training; a test takes --checkpoint")

    checkpoint, recorded = None, {}
    if given.get("resume") == "latest":
        given["resume"] = str(latest_checkpoint(Path(given["logging_root"])))
    source = given.get("resume") or given.get("checkpoint")
    if source:
        checkpoint = load_checkpoint(Path(source))
        model = recorded_model(checkpoint, Path(source))
        for flag, value in model.items():
            if given.get(flag, value) != value:
                raise InputError(f"--{flag} {given[flag]} contradicts {source}, which was trained with "
                                 f"--{flag} {value}")
        if given.get("resume"):
            recorded = recorded_options(checkpoint, parser, Path(source))
            for name in given.keys() - FREE_ON_RESUME:
                trained_with = recorded.get(name, parser.defaults[name])
                if given[name] != trained_with:
                    raise InputError(f"--{name} {given[name]} contradicts {source}, which was trained with "
                                     f"--{name} {trained_with}; a resumed run cannot change it")
        recorded |= model
    recipe = RECIPES[given.get("recipe", recorded.get("recipe", parser.defaults["recipe"]))]
    opt = argparse.Namespace(**{**parser.defaults, **recipe, **recorded, **given})
    validate(opt)
    opt.device = choose_device(opt.device)
    return opt, checkpoint


def recorded_options(checkpoint: dict, parser: Parser, path: Path) -> dict:
    """The options that a checkpoint's training ran with, but for where and how long, checked as if they were typed.

    How long, `--max_steps`, is among them where learning rates decay: they are a function of it.
    """
    if not isinstance(checkpoint.get("options"), dict):
        raise InputError(f"--resume {path}: records no options to continue with; --checkpoint starts from its weights")
    arguments = []
    kept = {"data_root", "max_epoch"} | ({"max_steps"} if checkpoint["options"].get("lr_decay") else set())
    for name, value in checkpoint["options"].items():
        inherited = name in parser.defaults and (name not in FREE_ON_RESUME or name in kept)
        if inherited and value is not None and value is not False:
            arguments += [f"--{name}"] if value is True else [f"--{name}={value}"]
    return vars(parser.parse_args(arguments))


def validate(opt: argparse.Namespace) -> None:
    """Raises `InputError` for values that no model can be built from."""
    if not opt.data_root:
        raise InputError("--data_root is required")
    if opt.train_test == "train" and opt.model in UNTRAINED:
        raise InputError(f"--model {opt.model}: has nothing to train; test it with --train_test test --train_root DIR")
    for flag, least, most in [("img_sidelength", 64, 1024), ("proj_sidelength", 8, opt.img_sidelength)]:
        value = getattr(opt, flag)
        if value & (value - 1) or not least <= value <= most:
            raise InputError(f"--{flag} {value}: must be a power of two from {least} to {most}")
    if not 4 <= opt.grid_dim <= 512 or opt.grid_dim % 4:
        raise InputError(f"--grid_dim {opt.grid_dim}: must be a multiple of 4 from 4 to 512, "
                         "since the inpainting network halves the grid twice")
    if opt.no_occlusion_net and opt.nf0 * opt.grid_dim < 8:
        raise InputError(f"--nf0 {opt.nf0}: is too small for --no_occlusion_net")


def choose_device(name: str) -> str:
    """The device that `--device` means, if it is there."""
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise InputError(f"--device {name}: is unknown; it is auto, cpu, cuda or cuda:N")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise InputError(f"--device {name}: this machine has {torch.cuda.device_count() or 'no'} CUDA devices "
                         "that PyTorch can use")
    return name


def main(arguments: list[str] | None = None) -> int:
    sys.stdout.reconfigure(errors="backslashreplace")  # names of files need not be valid text
    try:
        opt, checkpoint = resolve_options(sys.argv[1:] if arguments is None else arguments)
        print(" ".join(f"{name}={value}" for name, value in vars(opt).items() if value is not None))
        keep_freed_memory(everything=opt.train_test == "test" or opt.precision == "bf16")
        return train(opt, checkpoint) if opt.train_test == "train" else test(opt, checkpoint)
    except InputError as error:
        print(f"{os.path.basename(__file__)}: error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"{os.path.basename(__file__)}: error: {one_line(str(error))}", file=sys.stderr)
        return 2
    except (MemoryError, torch.OutOfMemoryError) as error:
        print(f"{os.path.basename(__file__)}: error: out of memory: {one_line(str(error))}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
