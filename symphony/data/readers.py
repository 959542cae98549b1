"""Molecules from a file of any supported form, screened, by the file's name.

Every error that a file can cause is a `UsageError` of one line with its path.
"""

import gzip
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from absl import logging
from jaxtyping import Int8

from common.commands.reading import DAMAGE, line_of
from common.errors import UsageError
from common.nn.conditions import CONDITIONS
from symphony.data.labels import read_labels
from symphony.data.molecules import (
    Molecules,
    Records,
    SkipReport,
    find_conformers,
    ids_of,
    select,
)
from symphony.data.npz import read_npz
from symphony.data.opening import check_form, how_to_convert, open_bytes
from symphony.data.plausibility import HYDROGEN, warn_without_hydrogens
from symphony.data.screening import describe, screen
from symphony.data.sdf import read_sdf
from symphony.data.sources import SOURCES, Source, locate, qm9, qm9_files
from symphony.data.xyz import read_xyz

SPLITS = ("train", "validation", "test")
SMALL_SET = 20  # molecules; a set below this is not divided
_NAMES = (
    ".sdf, .mol, .xyz, .extxyz (each also with .gz), .npz, dsgdb9nsd.xyz.tar.bz2, a "
    ".zip with gdb9.sdf"
)


def _opened(read: Callable[..., Records]) -> Callable[..., Records]:
    def opened(path: Path, properties: Sequence[str]) -> Records:
        try:
            with open_bytes(path) as file:
                records = read(file, str(path), properties)
        except UsageError:
            check_form(path, suffix_of(path))
            raise
        if not len(records.molecules.num_atoms):
            check_form(path, suffix_of(path))
        return records

    return opened


def suffix_of(path: Path) -> str:
    """Returns the ending that tells the form of a file, in small letters.

    >>> suffix_of(Path("set.SDF.gz"))
    '.sdf'
    """
    is_packed = path.suffix.lower() == ".gz"
    return (path.with_suffix("") if is_packed else path).suffix.lower()


def _ends(*suffixes: str) -> Callable[[Path], bool]:
    return lambda path: suffix_of(path) in suffixes


class Form(NamedTuple):
    """A form of file.

    Attributes:
        matches: test of a path, by its name.
        read: function `(path, names of properties) -> Records`.
        curate: function `(records, path) -> Records` that leaves out and splits by the
            conventions of a published data set.
    """

    matches: Callable[[Path], bool]
    read: Callable[..., Records]
    curate: Callable[[Records, Path], Records] | None = None


PLAIN_FORMS = (
    Form(lambda path: path.suffix.lower() == ".npz", read_npz),
    Form(_ends(".sdf", ".mol"), _opened(read_sdf)),
    Form(_ends(".xyz", ".extxyz"), _opened(read_xyz)),
)
FORMS = (Form(qm9_files.is_official, qm9_files.read_official, qm9.curate), *PLAIN_FORMS)


def read_file(
    path: Path,
    properties: Sequence[str] = (),
    forms: Sequence[Form] = FORMS,
    names: str = _NAMES,
    strict: bool = False,
) -> Records:
    """Reads a file of one of several forms.

    Args:
        path: file of molecules.
        properties: names of the properties to read.
        forms: forms of file that may be read.
        names: names of the forms, for messages.
        strict: true to keep records that the conventions of a data set leave out.

    Raises:
        UsageError: The file is missing, of another form, or cannot be read or parsed.
    """
    form = next((form for form in forms if form.matches(path)), None)
    _check_is_file(path, forms is FORMS)
    if form is None:
        found = f"found {path.suffix!r}{how_to_convert(path)}"
        raise UsageError(f"{path}: expected one of {names}; {found}")
    try:
        records = form.read(path, properties)
        curated = form.curate is not None and not strict
        return form.curate(records, path) if curated else records
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UsageError(
            f"{path}: expected a whole file of gzip, found it damaged "
            f"({line_of(error)})"
        ) from error
    except DAMAGE as error:
        raise UsageError(
            f"{path}: expected molecules in one of {names}, found a file that cannot "
            f"be read ({line_of(error)})"
        ) from error


def _check_is_file(path: Path, any_form: bool) -> None:
    """Raises `UsageError` where there is no file that can be read."""
    if path.is_file():
        return
    known = f" (or one of {', '.join(SOURCES)})" if any_form else ""
    there = "something else" if path.exists() else "nothing"
    found = "a folder" if path.is_dir() else there
    raise UsageError(
        f"{path}: expected a file of molecules{known}, found {found} there"
    )


