"""Files of structures, topologies and trajectories, as MDTraj reads them.

Formats in text are read here, binary ones in a child process after a look at their
headers. Positions leave in Å, times in ps.
"""

import glob
import gzip
import itertools
from collections.abc import Container, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Float32, Float64

from common.errors import RunError, UsageError
from equijump.data import child, foreign, headers

ANGSTROM_PER_NM = 10.0
CHUNK = 20_000
"""Frames in memory at once, at most."""

MOST_NUMBERS = 6_000_000
"""Coordinates in memory at once, at most."""

WITHOUT_TIMES = frozenset((".dcd", ".pdb", ".pdb.gz", ".mdcrd", ".crd", ".cif", ".xyz"))
_HDF5 = frozenset((".h5", ".lh5", ".hdf5"))
TOPOLOGIES = (
    ".pdb", ".gro", ".prmtop", ".parm7", ".prm7", ".psf", ".pdb.gz", ".cif", ".mol2",
    ".cif.gz",
)  # fmt: skip
"""Formats of topologies beside a trajectory; the first that is there is taken."""

_WITH_TOPOLOGY = frozenset((
    *_HDF5, ".pdb", ".pdb.gz", ".gro", ".cif", ".cif.gz", ".pdbx", ".mmcif",
))  # fmt: skip
_TEXT = frozenset((*_WITH_TOPOLOGY, ".xyz", ".xyz.gz", ".mdcrd", ".crd")) - _HDF5
_WITHOUT_POSITIONS = frozenset((".prmtop", ".parm7", ".prm7", ".psf"))
_SEQUENCES = frozenset((".fa", ".fasta", ".faa", ".seq"))
_TRAJECTORIES = frozenset((
    ".xtc", ".trr", ".dcd", ".nc", ".netcdf", ".ncdf", ".ncrst", ".binpos", ".mdcrd",
    ".crd", ".rst7", ".restrt", ".inpcrd", ".xyz", ".xyz.gz", ".lammpstrj", ".dtr",
    ".stk", ".arc", ".hoomdxml", ".tng", ".gsd",
))  # fmt: skip
"""Formats of positions that need a topology beside them."""

_GZIP = b"\x1f\x8b"
_PACKED = frozenset((
    ".pdb.gz", ".gro.gz", ".cif.gz", ".xyz.gz", ".pdbx.gz", ".mmcif.gz",
))  # fmt: skip
_UNREAD = ("no loader for filename", "format is not supported", "argument 'n_frames'")
"""Words of MDTraj at a format of which it reads nothing, or no frames in turn."""

_ANEW = "write it anew, e.g. by gmx trjconv or mdconvert from its source"


class Frames(NamedTuple):
    """Some frames of a file, with all of its atoms.

    Attributes:
        positions: positions in Å.
        times: times in ps.
        boxes: edges of the periodic box as rows, in Å; None where there is none.
    """

    positions: Float32[np.ndarray, "num_frames num_atoms 3"]
    times: Float64[np.ndarray, " num_frames"]
    boxes: Float[np.ndarray, "num_frames 3 3"] | None


def suffix_of(path: Path) -> str:
    """Returns the end of a file's name that tells its format.

    >>> suffix_of(Path("run.PDB.gz"))
    '.pdb.gz'
    """
    end = path.suffix.lower()
    return Path(path.stem).suffix.lower() + end if end == ".gz" else end


def has_topology(path: Path) -> bool:
    """Returns whether the format of a file names its atoms."""
    return suffix_of(path) in _WITH_TOPOLOGY


def find_topology(flag: str, path: Path, names: Container[str] | None = None) -> Path:
    """Returns the file that holds the topology of a trajectory, by its name.

    That is the trajectory itself where its format has one; else the file of the same
    name, with or without its number at the end, in the first of `TOPOLOGIES` that is
    there; else the only such file of the folder.

    Args:
        flag: flag that names a topology, for the message of an error.
        path: trajectory.
        names: names in its folder, where they are known.

    Raises:
        UsageError: There is none, or several.
    """
    _check_container(path)
    if has_topology(path):
        return path
    for stem in (path.stem, path.stem.rpartition("_")[0]):
        for suffix in TOPOLOGIES if stem else ():
            if names is not None and f"{stem}{suffix}" not in names:
                continue
            beside = path.with_name(f"{stem}{suffix}")
            if beside.is_file():
                return beside
    if not path.is_file():
        raise UsageError(f"expected a trajectory, found no {path}")
    _check_name(path)
    others = [f for f in sorted(path.parent.iterdir()) if suffix_of(f) in TOPOLOGIES]
    if len(others) == 1:
        return others[0]
    raise UsageError(
        f"{flag}: expected the topology of {path}, found {len(others)} files of "
        f"{', '.join(TOPOLOGIES[:4])} ... in its folder and none of its name; name "
        f"one by {flag}"
    )


