"""Shows trajectories in one page that needs no network: `equijump view`.

Frames, a Ramachandran trace that moves with them, bonds, and what the gate did.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common.commands import cli
from common.errors import UsageError
from common.pages import own

COMMAND = "equijump view"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs `equijump view` and returns the exit status.

    Args:
        argv: arguments after the command; those of the process where None.
    """
    arguments = _parser().parse_args(argv)
    _check(arguments)

    # Imported late, so that --help and mistakes on the command line are quick.
    from equijump.evaluate import inputs
    from equijump.view import page

    paths = inputs.find_files("--trajectory", arguments.trajectory)
    shown = page.choose(paths, arguments.max_trajectories)
    replicas = inputs.read(
        "--trajectory",
        shown,
        arguments.topology,
        arguments.spacing,
        finite=False,
        select=arguments.select,
    )
    with cli.progress(len(shown), "reading", "trajectories") as advance:
        made = page.make(replicas, shown, arguments.max_frames, advance)
    own.write(COMMAND, Path(arguments.output), made)
    sys.stdout.write(f"{arguments.output}\n")
    return 0


def _check(arguments: argparse.Namespace) -> None:
    """Raises `UsageError` for flags that cannot be met; sets `trajectory`."""
    given = [*arguments.input, *(arguments.trajectory or ())]
    if not given:
        raise UsageError(
            "expected trajectories, as first words or as --trajectory, found none"
        )
    arguments.trajectory = given
    for name, low, high in (
        ("max_trajectories", 1, 1001), ("max_frames", 2, 100_001), ("spacing", 0, 1e9),
    ):  # fmt: skip
        value = getattr(arguments, name)
        if not low <= value < high:
            most = f"{high - 1:g}"
            raise UsageError(f"--{name}: expected {low} to {most}, found {value}")
    inputs = (*given, *filter(None, (arguments.topology,)))
    own.check(COMMAND, Path(arguments.output), arguments.overwrite, inputs)


def _parser() -> argparse.ArgumentParser:
    parser = cli.argument_parser(COMMAND, "Shows trajectories in one page, offline.")
    add: Any = parser.add_argument
    add("input", nargs="*", help="files or patterns, of one system")
    add("--trajectory", nargs="+", action="extend", help="the same")
    add(
        "--topology", help="file that names their atoms; by default the one beside them"
    )
    add(
        "--select",
        default="",
        help="atoms, in MDTraj's language; by default all of the protein",
    )
    add("--spacing", type=float, default=0.0, help="ps, for formats without times")
    add("-o", "--output", default="view.html", help="page to write")
    add("--overwrite", action="store_true", help="replace what --output has")
    add("--max_trajectories", type=int, default=50, help="show only so many first ones")
    add("--max_frames", type=int, default=500, help="of each, evenly chosen")
    return parser
