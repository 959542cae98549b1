"""Molecules from a file of any supported form, screened, by the file's name.

Every error that a file can cause is a `UsageError` of one line with its path.
"""

import io
import zipfile
import zlib
from pathlib import Path

import numpy as np
from absl import logging
from jaxtyping import Int8

from common.errors import UsageError
from symphony.data import qm9
from symphony.data.cache import parsed_once
from symphony.data.molecules import (
    Molecules,
    Records,
    SkipReport,
    screen,
    select,
)
from symphony.data.npz import read_npz
from symphony.data.sdf import read_sdf
from symphony.data.solids import platonic_solids, tetris
from symphony.data.xyz import read_xyz

SPLITS = ("train", "validation", "test")
EXCLUDED_NAME = "uncharacterized.txt"
SMALL_SET = 20  # molecules; a set below this is not divided
_FORMS = ".sdf, .mol, .xyz, .extxyz, .npz, dsgdb9nsd.xyz.tar.bz2, a .zip with gdb9.sdf"
PARSE_ERRORS = (ValueError, TypeError, IndexError, KeyError, OverflowError)
"""What the readers raise at contents that are nothing like what they expect."""

_MADE = {"platonic-solids": platonic_solids, "tetris": tetris}
_PACKAGED = {
    "qm9-sample": qm9.PACKAGED / "qm9_sample.npz",
    "ethanol": qm9.PACKAGED / "ethanol.xyz",
}

_DOWNLOADED = {"qm9": True, "qm9-moleculenet": False}


def _excluded_beside(path: Path) -> np.ndarray:
    """Returns the uncharacterized molecules by the table beside the data, or by ours.

    The two agree where the table is the published one.
    """
    table = path.parent / EXCLUDED_NAME
    return qm9.read_excluded(table) if table.is_file() else qm9.packaged_excluded()


def _read_zip(path: Path) -> Records:
    try:
        with zipfile.ZipFile(path) as archive:
            members = {Path(name).name: name for name in archive.namelist()}
            if "gdb9.sdf" not in members:
                found = ", ".join(sorted(members)[:5]) or "nothing"
                raise UsageError(f"{path}: expected gdb9.sdf inside, found {found}")
            table = None
            if "gdb9.sdf.csv" in members:
                table = archive.read(members["gdb9.sdf.csv"])
            with archive.open(members["gdb9.sdf"]) as file:
                return qm9.read_gdb9_sdf(file, table, str(path))
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise UsageError(
            f"{path}: expected a whole zip archive, found it damaged ({error})"
        ) from error


def _check_not_flat(path: Path, molecules: Molecules) -> None:
    """Raises `UsageError` for an SDF of drawings: its records say 2D, and z is 0."""
    if path.suffix.lower() not in (".sdf", ".mol") or np.any(molecules.positions[:, 2]):
        return
    second = path.read_bytes()[:1000].split(b"\n")[1:2]
    if second and second[0][20:22] == b"2D":
        raise UsageError(
            f"{path}: expected positions in three dimensions, found a drawing (2D)"
        )


def _read_gdb9(path: Path) -> Records:
    table = path.with_name(path.name + ".csv")
    with path.open("rb") as file:
        contents = table.read_bytes() if table.is_file() else None
        return qm9.read_gdb9_sdf(file, contents, str(path))


def _is_qm9(path: Path) -> bool:
    return (
        path.name == "gdb9.sdf"
        or path.name.endswith(".tar.bz2")
        or path.suffix.lower() == ".zip"
    )


def _read_official(path: Path, strict: bool) -> Records:
    if path.suffix.lower() == ".zip":
        records = _read_zip(path)
    elif path.suffix.lower() == ".sdf":
        records = _read_gdb9(path)
    else:
        records = parsed_once(path, qm9.read_dsgdb9nsd)
    if strict:
        return records
    index = qm9.gdb_index_of(records.molecules.names, str(path))
    return qm9.apply_conventions(records, index, _excluded_beside(path))


