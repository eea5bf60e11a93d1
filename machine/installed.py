"""Packages that a run can do without: what needs one is left out, with a line that says so."""

from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec


def is_installed(module: str) -> bool:
    """Whether a module of this name can be imported. Imports nothing."""
    return find_spec(module) is not None


def left_out(what: str, package: str) -> str:
    """The line that says why `what` is missing."""
    return f"{what}: left out, as {package} is not installed (pip install {package})"


def installed_version(package: str) -> str:
    """A package's version, or 'not installed'."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
