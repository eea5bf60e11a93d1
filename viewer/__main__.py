"""Opens a trained scene, or one that still trains, in a browser.

    python -m viewer --checkpoint latest --logging_root LOGS

Open the address that it prints. Ctrl-C ends it.
"""

import logging
import sys
import threading
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

import torch

from evaluation.trained import PRECISION, read_checkpoint
from losses import LossWeights
from machine.cli import Parser, exit_code, number
from machine.runtime import choose_device, keep_freed_memory, set_arithmetic
from machine.signals import handling
from util import InputError
from viewer.access import origin
from viewer.scene import load_next, load_scene_in_view, load_viewed_model
from viewer.session import Address, Session
from viewer.training_tab import Curves, summaries_of
from viewer.watch import POLL_SECONDS, Watch

PROG = "viewer"


def build_parser() -> Parser:
    parser = Parser(PROG, __doc__)
    parser.add_shared(
        "checkpoint",
        help="weights to look at, or the folder of a run; 'latest': the newest run under "
        "logging_root; 'best': its checkpoint with the best PSNR on held-out views",
    )
    parser.add_shared(
        "logging_root",
        required=True,
        help="folder of the training's results; paths and their videos are written there",
    )
    parser.add_shared(
        "data_root",
        help="the scene, or its train folder (default: what the checkpoint was trained on)",
    )
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to serve at (default: 127.0.0.1, for this machine alone); for any other, the "
        "address that it prints has a token, without which nobody is let in",
    )
    parser.add_argument(
        "--port", type=number(int, 0, 65535), default=8080, help="port to serve at (default: 8080)"
    )
    parser.add_argument(
        "--allow_origin",
        nargs="+",
        type=origin,
        default=[],
        metavar="ORIGIN",
        help="more addresses whose pages may use the viewer, such as https://viewer.example of a "
        "proxy (default: the one that it prints)",
    )
    parser.add_shared("device")
    return parser


def serve(args: Namespace, stopped: threading.Event) -> int:
    """Serves until `stopped` is set, and returns the exit code."""
    device = torch.device(choose_device(args.device))
    set_arithmetic(PRECISION, device)
    keep_freed_memory()
    watch = Watch(args.checkpoint, args.logging_root)
    path = watch.wait_for_first(stopped)
    if path is None:
        return 0
    session = open_session(path, device, args)
    print(f"{path}: open {session.address}", flush=True)
    try:
        while not stopped.wait(POLL_SECONDS):
            show_newest(session, watch)
    finally:
        session.close()
    return 0


def open_session(path: Path, device: torch.device, args: Namespace) -> Session:
    """Serves the model of a checkpoint."""
    checkpoint = read_checkpoint(path)
    scene = load_scene_in_view(checkpoint, args.data_root)
    model = load_viewed_model(checkpoint, scene, device)
    folder = summaries_of(path, args.logging_root)
    curves = None
    if folder and folder.is_dir():
        weights = LossWeights(
            checkpoint.option("l1_weight", 200.0), checkpoint.option("ssim_weight", 0.0)
        )
        curves = Curves(folder, weights)
    at = Address(args.host, args.port, args.allow_origin)
    return Session(scene, model, curves, args.logging_root, at)


def show_newest(session: Session, watch: Watch) -> None:
    """Shows what training has written since the last call. A checkpoint that cannot be shown is one
    line."""
    shared = session.shared
    model = None
    if path := watch.changed():
        try:
            model = load_next(path, shared.scene, shared.model)
        except (InputError, OSError) as error:
            print(f"{PROG}: warning: {error}", file=sys.stderr)
    logged = shared.curves is not None and shared.curves.read()
    if model or logged:
        session.show(model)


def main(argv: Sequence[str] | None = None) -> int:
    """Serves until SIGINT or SIGTERM, and returns the exit code."""
    args = build_parser().parse_args(argv)
    stopped = threading.Event()
    # Requests that are none
    logging.getLogger("websockets.server").setLevel(logging.CRITICAL)
    with handling(lambda *_: stopped.set(), "SIGINT", "SIGTERM"):
        return exit_code(PROG, lambda: serve(args, stopped))


if __name__ == "__main__":
    sys.exit(main())
