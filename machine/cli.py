"""What all commands share: their parser, argument types, and how an error becomes one line and an
exit code."""

import argparse
import math
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from util import InputError, one_line

# Flags that several commands have, as `Parser.add_shared` declares them.
SHARED_FLAGS = {
    "checkpoint": {
        "required": True,
        "metavar": "FILE|latest",
        "help": "the model; 'latest': the newest checkpoint under logging_root",
    },
    "logging_root": {
        "type": Path,
        "metavar": "DIR",
        "help": "where training wrote logs/, for 'latest'",
    },
    "data_root": {"type": Path, "metavar": "DIR"},
    "device": {
        "default": "auto",
        "help": "cpu, cuda, cuda:N, or auto: CUDA if it is available (default: auto)",
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

    2: an error of the user's (`InputError`) or of the file system. 1: out of memory. 130:
    interrupted (Ctrl-C). 141: nobody reads its output any more (`| head`). Other exceptions are
    bugs and pass through.
    """
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")  # file names need not be valid text
    try:
        return _exit_code(prog, command)
    finally:
        flush_output()


def _exit_code(prog: str, command: Callable[[], int | None]) -> int:
    try:
        return command() or 0
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        return 141
    except InputError as error:
        code = 2
        message = str(error)
    except OSError as error:
        files = " to ".join(
            str(name) for name in (error.filename, error.filename2) if name
        )  # two of a copy
        code = 2
        message = f"{files}: {error.strerror}" if files and error.strerror else str(error)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        code = 1
        message = f"out of memory: {str(error).rpartition('DefaultCPUAllocator: ')[-1]}"
    print(f"{prog}: error: {one_line(message)}", file=sys.stderr)
    return code


def flush_output() -> None:
    """Flushes stdout. Where it cannot be written, what it holds is lost, without a traceback when
    Python ends."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def run(
    prog: str, main: Callable[[Sequence[str] | None], None], argv: Sequence[str] | None = None
) -> None:
    """Calls `main(argv)`, and exits with the code of its error if it raises one (see
    `exit_code`)."""
    if code := exit_code(prog, lambda: main(argv)):
        sys.exit(code)


def is_out_of_memory(error: Exception) -> bool:
    """Whether Python, OpenCV, PyTorch on a GPU or PyTorch on the CPU (a plain RuntimeError) got no
    memory."""
    # not imported here: commands start faster
    torch = sys.modules.get("torch")
    cv2 = sys.modules.get("cv2")
    return (
        isinstance(error, MemoryError)
        or (torch is not None and isinstance(error, torch.OutOfMemoryError))
        or (
            cv2 is not None
            and isinstance(error, cv2.error)
            and getattr(error, "code", None) == cv2.Error.StsNoMem
        )
        or (
            isinstance(error, RuntimeError)
            and any(name in str(error) for name in ("DefaultCPUAllocator", "bad_alloc"))
        )
    )