def _read_file(path: Path, strict: bool) -> Records:
    suffix = path.suffix.lower()
    if not path.is_file():
        known = ", ".join([*_PACKAGED, *_DOWNLOADED, *_MADE])
        raise UsageError(
            f"{path}: expected a file of molecules (or one of {known}), found "
            f"{'a folder' if path.is_dir() else 'nothing'} there"
        )
    if _is_qm9(path):
        return _read_official(path, strict)
    if suffix == ".npz":
        return read_npz(path)
    if suffix not in (".sdf", ".mol", ".xyz", ".extxyz"):
        raise UsageError(f"{path}: expected one of {_FORMS}; found {suffix!r}")
    reader = read_sdf if suffix in (".sdf", ".mol") else read_xyz
    with path.open("rb") as file:
        return reader(io.BufferedReader(file), str(path))


def locate(path: str | Path) -> Path:
    """Returns the file of a data set known by name, else the path itself."""
    if str(path) in _DOWNLOADED:
        # Imported here: the network is of no use to those who have the file.
        from symphony.download import fetch_qm9

        return fetch_qm9(from_figshare=_DOWNLOADED[str(path)])
    return _PACKAGED.get(str(path), Path(path))


def _divide(num_molecules: int) -> Int8[np.ndarray, " num_molecules"]:
    """Returns 0, 1 or 2 for four fifths, a tenth and a tenth, drawn with one seed."""
    order = np.random.default_rng(0).permutation(num_molecules)
    split = np.zeros(num_molecules, np.int8)
    tenth = num_molecules // 10
    split[order[:tenth]] = 1
    split[order[tenth : 2 * tenth]] = 2
    return split


def _choose_split(records: Records, split: str, source: str) -> Molecules:
    if split not in SPLITS:
        raise UsageError(f"expected a split of {', '.join(SPLITS)}; found {split!r}")
    molecules = records.molecules
    num_molecules = len(molecules.num_atoms)
    of_molecule = records.split
    if of_molecule is None and num_molecules < SMALL_SET:
        logging.info("%s: not divided, %s is the whole of it", source, split)
        return molecules
    if of_molecule is None:
        of_molecule = _divide(num_molecules)
    chosen = of_molecule == SPLITS.index(split)
    if not chosen.any():
        raise UsageError(f"{source}: expected molecules of split {split}, found none")
    return select(molecules, chosen)


def read_molecules(
    path: str | Path,
    species_table: tuple[int, ...],
    max_atoms: int,
    strict: bool = False,
    split: str | None = None,
) -> tuple[Molecules, SkipReport]:
    """Reads molecules, leaves out those that cannot be used, and says which.

    Args:
        path: A file, by its extension; or `qm9-sample`, `platonic-solids`, `tetris`;
            or `qm9`, `qm9-moleculenet`, downloaded at first use.
        species_table: Atomic numbers that the model knows.
        max_atoms: The size of the largest bucket.
        strict: Whether any bad record is an error, and nothing is left out (of QM9
            neither): for molecules to score or complete.
        split: `train`, `validation` or `test`; all of it where None. The file's own
            split, for the official files of QM9 that of EDM; a file without one is
            divided 80 : 10 : 10 at random, always alike, and below 20 molecules not
            at all: each split is then the whole.

    Raises:
        UsageError: The file is missing, of no known form or truncated; more than 5 %
            of its records are bad; no molecule is left; or `strict` and one is bad.
    """
    source = str(path)
    try:
        if source in _MADE:
            records = Records(_MADE[source](), None, ())
        else:
            records = _read_file(locate(path), strict)
    except OSError as error:
        raise UsageError(f"{source}: cannot be read ({error.strerror})") from error
    except PARSE_ERRORS as error:
        raise UsageError(
            f"{source}: expected molecules in one of {_FORMS}, found a file that "
            f"cannot be parsed ({type(error).__name__}: {error})"
        ) from error
    if strict and records.split is None:
        _check_not_flat(Path(source), records.molecules)
    records, report = screen(records, species_table, max_atoms, source, strict)
    molecules = records.molecules
    if split is not None:
        molecules = _choose_split(records, split, source)
    return molecules, report
