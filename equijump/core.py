"""Refuses a package `common` that is not ours: other projects have that name, too.

It runs before anything of `common` is used, so that the line is the whole answer.
"""

import os
import sys

import common

COMMANDS = ("equijump",)


def check() -> None:
    """Raises `ImportError` for another package; ends a command with status 2.

    >>> check()
    """
    if getattr(common, "PROJECT", None) == "symphony-equijump":
        return
    found = getattr(common, "__file__", None) or next(iter(common.__path__))
    fault = (
        f"expected the common of symphony-equijump, found another package: {found}; "
        "use an environment without it"
    )
    program = os.path.basename(sys.argv[0]) if sys.argv else ""
    if program in ("-m", *COMMANDS):
        sys.stderr.write(f"equijump: {fault}\n")
        raise SystemExit(2)
    raise ImportError(fault)