def _check_properties(
    molecules: Molecules, properties: Sequence[str], source: str
) -> None:
    """Raises `UsageError` for a property out of its range; warns of one of no molecule.

    A number in another unit is mostly out of range.
    """
    for name in properties:
        row, values = CONDITIONS[name], molecules.properties[name]
        bad = (values < row.low) | (values > row.high)
        if bad.any():
            worst = int(np.argmax(bad))
            raise UsageError(
                f"{source}: expected {name} of {row.low:g} to {row.high:g} {row.unit}, "
                f"found {values[worst]:g} (molecule {molecules.names[worst]})"
            )
        if np.isnan(values).all():
            logging.warning("%s: no molecule has the property %s", source, name)


def _with_charges(molecules: Molecules, source: str) -> Molecules:
    """Takes molecules whose charge a file does not state for neutral."""
    stated = molecules.properties["charge"]
    unknown = np.isnan(stated)
    if unknown.any() and not unknown.all():
        logging.info(
            "%s: no charge is stated of %d molecules, which count as neutral",
            source, unknown.sum(),
        )  # fmt: skip
    charges = np.where(unknown, np.float32(0.0), stated)
    return molecules._replace(properties={**molecules.properties, "charge": charges})


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
    split_of = records.split
    if split_of is None and num_molecules < SMALL_SET:
        logging.info("%s: not divided, %s is the whole of it", source, split)
        return molecules
    if split_of is None:
        _, first, ids = np.unique(
            ids_of(molecules), return_index=True, return_inverse=True
        )
        split_of = _divide(len(first))[ids]
    chosen = split_of == SPLITS.index(split)
    if not chosen.any():
        raise UsageError(f"{source}: expected molecules of split {split}, found none")
    return select(molecules, chosen)


def _tell(report: SkipReport, notes: Sequence[str], source: str) -> None:
    """Warns of what a file has and is not used."""
    if report.skipped:
        logging.warning("%s: %s", source, describe(report))
    for note in notes:
        logging.warning("%s: %s", source, note)


def read_molecules(
    path: str | Path,
    species_table: tuple[int, ...],
    max_atoms: int,
    strict: bool = False,
    split: str | None = None,
    properties: Sequence[str] = (),
    part: bool = False,
    columns: Sequence[str] = (),
    labels: tuple[Sequence[str], Sequence[str]] = ((), ()),
) -> tuple[Molecules, SkipReport]:
    """Reads molecules, leaves out those that cannot be used, and says which.

    Args:
        path: path of a file, by its extension, or the name of a row of `SOURCES`.
        species_table: atomic numbers that the model knows.
        max_atoms: size of the largest bucket.
        strict: true to make any bad record an error and to leave nothing out (of QM9
            neither), for molecules to score or complete.
        split: `train`, `validation` or `test`; all of it where None. The file's own
            split, for the official files of QM9 that of EDM; a file without one is
            divided 80 : 10 : 10 at random, always alike, and below 20 molecules not
            at all: each split is then the whole.
        properties: rows of `CONDITIONS` to read: arrays of an NPZ file, data fields of
            an SDF, `name=value` in the comments of an extended XYZ file, QM9's own.
        part: true for molecules that are not whole, whose hydrogens may be missing.
        columns: further numeric columns to read from the same places, in any unit.
        labels: names of the numbers of molecules and of the vectors of atoms that a
            network is to foresee, see `labels.read_labels`.

    Raises:
        UsageError: The file is missing, of no known form or truncated; more than 5 %
            of its records are bad; no molecule is left; or `strict` and one is bad.
    """
    source = str(path)
    named = SOURCES.get(source, Source())
    if named.make is not None:
        molecules = named.make()
        unknown = np.full(len(molecules.num_atoms), np.nan, np.float32)
        names = (*properties, *columns)
        molecules = molecules._replace(properties=dict.fromkeys(names, unknown))
        records = Records(molecules, None, ())
    else:
        records = read_file(locate(path), (*properties, *columns), strict=strict)
        if any(labels):
            found = read_labels(locate(path), records.molecules, *labels)
            records = records._replace(
                molecules=records.molecules._replace(labels=found)
            )
    notes = records.notes
    records = records._replace(molecules=find_conformers(records.molecules))
    records, report = screen(records, species_table, max_atoms, source, strict)
    molecules = records.molecules
    if "charge" in properties:
        molecules = _with_charges(molecules, source)
        records = records._replace(molecules=molecules)
    _check_properties(molecules, properties, source)
    # Who reads the parts of a file one after another is told once.
    if split in (None, SPLITS[0]):
        _tell(report, notes, source)
        if HYDROGEN in species_table and not part:
            warn_without_hydrogens(molecules, source)
    if split is not None:
        molecules = _choose_split(records, split, source)
    return molecules, report
