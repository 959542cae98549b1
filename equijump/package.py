"""Packages the averaged weights of a run for others: `equijump package`."""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from common.commands import cli, package
from common.errors import UsageError
from common.nn.conditions import ROOM_TEMPERATURE
from equijump import dynamics


def main(argv: Sequence[str] | None = None) -> int:
    """Runs `equijump package`."""
    parser = package.parser(
        "equijump package",
        "Writes weights.npz, config.json, and frames of each system to start from: all "
        "that sampling needs of a run.",
    )
    parser.add_argument("--name", help="of the system; by its files where not given")
    parser.add_argument(
        "--starts",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="frames of each system to start from; --no-starts for a network of "
        "several peptides, which --sequence and --start are enough for",
    )
    parser.add_argument(
        "--dynamics",
        help='what was learnt, as "ff14SB, OBC2, 300 K, friction 1/ps, not water"; by '
        "default of the simulate.json beside the trajectories",
    )
    flags = parser.parse_args(argv)

    from equijump import trajfile, transferable, weights

    config, params, meta = package.read(flags)
    if "systems" in meta:  # It was packaged before.
        molecules = weights.read_molecules(flags.workdir, meta["systems"])
        peptides = transferable.from_json(meta.get("transferable"))
    else:
        molecules, peptides = weights.of_run(config)
    if not flags.starts:
        if peptides is None:
            raise UsageError(
                "--no-starts: expected a run of several peptides, found one of "
                f"{', '.join(molecules)}; leave it out"
            )
        molecules = {}
    if flags.name is not None:
        if len(molecules) != 1:
            found = ", ".join(molecules) or "--no-starts"
            raise UsageError(f"--name: expected a run of one system, found {found}")
        trajfile.check_name(flags.name)
        molecules = {flags.name: next(iter(molecules.values()))}
    files = [f"{name}{suffix}" for name in molecules for suffix in (".pdb", ".xtc")]
    package.check(flags, *files)

    def write_starts(folder: Path) -> None:
        for name, (system, starts) in molecules.items():
            trajfile.write_starts(folder / name, system, starts)

    told = flags.dynamics or meta.get("dynamics") or dynamics.of_config(config)
    meta = {**meta, "systems": list(molecules), **_metadata(config, meta, peptides)}
    meta |= {"dynamics": told} if told else {}
    config.data.sources, config.data.topology = (), ""
    package.write(flags, config, params, meta, write_starts)
    return 0


def _metadata(config: Any, meta: Mapping[str, Any], peptides: Any) -> dict[str, Any]:
    """Returns what is told of a network of several peptides, nothing of one."""
    from equijump import transferable

    if peptides is None:
        return {}
    listed = list(map(float, config.data.temperatures)) or [ROOM_TEMPERATURE]
    found = meta.get("conditions", {}).get("temperature", (min(listed), max(listed)))
    record = transferable.to_json(peptides, sorted(set(config.data.lags)), list(found))
    return {"transferable": record}


if __name__ == "__main__":
    sys.exit(cli.run("equijump package", main))
