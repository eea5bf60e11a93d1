"""Makes a small checkpoint to share: of the model alone, in half precision.

    python -m evaluation.pack --checkpoint latest --logging_root LOGS --out model.pth

It holds the weights that tests use and the options of the training but its paths, and takes about
two bytes for each weight. Tests, the viewer and export read it like any other; --data_root says
where the scene is. A training can start from it (--checkpoint), but it cannot be resumed.
"""

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from checkpoints import save_checkpoint, tested_weights
from evaluation.trained import Checkpoint, read_checkpoint
from files.runs import find_checkpoint, follow
from machine.cli import Parser, run
from machine.options import RUN_PATHS
from util import InputError

PROG = "evaluation.pack"
KEPT = ("step", "epoch", "seconds", "chosen_by")  # besides weights and options
# Options that name paths of the machine that trained
PATHS = RUN_PATHS | {"train_root"}


def main(argv: Sequence[str] | None = None) -> None:
    parser = Parser(PROG, __doc__)
    parser.add_shared("checkpoint")
    parser.add_shared("logging_root")
    parser.add_argument(
        "--out", type=Path, required=True, metavar="FILE", help="the checkpoint to make"
    )
    args = parser.parse_args(argv)
    if args.out.exists():
        raise InputError(f"--out {args.out}: already exists; delete it or choose another name")
    path = find_checkpoint(args.checkpoint, args.logging_root)
    save_checkpoint(args.out, pack(read_checkpoint(path)))
    print(
        f"{args.out}: {args.out.stat().st_size / 2**20:.1f} MiB, instead of "
        f"{follow(path).stat().st_size / 2**20:.1f}"
    )


def pack(checkpoint: Checkpoint) -> dict:
    """The content of the small checkpoint.

    Raises `InputError` if half precision cannot hold a weight.
    """
    content = checkpoint.content
    weights = {name: halved(tensor) for name, tensor in tested_weights(content).items()}
    for name, tensor in weights.items():
        if not tensor.isfinite().all():
            raise InputError(
                f"{checkpoint.path}: {name} has values that half precision cannot hold"
            )
    options = content.get("options")
    if not isinstance(options, dict):
        options = {}
    return {
        "model": weights,
        "options": {name: value for name, value in options.items() if name not in PATHS},
        **{name: content[name] for name in KEPT if name in content},
    }


def halved(tensor: Tensor) -> Tensor:
    """A kernel in half precision. Biases and the statistics of batch norms stay: they are few, and
    some are tiny."""
    if tensor.is_floating_point() and tensor.ndim > 1:
        return tensor.half()
    return tensor


if __name__ == "__main__":
    run(PROG, main)
