"""Puts the parts of a run together: `symphony merge`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from common.commands import cli, shards
from common.errors import UsageError
from symphony import evaluate, parts, relax, score
from symphony.sample import BEST_HELP, DIVERSE_HELP

COMMAND = "symphony merge"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs `symphony merge` and returns the exit status.

    Args:
        argv: arguments after the command; those of the process where None.
    """
    flags = _parser().parse_args(argv)
    path = Path(flags.output)
    if path.suffix.lower() == ".sdf":
        wanted = parts.Wanted(flags.diverse, flags.best, flags.relax)
        parts.merge(path, shards.found(path), wanted, flags.overwrite)
        return 0
    for name in parts.Wanted._fields:
        if getattr(flags, name):
            raise UsageError(f"--{name}: expected molecules, as out.sdf, found {path}")
    if scores := shards.find(path):
        score.merge(path, scores, flags.overwrite)
        return 0
    judged = shards.find(evaluate.whole_of(path)) or shards.found(path)
    return evaluate.merge(path, judged, flags.overwrite)


def _parser() -> argparse.ArgumentParser:
    parser = cli.argument_parser(
        COMMAND,
        "Puts the parts of a run with --shard together, as one process would have "
        "written them.",
    )
    add = parser.add_argument
    add(
        "output",
        help="--output of the parts: molecules (.sdf), scores, or a report's folder",
    )
    add("--diverse", action="store_true", help=DIVERSE_HELP)
    add("--best", type=int, default=None, help=BEST_HELP)
    add("--relax", help=relax.HELP)
    add("--overwrite", action="store_true", help="replace what stands there")
    return parser


if __name__ == "__main__":
    sys.exit(cli.run(COMMAND, main))
