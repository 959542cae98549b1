"""The `symphony` command: `symphony <verb> [flags]` runs the module of that verb."""

import sys
from collections.abc import Sequence

from common.commands import cli

VERBS = {
    "train": "train a model: --config=qm9 --workdir=workdir/qm9",
    "sample": "build molecules: --num_molecules=100 --output=molecules.sdf",
    "refine": "refine molecules: --molecules=in.sdf --output=refined.sdf",
    "evaluate": "measure molecules: --samples=molecules.sdf --output=report",
    "package": "weights of a run, to give away: --workdir=workdir/qm9 --output=mine",
    "score": "log-likelihood of molecules: --molecules=in.sdf --output=scores.csv",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one verb and returns the exit status.

    Args:
      argv: The arguments after `symphony`; those of the process where None.
    """
    return cli.dispatch("symphony", VERBS, argv)


if __name__ == "__main__":
    sys.exit(main())
