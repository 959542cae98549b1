"""Containers of published data sets that are not read, known by what is in them.

Each has a row: what it is called, and how its trajectories are written as files that
are read. `docs/equijump.md` has the lines of MDTraj.
"""

import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from common.commands.reading import DAMAGE

_LINES = "docs/equijump.md (Other data sets) has the lines of MDTraj that do so"
_MDCATH = (
    "an HDF5 file of mdCATH: coordinates in Å under /domain/temperature/replica, "
    "names of atoms in its text pdbProteinAtoms; write each replica as XTC with a PDB, "
    f"frames of 1000 ps; {_LINES}"
)
_MISATO = (
    "an HDF5 file of MISATO, which has no names of atoms: take topologies from its "
    f"authors' archive and write XTC with a PDB; {_LINES}"
)
_TIMEWARP = (
    "an archive of Timewarp: positions in nm, atoms in the PDB named -state0, steps "
    "that are not even; write frames at one distance of `step` as XTC with that PDB; "
    f"{_LINES}"
)
_MDGEN = (
    "an array of MDGen: 14 atoms of each residue in Å, no times (its name has them); "
    "train on the XTC and PDB that it was made from, or write XTC and PDB from the "
    f"array; {_LINES}"
)
_BIOEMU = (
    "samples of BioEmu: backbones without order in time; take the topology.pdb and "
    "samples.xtc that BioEmu writes beside them, for --trajectory of evaluate"
)


def describe(path: Path) -> str | None:
    """Returns what a container of arrays or of files is, None where it is none.

    Args:
        path: file whose name ends in .npz, .npy, .zip or .tar.
    """
    suffix = path.suffix.lower()
    try:
        if suffix == ".npy":
            return _array(path)
        if suffix in (".npz", ".zip"):
            with zipfile.ZipFile(path) as archive:
                names = archive.namelist()
            return _archive(names) if suffix == ".npz" else _files(names)
    except DAMAGE:
        return f"a damaged {suffix} file"
    if suffix in (".tar", ".tgz") or path.name.lower().endswith(".tar.gz"):
        return "an archive of files; unpack it, and give what is in it"
    return None


def describe_names(names: Sequence[str]) -> str | None:
    """Returns what an HDF5 file is, by the names inside it; None if unknown.

    >>> describe_names(["layout=mdcath-only-protein-v1.0", "1abcA00"])[:25]
    'an HDF5 file of mdCATH: c'
    """
    text = " ".join(names)
    if "layout=mdcath" in text or "pdbProteinAtoms" in names:
        return _MDCATH
    if "trajectory_coordinates" in names:
        return _MISATO
    return None


def _array(path: Path) -> str:
    shape = np.load(path, mmap_mode="r", allow_pickle=False).shape
    if len(shape) == 4 and shape[2:] == (14, 3):
        return _MDGEN
    return f"an array of shape {shape} without names of atoms; {_LINES}"


def _archive(members: Sequence[str]) -> str:
    names = {name.removesuffix(".npy") for name in members}
    if {"positions", "step"} <= names:
        return _TIMEWARP
    if {"pos", "node_orientations"} <= names:
        return _BIOEMU
    listed = ", ".join(sorted(names)[:5])
    return f"arrays {listed} without names of atoms; {_LINES}"


def _files(names: Sequence[str]) -> str:
    found = [name for name in names if name.lower().endswith((".xtc", ".trr", ".dcd"))]
    if not found:
        return "an archive without trajectories"
    whose = "an archive of ATLAS" if any("_R1" in n for n in found) else "an archive"
    return (
        f"{whose} with {len(found)} trajectories; unpack it, and give the XTC files "
        "with their PDB"
    )
