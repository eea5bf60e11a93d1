"""Checkpoints, run folders, seeds, and the one exception for what a user can get wrong."""


class InputError(Exception):
    """A file, flag or folder of the user's is wrong. The message is one line that names it; commands exit with 2."""
