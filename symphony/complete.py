"""Adds what molecules lack: `symphony complete`; see `symphony.editing`."""

import argparse
import sys
from collections.abc import Sequence
from functools import partial

from common.commands import cli
from symphony import changing, editing
from symphony.weights import Weights

COMMAND = "symphony complete"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs `symphony complete` and returns the exit status.

    Args:
        argv: arguments after the command; those of the process where None.
    """
    flags = _parser().parse_args(argv)
    return changing.run(flags, partial(_changer, flags), True, "completing")


def _changer(flags: argparse.Namespace, weights: Weights) -> editing.Changer:
    """Returns what adds hydrogens, or the part that other flags ask for."""
    return editing.complete(
        weights, **changing.given(flags, ("attach", *changing.ASKED))
    )


def _parser() -> argparse.ArgumentParser:
    parser = cli.argument_parser(
        COMMAND,
        "Adds the hydrogens that open valences lack to the molecules of a file; with "
        "--formula, --num_atoms, --max_heavy or --attach, heavy atoms that are missing "
        "as well. Atoms that are there stay where they are.",
    )
    changing.add_flags(parser, "completed.sdf")
    parser.add_argument("--attach", help="atoms that heavy atoms grow from, as 3,5")
    return parser


if __name__ == "__main__":
    sys.exit(cli.run(COMMAND, main))
