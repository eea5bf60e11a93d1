"""What a command prints that ends while it still imports, before `machine.cli` can report an error.

`run_deepvoxels.py` and the packages of commands import this first: what they import next takes
seconds, and gigabytes of address space. Out of memory is then one line, and Ctrl-C none. All other
errors are bugs, and keep their traceback.
"""

import sys
from pathlib import Path

from machine.cli import explain, is_out_of_memory
from util import one_line

_before = sys.excepthook


def report(kind: type[BaseException], error: BaseException, traceback) -> None:
    """Python calls this for an error that nothing has caught, and then ends with exit code 1, or as
    Ctrl-C ends a program."""
    if isinstance(error, Exception) and is_out_of_memory(error):
        print(f"{_name()}: error: {one_line(explain(error)[1])}", file=sys.stderr)
    elif not isinstance(error, KeyboardInterrupt):
        _before(kind, error, traceback)


def _name() -> str:
    """The command, as it was called."""
    module = getattr(sys.modules["__main__"], "__spec__", None)
    if module is None:
        return Path(sys.argv[0]).name
    return module.name.removesuffix(".__main__")


sys.excepthook = report
