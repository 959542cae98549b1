"""Regrows a part of molecules: `symphony edit`; see `symphony.editing`."""

import argparse
import sys
from collections.abc import Sequence
from functools import partial

from common.commands import cli
from symphony import changing, editing
from symphony.weights import Weights

COMMAND = "symphony edit"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs `symphony edit` and returns the exit status.

    Args:
        argv: arguments after the command; those of the process where None.
    """
    flags = _parser().parse_args(argv)
    return changing.run(flags, partial(_changer, flags), flags.basin, "editing")


def _changer(flags: argparse.Namespace, weights: Weights) -> editing.Changer:
    asked = changing.given(flags, ("remove", "keep_formula", *changing.ASKED))
    return editing.regrow(weights, **asked)


def _parser() -> argparse.ArgumentParser:
    parser = cli.argument_parser(
        COMMAND,
        "Removes atoms from the molecules of a file, with their hydrogens, and grows "
        "others in their place. All other atoms stay where they are.",
    )
    changing.add_flags(parser, "edited.sdf")
    add = parser.add_argument
    add("--remove", required=True, help="atoms to remove, from 0, as 7,8,9")
    add("--keep_formula", action="store_true", help="the whole has the formula it had")
    add("--basin", action="store_true", help="narrows each mode of the position")
    return parser


if __name__ == "__main__":
    sys.exit(cli.run(COMMAND, main))
