"""What a command does that is ended while it still imports, before `machine.cli` takes over.

`run_deepvoxels.py` and the packages of commands import this first: what they import next takes
seconds, and gigabytes of address space. Out of memory is then one line. Ctrl-C ends the command at
once: as an exception it would be a traceback or, where a package tries to import others (trimesh),
be taken for a package that is missing. Other errors are bugs, and keep their traceback.
"""

import signal
import sys
from pathlib import Path

SCRIPTS = ("run_deepvoxels.py", "colmap_wrapper.py")


def is_a_command() -> bool:
    """Whether this process runs one of the project's commands; else somebody's program imports its
    packages."""
    return sys.argv[0] == "-m" or Path(sys.argv[0]).name in SCRIPTS  # "-m" until it is found


def report(kind: type[BaseException], error: BaseException, traceback) -> None:
    """Python calls this for an error that nothing has caught, and then ends with exit code 1."""
    from machine.errors import explain, is_out_of_memory
    from util import one_line

    if isinstance(error, Exception) and is_out_of_memory(error):
        print(f"{_name()}: error: {one_line(explain(error)[1])}", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, traceback)


def _name() -> str:
    """The command, as it was called."""
    module = getattr(sys.modules["__main__"], "__spec__", None)
    if module is None:
        return Path(sys.argv[0]).name
    return module.name.removesuffix(".__main__")


def done() -> None:
    """Makes Ctrl-C an exception again, once a command can handle it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)


if is_a_command():
    sys.excepthook = report
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
