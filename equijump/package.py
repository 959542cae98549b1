"""Packages the averaged weights of a run for others: `equijump package`."""

import sys
from collections.abc import Sequence

from common.commands import cli, package
from common.errors import UsageError


def main(argv: Sequence[str] | None = None) -> int:
    """Runs `equijump package`."""
    parser = package.parser(
        "equijump package",
        "Writes weights.npz, config.json, and frames of each system to start from: all "
        "that sampling needs of a run.",
    )
    parser.add_argument("--name", help="of the system; by its files where not given")
    flags = parser.parse_args(argv)

    from equijump import trajfile, weights

    config, params, meta = package.read(flags)
    molecules = weights.find_molecules(config)
    if flags.name is not None:
        if len(molecules) > 1:
            raise UsageError(
                f"--name: expected a run of one system, found {', '.join(molecules)}"
            )
        trajfile.check_name(flags.name)
        molecules = {flags.name: next(iter(molecules.values()))}
    config.data.trajectories, config.data.topology = (), ""
    package.write(flags, config, params, {**meta, "systems": list(molecules)})
    for name, (system, starts) in molecules.items():
        trajfile.write_starts(flags.output / name, system, starts)
    return 0


if __name__ == "__main__":
    sys.exit(cli.run("equijump package", main))
