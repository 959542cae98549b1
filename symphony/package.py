"""Packages the averaged weights of a run for others: `symphony package`."""

import sys
from collections.abc import Sequence

from common.commands import cli, package


def main(argv: Sequence[str] | None = None) -> int:
    """Runs `symphony package`."""
    flags = package.parser(
        "symphony package",
        "Writes weights.npz and config.json, all that sampling needs of a run.",
    ).parse_args(argv)
    package.write(flags, *package.read(flags))
    return 0


if __name__ == "__main__":
    sys.exit(cli.run("symphony package", main))
