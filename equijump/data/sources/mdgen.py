"""MDGen: arrays of the 14 heavy atoms of each residue, in npy.

Jing, Stärk, Jaakkola and Berger 2024, arXiv:2409.17808. `<SEQ>_i100.npy` of
tetrapeptides has every 100th frame of one in .1 ps, `<name>_R<n>_i40.npy` of ATLAS
every 40th of one in 10 ps. Arrays are `[frame, residue, 14, 3]`, in Å and half
precision; atoms that are missing are zero. The sequence of a name is in a table
`name,seqres` (.csv) beside the file or above it; a tetrapeptide is its name.
"""

import csv
import functools
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import ml_collections
import numpy as np

from common.commands.reading import refusing
from common.errors import UsageError
from equijump.data import divide, store
from equijump.data.frames import Trajectory
from equijump.data.residues import element_of
from equijump.data.sources import packing

SPACING, SPACING_ATLAS = 0.1, 10.0
"""ps, of the trajectories that every n-th frame was taken of."""

TEMPERATURE, TEMPERATURE_ATLAS = 350.0, 300.0
"""K."""

_BACKBONE = "N CA C O"
_SIDE_CHAINS = {
    "A": ("ALA", "CB"),
    "R": ("ARG", "CB CG CD NE CZ NH1 NH2"),
    "N": ("ASN", "CB CG OD1 ND2"),
    "D": ("ASP", "CB CG OD1 OD2"),
    "C": ("CYS", "CB SG"),
    "Q": ("GLN", "CB CG CD OE1 NE2"),
    "E": ("GLU", "CB CG CD OE1 OE2"),
    "G": ("GLY", ""),
    "H": ("HIS", "CB CG ND1 CD2 CE1 NE2"),
    "I": ("ILE", "CB CG1 CG2 CD1"),
    "L": ("LEU", "CB CG CD1 CD2"),
    "K": ("LYS", "CB CG CD CE NZ"),
    "M": ("MET", "CB CG SD CE"),
    "F": ("PHE", "CB CG CD1 CD2 CE1 CE2 CZ"),
    "P": ("PRO", "CB CG CD"),
    "S": ("SER", "CB OG"),
    "T": ("THR", "CB OG1 CG2"),
    "W": ("TRP", "CB CG CD1 CD2 NE1 CE2 CE3 CZ2 CZ3 CH2"),
    "Y": ("TYR", "CB CG CD1 CD2 CE1 CE2 CZ OH"),
    "V": ("VAL", "CB CG1 CG2"),
}
"""Name and atoms of each residue in the order of the arrays, behind the backbone."""

_NAME = re.compile(r"(?P<name>.+?)(?P<replica>_R\d+)?(_i(?P<stride>\d+))?")
_WHAT = "an array of MDGen, [frame, residue, 14, 3]"


def read(pattern: str, data: ml_collections.ConfigDict) -> Iterator[Trajectory]:
    """Yields the trajectory of each file.

    Args:
        pattern: files, as `4AA_data/*.npy`, or a folder that has them.
        data: group `data` of a config: `spacing` in ps, where it is given, goes before
            that of the name; `select` is read.
    """
    found = packing.matching(pattern, (".npy",))
    jobs = (_job(path, data.spacing, data.select) for path in found)
    yield from packing.trajectories("mdgen", jobs)


def _job(path: Path, spacing: float, select: str) -> packing.Job:
    parts = _NAME.fullmatch(path.stem).groupdict()
    sequence = sequence_of(path, parts["name"])
    is_atlas = parts["replica"] is not None
    usual = SPACING_ATLAS if is_atlas else SPACING
    spacing = float(spacing) or usual * int(parts["stride"] or 1)
    if not spacing > 0.0:
        raise UsageError(f"{path}: expected a spacing in its name, found 0 ps")
    known = {"temperature": TEMPERATURE_ATLAS if is_atlas else TEMPERATURE}
    pack = partial(_pack, path, sequence, spacing, known, select)
    return packing.Job(path, (), f"{sequence} {spacing:g} {known} {select}", pack)


def sequence_of(path: Path, name: str) -> str:
    """Returns the sequence of a name, by a table near the file or by the name itself.

    Raises:
        UsageError: No table has the name, and it is no sequence.
    """
    for folder in path.absolute().parents[:3]:
        found = _tables(folder).get(name)
        if found:
            return found
    if name and set(name) <= _SIDE_CHAINS.keys():
        return name
    raise UsageError(
        f"{path}: expected a sequence as its name, or {name} in a table name,seqres "
        "(.csv) beside it, found neither; put the table of MDGen's splits there"
    )


@functools.lru_cache(maxsize=16)
def _tables(folder: Path) -> dict[str, str]:
    """Returns the sequences in the tables of a folder, by their names."""
    found: dict[str, str] = {}
    for path in sorted(folder.glob("*.csv")):
        with (
            refusing(path, "a table in CSV"),
            path.open(newline="", encoding="utf-8") as file,
        ):
            for row in csv.DictReader(file):
                if row.get("name") and row.get("seqres"):
                    found[row["name"]] = row["seqres"].strip().upper()
    return found


def _pack(
    path: Path,
    sequence: str,
    spacing: float,
    known: dict[str, float],
    select: str,
    writer: store.Writer,
) -> None:
    array = _opened(path, sequence)
    topology, rows, slots = topology_of(sequence)
    if not len(array):
        writer.skipped["files without a frame"] += 1
        return
    some = [0, len(array) // 2, -1]
    tried = np.asarray(array[some], np.float32)[:, rows, slots]
    lacking = np.flatnonzero(~tried.any(axis=(0, 2)))
    if len(lacking):
        writer.skipped[f"files that lack atoms, as {topology.atom(lacking[0])}"] += 1
        return
    system = packing.first_system(topology, tried, str(path), select, writer)
    parts = (part[:, rows, slots] for part in packing.in_parts(array))
    found = packing.add(writer, str(path), system, parts)
    writer.end(system, divide.pieces(path.stem, spacing, found, known))


def _opened(path: Path, sequence: str) -> np.ndarray:
    """Returns a map of an array that fits its sequence."""
    with refusing(path, _WHAT):
        array = np.load(path, mmap_mode="r", allow_pickle=False)
        if array.ndim != 4 or array.shape[2:] != (14, 3) or array.dtype.kind != "f":
            raise ValueError(f"shape {array.shape} and type {array.dtype}")
    if len(sequence) != array.shape[1] or not set(sequence) <= _SIDE_CHAINS.keys():
        raise UsageError(
            f"{path}: expected {array.shape[1]} amino acids, as the array has, found "
            f"the sequence {sequence[:40]}"
        )
    return array


def topology_of(sequence: str) -> tuple[Any, np.ndarray, np.ndarray]:
    """Returns a topology of MDTraj, and residue and place of each atom in an array.

    >>> topology_of("GA")[2].tolist()
    [0, 1, 2, 3, 0, 1, 2, 3, 4]

    Args:
        sequence: one letter for each residue.
    """
    import mdtraj

    topology, places = mdtraj.Topology(), []
    chain = topology.add_chain()
    for row, letter in enumerate(sequence):
        name, side = _SIDE_CHAINS[letter]
        residue = topology.add_residue(name, chain, row + 1)
        for slot, atom in enumerate(f"{_BACKBONE} {side}".split()):
            element = mdtraj.element.get_by_symbol(element_of(atom))
            topology.add_atom(atom, element, residue)
            places.append((row, slot))
    return topology, *np.array(places).T
