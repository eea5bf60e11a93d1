"""What all commands share: their parser, argument types, and how an error becomes one line and an
exit code."""

import argparse
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from machine import importing
from machine.errors import explain
from machine.output import best_effort_output
from util import one_line

# Flags that several commands have, as `Parser.add_shared` declares them.
SHARED_FLAGS = {
    "checkpoint": {
        "required": True,
        "metavar": "FILE|latest|best",
        "help": "the model; 'latest': the newest checkpoint under logging_root; 'best': that of "
        "the newest run there with the best PSNR on held-out views (--validate_every)",
    },
    "logging_root": {
        "type": Path,
        "metavar": "DIR",
        "help": "where training wrote logs/, for 'latest' and 'best'",
    },
    "data_root": {"type": Path, "metavar": "DIR"},
    "device": {
        "default": "auto",
        "help": "cpu, cuda, cuda:N, mps (untested), or auto: CUDA if it is available "
        "(default: auto)",
    },
}


class Parser(argparse.ArgumentParser):
    """An argument parser that reports errors as one line, without the usage. Its help opens with
    the module's text."""

    def __init__(self, prog: str, doc: str | None, **kwargs):
        super().__init__(
            prog=prog,
            description=doc,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            **kwargs,
        )

    def add_shared(self, name: str, **changes) -> None:
        """Declares a flag of `SHARED_FLAGS`, with what is different for this command."""
        self.add_argument(f"--{name}", **SHARED_FLAGS[name] | changes)

    def error(self, message: str):
        self.exit(2, f"{self.prog}: error: {one_line(message)}\n")


def number(
    kind: type,
    minimum: int | float = -math.inf,
    maximum: int | float = math.inf,
    above: int | float = -math.inf,
) -> Callable[[str], int | float]:
    """An argparse type: a finite int or float (`kind`) in [minimum, maximum] and greater than
    `above`."""
    whole = "whole " if kind is int else ""
    if above > -math.inf:
        wanted = f"{whole}number above {above:g}"
    elif maximum < math.inf:
        wanted = f"{whole}number from {minimum:g} to {maximum:g}"
    else:
        wanted = (
            f"{whole}number of at least {minimum:g}"
            if minimum > -math.inf
            else f"finite {whole}number"
        )

    def convert(text: str):
        value = kind(text)
        if not (minimum <= value <= maximum and above < value and abs(value) < math.inf):
            raise argparse.ArgumentTypeError(f"{text} is not a {wanted}")
        return value

    convert.__name__ = kind.__name__  # for argparse's message if `kind` raises ValueError
    return convert


def exit_code(prog: str, command: Callable[[], int | None]) -> int:
    """Runs a command and returns its exit code: its own (None is 0), or that of its error, reported
    as one line.

    2: an error of the user's (`InputError`) or of the file system. 1: out of memory, or a GPU that
    failed. 130: interrupted (Ctrl-C). Other exceptions are bugs and pass through. Output that
    nobody reads is lost, and ends nothing.
    """
    importing.done()
    with best_effort_output():
        try:
            return command() or 0
        except KeyboardInterrupt:
            return 130
        except Exception as error:
            code, message = explain(error)
            print(f"{prog}: error: {one_line(message)}", file=sys.stderr)
            return code


def run(
    prog: str, main: Callable[[Sequence[str] | None], None], argv: Sequence[str] | None = None
) -> None:
    """Calls `main(argv)`, and exits with the code of its error if it raises one (see
    `exit_code`)."""
    if code := exit_code(prog, lambda: main(argv)):
        sys.exit(code)
