"""What all commands share: their parser, argument types, and how an error becomes one line and an
exit code."""

import argparse
import errno
import math
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from machine import importing
from machine.output import lasting_output
from util import InputError, one_line

# What is said when there is no memory: by PyTorch's allocator, C++, oneDNN, threads and files,
# CUDA, cuBLAS or cuDNN, and by the system when it loads a library (one that it may not load is
# another matter).
NO_MEMORY = re.compile(
    r"DefaultCPUAllocator|bad_alloc|could not create a (primitive(?! descriptor)|memory)"
    r"|can't start new thread|Cannot allocate memory|CUDA error: out of memory|STATUS_ALLOC_FAILED"
    r"|failed to map segment from shared object(?!: Operation not permitted)"
)
# How CUDA says that the card, its driver or the connection to it failed, in the text of its error.
LOST_GPU = re.compile(
    r"CUDA error: (.*\b(device lost|launch failure|launch timed out|uncorrectable|hardware)\b.*"
    r"|no CUDA-capable device.*|CUDA-capable device\(s\) is/are busy.*|unknown error.*)"
)
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

    2: an error of the user's (`InputError`) or of the file system. 1: out of memory, or a GPU that
    failed. 130: interrupted (Ctrl-C). Other exceptions are bugs and pass through. Output that
    nobody reads is lost, and ends nothing.
    """
    importing.done()
    with lasting_output():
        try:
            return command() or 0
        except KeyboardInterrupt:
            return 130
        except Exception as error:
            code, message = explain(error)
            print(f"{prog}: error: {one_line(message)}", file=sys.stderr)
            return code


def explain(error: Exception) -> tuple[int, str]:
    """The exit code and the message of an error. Raises a bug again."""
    if is_out_of_memory(error):
        lines = str(error).strip().splitlines()
        # numpy explains at length how to install it
        reason = next(filter(NO_MEMORY.search, lines), str(error))
        reason = reason.rpartition("DefaultCPUAllocator: ")[-1].strip()
        return 1, f"out of memory: {reason or 'no more could be had'}"
    if isinstance(error, RuntimeError) and (failure := LOST_GPU.search(str(error))):
        return 1, f"the GPU failed: {failure[1]}; what was saved before is intact"
    if isinstance(error, InputError):
        return 2, str(error)
    if isinstance(error, OSError):
        # two of a copy
        files = " to ".join(str(name) for name in (error.filename, error.filename2) if name)
        return 2, f"{files}: {error.strerror}" if files and error.strerror else str(error)
    raise error


def run(
    prog: str, main: Callable[[Sequence[str] | None], None], argv: Sequence[str] | None = None
) -> None:
    """Calls `main(argv)`, and exits with the code of its error if it raises one (see
    `exit_code`)."""
    if code := exit_code(prog, lambda: main(argv)):
        sys.exit(code)


def is_out_of_memory(error: Exception) -> bool:
    """Whether Python, the system, OpenCV or PyTorch got no memory. Most of PyTorch's libraries say
    so in a plain RuntimeError, the system in an error without a number if it loads a library."""
    # not imported here: commands start faster
    torch = sys.modules.get("torch")
    cv2 = sys.modules.get("cv2")
    if isinstance(error, MemoryError):
        return True
    if isinstance(error, OSError) and error.errno == errno.ENOMEM:
        return True
    if torch is not None and isinstance(error, torch.OutOfMemoryError):
        return True
    if cv2 is not None and isinstance(error, cv2.error):
        return getattr(error, "code", None) == cv2.Error.StsNoMem
    kinds = (RuntimeError, ImportError, OSError)
    return isinstance(error, kinds) and NO_MEMORY.search(str(error)) is not None