def _check_name(path: Path) -> None:
    """Raises `UsageError` for a file whose name tells no format that is read."""
    end = suffix_of(path)
    if end in _TRAJECTORIES:
        return
    told = f"{path}: expected a structure or a trajectory, found a name that "
    if end in _SEQUENCES:
        raise UsageError(f"{told}sequences have; give the letters by --sequence")
    if end == ".ent":
        new = path.with_suffix(".pdb").name
        raise UsageError(f"{told}ends in .ent; rename it to {new} if it is a PDB file")
    ends = f"ends in {end}" if end else "tells no format"
    raise UsageError(f"{told}{ends}; convert it to PDB or XTC, or rename it")


def matching(flag: str, pattern: str) -> list[Path]:
    """Returns the file of a name, or those of a pattern, sorted.

    A file of just this name counts before a pattern does, as `run[1].xtc`.

    Raises:
        UsageError: There is none.
    """
    if Path(pattern).is_file():
        return [Path(pattern)]
    found = sorted(path for path in map(Path, glob.glob(pattern)) if path.is_file())
    if not found:
        told = f"none at {pattern}"
        if Path(pattern).is_dir():
            told = f"the folder {pattern}; give a pattern, as {Path(pattern, '*.xtc')}"
        elif flag.startswith("config."):
            told += f"; give yours by --{flag}"
        raise UsageError(f"{flag}: expected files, found {told}")
    return found


def found(flag: str, pattern: str, suffixes: Sequence[str]) -> list[Path]:
    """Returns the files of a name or pattern, or those below a folder by their end.

    Raises:
        UsageError: There is none.
    """
    if not Path(pattern).is_dir():
        return matching(flag, pattern)
    every = sorted(Path(pattern).rglob("*"))
    below = [p for p in every if p.name.endswith(tuple(suffixes)) and p.is_file()]
    if not below:
        ends = ", ".join(suffixes)
        raise UsageError(f"{flag}: expected files *{ends} below {pattern}, found none")
    return below


def prepare(path: Path) -> None:
    """Starts what reads a trajectory, while its topology is read here."""
    if suffix_of(path) not in _TEXT:
        child.start()


def load_topology(path: Path) -> Any:
    """Returns the topology of a file, as MDTraj has it."""
    import mdtraj

    _check_container(path)
    if path.is_file() and not path.stat().st_size:
        raise UsageError(f"{path}: expected a topology, found an empty file")
    try:
        if suffix_of(path) in _HDF5:
            return _from_child(path)
        return mdtraj.load_topology(str(path))
    except (RunError, UsageError):
        raise
    except Exception as error:  # MDTraj's readers raise whatever their format does.
        raise UsageError(
            f"{path}: expected a topology that MDTraj reads, found {_short(error)}"
        ) from error


def notes_of(path: Path) -> list[str]:
    """Returns what MDTraj leaves out of a file of a topology without a word."""
    if suffix_of(path) not in (".pdb", ".pdb.gz"):
        return []
    unpack = gzip.open if suffix_of(path) == ".pdb.gz" else open
    with unpack(path, "rt", encoding="utf-8", errors="replace") as file:
        first = itertools.takewhile(lambda line: not line.startswith("ENDMDL"), file)
        count = num_alternatives([x for x in first if x.startswith(("ATOM", "HETATM"))])
    return [f"left out: {count} alternative places of atoms"] if count else []


def num_alternatives(lines: Sequence[str]) -> int:
    """Returns how many lines of a PDB file give an atom another place.

    >>> num_alternatives(["ATOM      1  CA AALA A   1", "ATOM      2  CA BALA A   1"])
    1
    """
    marked = [line[12:16] + line[17:27] for line in lines if line[16:17].strip()]
    return len(marked) - len(set(marked))


def _from_child(path: Path) -> Any:
    import mdtraj

    topology = mdtraj.Topology()
    ((answer, _),) = child.ask(path, task="topology")
    for residues in answer["chains"]:
        chain = topology.add_chain()
        for name, number, atoms in residues:
            residue = topology.add_residue(name, chain, number)
            for atom, symbol in atoms:
                known = symbol and mdtraj.element.get_by_symbol(symbol)
                topology.add_atom(atom, known, residue)
    return topology


def has_positions(path: Path) -> bool:
    """Returns whether the format of a topology holds positions, too."""
    return suffix_of(path) not in _WITHOUT_POSITIONS


