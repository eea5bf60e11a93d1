"""What the commands of this package share: a user's mistake ends in one line on stderr and exit code 2."""
import argparse
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
