"""Adds what molecules lack: `symphony complete`; see `symphony.editing`."""

import argparse
import sys
from collections.abc import Sequence
from functools import partial

from common.commands import cli
from symphony import editing, wishes
from symphony.options import Core
from symphony.weights import Weights

COMMAND = "symphony complete"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs `symphony complete` and returns the exit status.

    Args:
        argv: arguments after the command; those of the process where None.
    """
    flags = _parser().parse_args(argv)
    return editing.run(flags, partial(_changer, flags), True, "completing")


def _changer(flags: argparse.Namespace, weights: Weights) -> editing.Changer:
    """Returns what adds hydrogens, or the part that other flags ask for."""
    names = ("formula", "num_atoms", "max_heavy", "elements", "attach")
    asked = wishes.read(**{name: getattr(flags, name) for name in names})
    if not asked:
        return editing.with_hydrogens
    heavy_first = bool(weights.config.data.heavy_first)

    def change(molecule: Core, species: tuple[int, ...], name: str) -> editing.Change:
        attach = asked.attach
        if attach is None:
            spare = wishes.open_valences(*molecule, species)
            attach = tuple(int(atom) for atom in spare.nonzero()[0])
        grown = asked._replace(attach=attach, keep_hydrogens=heavy_first)
        return editing.Change(molecule, grown)

    return change


def _parser() -> argparse.ArgumentParser:
    parser = cli.argument_parser(
        COMMAND,
        "Adds the hydrogens that open valences lack to the molecules of a file; with "
        "--formula, --num_atoms, --max_heavy or --attach, heavy atoms that are missing "
        "as well. Atoms that are there stay where they are.",
    )
    editing.add_flags(parser, "completed.sdf")
    parser.add_argument("--attach", help="atoms that heavy atoms grow from, as 3,5")
    return parser


if __name__ == "__main__":
    sys.exit(cli.run(COMMAND, main))
