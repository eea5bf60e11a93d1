"""What the commands of this package share: a user's mistake ends in one line on stderr and exit code 2."""
import argparse
import math
import sys
from collections.abc import Callable, Sequence

from util import InputError, one_line


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line, without the usage, and whose help opens with the module's text."""

    def __init__(self, prog: str, description: str | None):
        super().__init__(prog=prog, description=description, formatter_class=argparse.RawDescriptionHelpFormatter)

    def error(self, message: str):
        self.exit(2, f"{self.prog}: error: {one_line(message)}\n")


def run(prog: str, main: Callable[[Sequence[str] | None], None], argv: Sequence[str] | None = None) -> None:
    """Calls `main(argv)`; what a user can get wrong (`InputError`, a file that cannot be written) exits with 2."""
    try:
        main(argv)
    except InputError as error:
        message = str(error)
    except KeyboardInterrupt:
        sys.exit(130)
    except OSError as error:
        if error.filename is None:
            raise
        message = f"{error.filename}: {error.strerror}"
    else:
        return
    print(f"{prog}: error: {one_line(message)}", file=sys.stderr)
    sys.exit(2)


def number(kind, least=-math.inf, most=math.inf, above=-math.inf):
    """An argparse type: a finite number of this kind, int or float, from `least` to `most` and more than `above`."""
    whole = "whole " if kind is int else ""
    if above > -math.inf:
        what = f"{whole}number above {above:g}"
    elif most < math.inf:
        what = f"{whole}number from {least:g} to {most:g}"
    else:
        what = f"{whole}number of at least {least:g}" if least > -math.inf else f"finite {whole}number"

    def convert(text: str):
        value = kind(text)
        if not (least <= value <= most and above < value and abs(value) < math.inf):
            raise argparse.ArgumentTypeError(f"{text} is not a {what}")
        return value

    convert.__name__ = kind.__name__  # which argparse names where `kind` refuses
    return convert
