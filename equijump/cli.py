"""The `equijump` command, which this version does not have yet."""

import sys
from collections.abc import Sequence

from common import cli


def main(argv: Sequence[str] | None = None) -> int:
    """Says that EquiJump is not part of this version; returns the exit status.

    Args:
      argv: The arguments after `equijump`.
    """

    def decline(argv: Sequence[str] | None) -> None:
        raise cli.UsageError("EquiJump is not part of this version")

    return cli.run("equijump", decline, argv)


if __name__ == "__main__":
    sys.exit(main())
