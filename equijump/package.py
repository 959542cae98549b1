"""Packages the averaged weights of a run for others: `equijump package`."""

import sys
from collections.abc import Sequence
from pathlib import Path

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
    if "systems" in meta:  # It was packaged before.
        molecules = weights.read_molecules(flags.workdir, meta["systems"])
    else:
        molecules = weights.find_molecules(config)
    if flags.name is not None:
        if len(molecules) > 1:
            raise UsageError(
                f"--name: expected a run of one system, found {', '.join(molecules)}"
            )
        trajfile.check_name(flags.name)
        molecules = {flags.name: next(iter(molecules.values()))}
    files = [f"{name}{suffix}" for name in molecules for suffix in (".pdb", ".xtc")]
    package.check(flags, *files)

    def write_starts(folder: Path) -> None:
        for name, (system, starts) in molecules.items():
            trajfile.write_starts(folder / name, system, starts)

    config.data.sources, config.data.topology = (), ""
    meta = {**meta, "systems": list(molecules)}
    package.write(flags, config, params, meta, write_starts)
    return 0


if __name__ == "__main__":
    sys.exit(cli.run("equijump package", main))
