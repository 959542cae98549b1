"""Shows molecules of a file in one page that needs no network: `symphony view`.

A grid of all molecules, or by `--build_up` the steps in which the network builds one.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common.commands import cli
from common.errors import UsageError
from common.pages import own

COMMAND = "symphony view"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs `symphony view` and returns the exit status.

    Args:
        argv: arguments after the command; those of the process where None.
    """
    arguments = _parser().parse_args(argv)
    _check(arguments)

    # Imported late, so that --help and mistakes on the command line are quick.
    from symphony.view import page

    if arguments.build_up is None:
        made = page.make_grid(arguments, cli.progress)
    else:
        made = page.make_build_up(arguments)
    own.write(COMMAND, Path(arguments.output), made)
    sys.stdout.write(f"{arguments.output}\n")
    return 0


def _check(arguments: argparse.Namespace) -> None:
    """Raises `UsageError` for flags that cannot be met; sets `molecules`."""
    given = [name for name in (arguments.input, arguments.molecules) if name]
    if len(given) != 1:
        raise UsageError(
            "expected one file, as first word or as --molecules, found "
            f"{' and '.join(given) or 'none'}"
        )
    arguments.molecules = given[0]
    for name, low, high in (
        ("max_molecules", 1, 100_000), ("num_workers", 1, 4096), ("build_up", 0, 2**31),
    ):  # fmt: skip
        value = getattr(arguments, name)
        if value is not None and not low <= value < high:
            raise UsageError(f"--{name}: expected {low} to {high - 1}, found {value}")
    if not 0 < arguments.time_limit < 1e6:
        raise UsageError(
            f"--time_limit: expected 0 to 1e6 s, found {arguments.time_limit}"
        )
    cli.check_seed(arguments.seed)
    output = Path(arguments.output)
    own.check(COMMAND, output, arguments.overwrite, (arguments.molecules,))


def _parser() -> argparse.ArgumentParser:
    parser = cli.argument_parser(COMMAND, "Shows molecules in one page, offline.")
    add: Any = parser.add_argument
    add("input", nargs="?", help="molecules: .sdf, .extxyz, .xyz or .npz")
    add("--molecules", help="the same")
    add("-o", "--output", default="view.html", help="page to write")
    add("--overwrite", action="store_true", help="replace what --output has")
    add("--max_molecules", type=int, default=1000, help="show only so many first ones")
    add(
        "--build_up",
        type=int,
        metavar="INDEX",
        help="show how the network builds this molecule, counted from 0",
    )
    add(
        "--checkpoint",
        help="weights for --build_up; by default those that drew the file, else qm9",
    )
    add("--seed", type=int, default=0, help="of the drawn order of --build_up")
    add(
        "--num_workers",
        type=int,
        default=os.cpu_count() or 1,
        help="processes for bond perception",
    )
    add("--time_limit", type=float, default=10.0, help="CPU seconds for one molecule")
    return parser