def first_frames(path: Path, topology: Any, at_most: int) -> Frames:
    """Returns the first frames of a file."""
    found = list(iterate(path, topology, at_most))  # All, that the child may go on.
    if not found:
        raise UsageError(f"{path}: expected two frames or more, found 0; it is empty")
    return found[0]


def iterate(path: Path, topology: Any, at_most: int | None = None) -> Iterator[Frames]:
    """Yields a trajectory in parts of at most `CHUNK` frames.

    Args:
        path: trajectory.
        topology: its topology, of MDTraj.
        at_most: number of frames after which no part follows; all where None.

    Raises:
        UsageError: The file is damaged, or none of this topology.
    """
    _check_container(path)
    count = topology.n_atoms
    chunk = max(1, min(at_most or CHUNK, CHUNK, MOST_NUMBERS // (3 * max(count, 1))))
    headers.check(path, count)
    read = _iterate_text if suffix_of(path) in _TEXT else _iterate_child
    try:
        yield from read(path, topology, chunk, at_most)
    except (RunError, UsageError):
        raise
    except Exception as error:  # As above.
        raise UsageError(
            f"{path}: expected a trajectory of the {count} atoms of its topology, "
            f"found {_short(error)}"
        ) from error


def _iterate_child(
    path: Path, topology: Any, chunk: int, at_most: int | None
) -> Iterator[Frames]:
    task = {"task": "frames", "num_atoms": topology.n_atoms, "chunk": chunk}
    task["at_most"] = at_most
    for _, (positions, times, *boxes) in child.ask(path, **task):
        with np.errstate(over="ignore"):  # Damaged ones are told by the frame.
            scaled = [x * np.float32(ANGSTROM_PER_NM) for x in (positions, *boxes)]
        yield Frames(scaled[0], times, scaled[1] if boxes else None)


def _iterate_text(
    path: Path, topology: Any, chunk: int, at_most: int | None
) -> Iterator[Frames]:
    import mdtraj

    done = 0
    is_cif = "cif" in suffix_of(path) or "pdbx" in suffix_of(path)
    whole = lambda: iter((mdtraj.load(str(path)),))  # They are not read in parts.
    parts = lambda: mdtraj.iterload(str(path), top=topology, chunk=chunk)
    for part in whole() if is_cif else parts():
        if part.n_atoms != topology.n_atoms:
            raise ValueError(f"{part.n_atoms} atoms")
        box = part.unitcell_vectors
        yield Frames(
            part.xyz * np.float32(ANGSTROM_PER_NM),
            np.asarray(part.time, np.float64),
            None if box is None else box * np.float32(ANGSTROM_PER_NM),
        )
        done += part.n_frames
        if at_most is not None and done >= at_most:
            return


def _check_container(path: Path) -> None:
    """Raises `UsageError` for a format that is known and not read."""
    if not path.is_file():
        return
    found = foreign.describe(path) or _misnamed(path)
    if found is not None:
        raise UsageError(f"{path}: expected a structure or a trajectory, found {found}")


def _misnamed(path: Path) -> str | None:
    """Returns what the end of a file's name hides from MDTraj, None for nothing."""
    with path.open("rb") as file:
        is_packed = file.read(2) == _GZIP
    end = suffix_of(path)
    if end.endswith(".gz") and end not in _PACKED:
        return "a compressed file; unpack it by gunzip"
    if is_packed and not end.endswith(".gz"):
        return f"a compressed file; rename it to {path.name}.gz, and unpack it"
    if end.endswith(".gz") and not is_packed and path.stat().st_size:
        return f"a file that is not compressed; rename it to {path.stem}"
    if not path.name.endswith(end):
        return f"a name in capitals; rename it to {path.name[: -len(end)]}{end}"
    return None


def _short(error: BaseException) -> str:
    """Returns an error in one line; what a container is, where its names tell."""
    known = foreign.describe_names(getattr(error, "names", ()))
    text = " ".join(str(error).split())
    if any(words in text for words in _UNREAD):
        text = "a format that it does not read; convert it to XTC, e.g. by mdconvert"
    elif text.startswith("HDF5 error"):
        text = f"a file that HDF5 cannot open: damage, or another format; {_ANEW}"
    elif "All MODELs must contain" in text:
        text = "models of different atoms; keep those of the same, or the first one"
    elif isinstance(error, (AttributeError, LookupError, TypeError)):
        text = f"no atoms, damage, or another format; {_ANEW}"
    elif text.endswith("atoms"):
        text = f"{text}; give the topology of all its atoms"
    else:
        text = f"damage, or another format ({text[:160] or type(error).__name__})"
        text = f"{text}; {_ANEW}"
    return known or text
