"""ATLAS: proteins of the PDB, three replicas each, as XTC with a PDB file.

Vander Meersche et al. 2024, doi:10.1093/nar/gkad1084. Its archives, unpacked, have
`X.pdb` and `X_R1.xtc`, or `X_prod_R1_fit.xtc`. Those of the analysis have the same
names at another spacing: times are those of the files, and of a replica that is there
twice the finer one counts. All of it is at 300 K.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import ml_collections

from common.errors import UsageError
from equijump.data import files, frames
from equijump.data.sources import packing

TEMPERATURE = 300.0
"""K, of all simulations."""

_NAME = re.compile(r"(?P<name>.+?)(_prod)?_R(?P<number>\d+)(_fit)?\.xtc")
_TWICE = "replicas that are there at a finer spacing too"


def read(folder: str, data: ml_collections.ConfigDict) -> Iterator[frames.Trajectory]:
    """Yields the trajectory of each replica, or the parts it is divided into.

    Args:
        folder: folder that has them, or a pattern of XTC files.
        data: group `data` of a config: `select` is read.
    """
    found: dict[str, tuple[Sequence[frames.Trajectory], str]] = {}
    twice: list[str] = []
    for path in packing.matching(folder, (".xtc",)):
        named = _NAME.fullmatch(path.name)
        if named is None:
            raise UsageError(
                f"{path}: expected a replica of ATLAS, as X_R1.xtc or "
                "X_prod_R1_fit.xtc; name others without atlas:"
            )
        parts = frames.read_trajectories(
            [path], _topology(path, named["name"]), select=data.select, divides=True
        )
        name = f"{named['name']}_R{named['number']}"
        several = sorted(
            [(parts, str(path)), *([found[name]] if name in found else [])],
            key=lambda item: item[0][0].spacing,
        )
        found[name] = several[0]
        twice += [coarser for _, coarser in several[1:]]
    for one in (part for parts, _ in found.values() for part in parts):
        yield one._replace(conditions={"temperature": TEMPERATURE})
    first = dict.fromkeys([_TWICE] * bool(twice), twice[0] if twice else "")
    num_files = len(found) + len(twice)
    packing.tell("atlas", len(found), num_files, {_TWICE: len(twice)}, first)


def _topology(path: Path, name: str) -> Path:
    """Returns the PDB file of a protein, beside a replica or above it."""
    for folder in path.parents[:2]:
        if (folder / f"{name}.pdb").is_file():
            return folder / f"{name}.pdb"
    return files.find_topology("--config.data.topology", path)
