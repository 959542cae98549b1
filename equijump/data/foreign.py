"""Containers of published data sets, known by what is in them.

MDTraj reads none of them. Of each it is said what it is, and the source of training
data that reads it, or what to give in its place.
"""

import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from common.commands.reading import DAMAGE

_LINES = "docs/data.md has lines that write XTC with a PDB from it"
_TRAINS = (
    "training reads it as {}:PATH in --config.data.sources, and equijump inspect says "
    f"what it holds; {_LINES}"
)
_MDCATH = f"an HDF5 file of mdCATH; {_TRAINS.format('mdcath')}"
_MISATO = (
    "an HDF5 file of MISATO, which has no names of atoms: take topologies from its "
    "authors' archive and write XTC with a PDB by MDTraj"
)
_TIMEWARP = f"arrays of Timewarp, at uneven times; {_TRAINS.format('timewarp')}"
_MDGEN = (
    "an array of MDGen: 14 atoms of each residue in Å, without times; "
    f"{_TRAINS.format('mdgen')}"
)
_PEPTIDES = f"a packed set of peptides; {_TRAINS.format('peptides')}"
_MADE_FROM = "give the trajectories and topologies that it was made from"
_BIOEMU = (
    "samples of BioEmu: backbones without order in time; take the topology.pdb and "
    "samples.xtc that BioEmu writes beside them, for --trajectory of evaluate"
)


_ROWS = {
    _MDCATH: "mdcath",
    _TIMEWARP: "timewarp",
    _MDGEN: "mdgen",
    _PEPTIDES: "peptides",
}


def source_of(described: str | None) -> str:
    """Returns the source that reads what `describe` has found, empty for none.

    >>> source_of(None), source_of(_MDGEN)
    ('', 'mdgen')
    """
    return _ROWS.get(described or "", "")


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
        if not path.stat().st_size:
            return "an empty file"
        return f"a damaged {suffix} file"
    if suffix in (".tar", ".tgz") or path.name.lower().endswith(".tar.gz"):
        return "an archive of files; unpack it, and give what is in it"
    return None


def describe_names(names: Sequence[str]) -> str | None:
    """Returns what an HDF5 file is, by the names inside it; None if unknown.

    >>> describe_names(["layout=mdcath-only-protein-v1.0", "1abcA00"])[:25]
    'an HDF5 file of mdCATH; t'
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
    return f"an array of shape {shape} without names of atoms; {_MADE_FROM}"


def _archive(members: Sequence[str]) -> str:
    names = {name.removesuffix(".npy") for name in members}
    if {"positions", "step"} <= names:
        return _TIMEWARP
    if "spacing_ps" in names and ({"high", "low"} <= names or "positions" in names):
        return _PEPTIDES
    if {"pos", "node_orientations"} <= names:
        return _BIOEMU
    listed = ", ".join(sorted(names)[:5])
    return f"arrays {listed} without names of atoms; {_MADE_FROM}"


def _files(names: Sequence[str]) -> str:
    found = [name for name in names if name.lower().endswith((".xtc", ".trr", ".dcd"))]
    if not found:
        return "an archive without trajectories"
    whose = "an archive of ATLAS" if any("_R1" in n for n in found) else "an archive"
    return (
        f"{whose} with {len(found)} trajectories; unpack it, and give the XTC files "
        "with their PDB"
    )
