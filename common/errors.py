"""Exceptions that end a command with one line; mathematics raises them too."""


class UsageError(Exception):
    """Bad usage or input: what was expected, what was found, and where."""


class RunError(Exception):
    """A run that began well and could not be finished: why, and what is left of it."""
