"""Molecules as packed arrays, and the screening of records that cannot be used.

Positions are in Å. Atoms of all molecules lie one after another; `offsets` divides
them. Nothing here reads a file, and nothing here needs RDKit.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from absl import logging
from jaxtyping import Bool, Float, Float32, Int8, Int32, Int64, Integer, Shaped, UInt8

from common.errors import UsageError
from symphony.arrays import AtomicNumbers
from symphony.data.elements import SYMBOLS

MIN_DISTANCE = 0.1  # Å; two atoms nearer than this are taken for one written twice
MAX_BAD_FRACTION = 0.05
MAX_NAME_LENGTH = 80  # of an SDF title, by its specification
_NAMES_SHOWN = 5
_PAIRS_PER_CHUNK = 2_000_000  # bounds the memory of the search for coincident atoms


Properties = Mapping[str, Float32[np.ndarray, " num_molecules"]]


class Molecules(NamedTuple):
    """Molecules of different sizes in flat arrays.

    Attributes:
        num_atoms: atoms of each molecule.
        offsets: offsets of the atoms; molecule `m` owns `offsets[m]:offsets[m + 1]`.
        atomic_numbers: nuclear charge of each atom; 0 for a symbol of no element.
        positions: positions of the atoms, in Å.
        names: name of each molecule in its file, as text.
        properties: for each condition that was asked for, a number per molecule, in
            the unit of its row of `CONDITIONS`; NaN where unknown.
    """

    num_atoms: Int32[np.ndarray, " num_molecules"]
    offsets: Int64[np.ndarray, " num_molecules+1"]
    atomic_numbers: UInt8[np.ndarray, " total_atoms"]
    positions: Float32[np.ndarray, "total_atoms 3"]
    names: Shaped[np.ndarray, " num_molecules"]
    properties: Properties


class Records(NamedTuple):
    """Molecules of a file, before any screening.

    Attributes:
        molecules: records that could be parsed.
        split: 0 training, 1 validation, 2 test; None where the file has no split.
        unreadable: names of the records that could not be parsed.
    """

    molecules: Molecules
    split: Int8[np.ndarray, " num_molecules"] | None
    unreadable: tuple[str, ...]


class SkipReport(NamedTuple):
    """Records left out of a data set.

    Attributes:
        num_records: records looked at, good and bad.
        skipped: names of the records left out, by the reason.
    """

    num_records: int
    skipped: dict[str, tuple[str, ...]]


def make_molecules(
    num_atoms: Integer[np.ndarray, " num_molecules"],
    atomic_numbers: Integer[np.ndarray, " total_atoms"],
    positions: Float[np.ndarray, "total_atoms 3"],
    names: Shaped[np.ndarray, " num_molecules"] | Sequence[str] | None = None,
    properties: Mapping[str, Any] | None = None,
) -> Molecules:
    """Returns the packed form, with every array in its own type.

    Args:
        num_atoms: atoms of each molecule.
        atomic_numbers: nuclear charges from 0 (no element) to 118.
        positions: positions of the atoms, in Å.
        names: names of the molecules; their indices where None.
        properties: properties of the molecules, see `Molecules`; none where None.
    """
    offsets = np.zeros(len(num_atoms) + 1, np.int64)
    np.cumsum(num_atoms, out=offsets[1:])
    if names is None:
        names = np.arange(len(num_atoms)).astype(str)
    names = np.asarray(names)
    if len(names) == 0:
        names = np.zeros(0, "U1")
    return Molecules(
        num_atoms=np.asarray(num_atoms, np.int32),
        offsets=offsets,
        atomic_numbers=np.asarray(atomic_numbers, np.uint8),
        positions=np.asarray(positions, np.float32),
        names=names,
        properties={
            name: np.asarray(values, np.float32)
            for name, values in (properties or {}).items()
        },
    )


def select(
    molecules: Molecules,
    chosen: Bool[np.ndarray, " num_molecules"] | Integer[np.ndarray, " num_chosen"],
) -> Molecules:
    """Returns the chosen molecules, in the order of `chosen` (a mask or indices)."""
    if chosen.dtype == bool:
        chosen = np.flatnonzero(chosen)
    num_atoms = molecules.num_atoms[chosen]
    ends = np.cumsum(num_atoms, dtype=np.int64)
    starts = molecules.offsets[:-1][chosen]
    atoms = np.arange(num_atoms.sum(dtype=np.int64))
    atoms += np.repeat(starts - (ends - num_atoms), num_atoms)
    return make_molecules(
        num_atoms,
        molecules.atomic_numbers[atoms],
        molecules.positions[atoms],
        molecules.names[chosen],
        {name: values[chosen] for name, values in molecules.properties.items()},
    )


def concatenate(parts: Sequence[Molecules]) -> Molecules:
    """Returns the molecules of all parts, one part after another."""
    return make_molecules(
        np.concatenate([part.num_atoms for part in parts]),
        np.concatenate([part.atomic_numbers for part in parts]),
        np.concatenate([part.positions for part in parts]),
        np.concatenate([part.names for part in parts]),
        {
            name: np.concatenate([part.properties[name] for part in parts])
            for name in parts[0].properties
        },
    )


def checksum(molecules: Molecules) -> str:
    """Returns the SHA-256, in hexadecimal, of sizes, elements, positions, properties.

    Names do not enter: a data set renamed trains the same model.
    """
    digest = hashlib.sha256()
    for array, kind in (
        (molecules.num_atoms, "<i4"),
        (molecules.atomic_numbers, "u1"),
        (molecules.positions, "<f4"),
        *((values, "<f4") for _, values in sorted(molecules.properties.items())),
    ):
        digest.update(np.ascontiguousarray(array, dtype=kind).data)
    return digest.hexdigest()


def _unknown(species_table: tuple[int, ...], atomic_numbers: AtomicNumbers) -> str:
    """Returns the reason to refuse a molecule that has one of these elements."""

    def names(numbers: Iterable[int]) -> str:
        return ", ".join("?" if n == 0 else SYMBOLS[n - 1] for n in numbers)

    elements = np.unique(atomic_numbers[atomic_numbers <= len(SYMBOLS)]).tolist()
    expected = names(species_table) if len(species_table) < 20 else "the periodic table"
    examples = f", such as {names(elements[:6])}" if elements else ""
    return f"an element outside {expected}{examples}"


def choose_molecules(molecules: Molecules, count: int) -> Molecules:
    """Draws that many molecules without replacement, always the same ones.

    The first ones would not do: QM9 is ordered by size.
    """
    total = len(molecules.num_atoms)
    if count >= total:
        return molecules
    chosen = np.random.default_rng(0).choice(total, count, replace=False)
    return select(molecules, np.sort(chosen))


def to_species(
    atomic_numbers: Integer[np.ndarray, " *shape"], species_table: tuple[int, ...]
) -> Int32[np.ndarray, " *shape"]:
    """Returns the index of each atom in the species table, -1 where it has none.

    >>> to_species(np.array([6, 1, 92]), (1, 6, 7))
    array([ 1,  0, -1], dtype=int32)
    """
    lookup = np.full(256, -1, np.int32)
    lookup[list(species_table)] = np.arange(len(species_table))
    return lookup[atomic_numbers]


def _any_of_molecule(
    molecules: Molecules, atom_mask: Bool[np.ndarray, " total_atoms"]
) -> Bool[np.ndarray, " num_molecules"]:
    count = np.concatenate([[0], np.cumsum(atom_mask, dtype=np.int64)])
    return count[molecules.offsets[1:]] > count[molecules.offsets[:-1]]


def _squared_distances(
    molecules: Molecules,
) -> Iterator[
    tuple[
        Int64[np.ndarray, " rows"],
        Int64[np.ndarray, "rows size"],
        Float32[np.ndarray, "rows size size"],
    ]
]:
    """Yields molecules of one size: their indices, their atoms, and Å² of all pairs."""
    for size in np.unique(molecules.num_atoms):
        if size == 0:
            continue
        same_size = np.flatnonzero(molecules.num_atoms == size)
        chunk = max(1, _PAIRS_PER_CHUNK // int(size) ** 2)
        for begin in range(0, len(same_size), chunk):
            rows = same_size[begin : begin + chunk]
            atoms = molecules.offsets[rows][:, None] + np.arange(size)
            squared = np.zeros((len(rows), size, size), np.float32)
            for axis in range(3):
                along = molecules.positions[atoms, axis]
                with np.errstate(invalid="ignore", over="ignore"):
                    squared += np.square(along[:, :, None] - along[:, None])
            yield rows, atoms, squared


def coincident(
    molecules: Molecules, distance: float = MIN_DISTANCE
) -> Bool[np.ndarray, " num_molecules"]:
    """Returns which molecules have two atoms less than a distance (Å) apart."""
    is_coincident = np.zeros(len(molecules.num_atoms), bool)
    for rows, atoms, squared in _squared_distances(molecules):
        near = np.sum(squared < distance**2, axis=(1, 2))
        is_coincident[rows] = near > atoms.shape[1]
    return is_coincident


def unreachable(
    molecules: Molecules, low: float, high: float, heavy_first: bool
) -> Bool[np.ndarray, " num_molecules"]:
    """Returns which molecules steps of `low` to `high` Å cannot build in every order.

    No nearest neighbour is further than the longest edge of the shortest tree that
    spans the molecule, so it suffices that atoms within `high` hang together: the heavy
    atoms among themselves where they come first, then all.
    """
    is_unreachable = coincident(molecules, low)
    for rows, atoms, squared in _squared_distances(molecules):
        near = squared <= high**2
        size = atoms.shape[1]
        heavy = molecules.atomic_numbers[atoms] > 1
        reached = np.arange(size) == np.argmax(heavy, axis=1)[:, None]
        for allowed in (heavy, np.ones_like(heavy)) if heavy_first else (True,):
            # A walk over n atoms has at most n - 1 steps.
            for _ in range(size):
                before = reached.sum()
                reached |= (near & reached[:, None]).any(axis=2) & allowed
                if reached.sum() == before:
                    break
            is_unreachable[rows] |= np.any(~reached & allowed, axis=1)
    return is_unreachable


def faults(
    molecules: Molecules, species_table: tuple[int, ...], max_atoms: int
) -> dict[str, Bool[np.ndarray, " num_molecules"]]:
    """Returns for each reason to refuse a molecule which molecules it concerns.

    A molecule is counted once, for the first reason that holds.
    """
    finite = np.isfinite(molecules.positions).all(axis=1)
    known = to_species(molecules.atomic_numbers, species_table) >= 0
    reasons = {
        "no atoms": molecules.num_atoms == 0,
        f"more than {max_atoms} atoms": molecules.num_atoms > max_atoms,
        "a position that is not finite": _any_of_molecule(molecules, ~finite),
        _unknown(species_table, molecules.atomic_numbers[~known]): _any_of_molecule(
            molecules, ~known
        ),
    }
    refused = np.any(list(reasons.values()), axis=0)
    together = np.zeros(len(refused), bool)
    together[~refused] = coincident(select(molecules, ~refused))
    reasons[f"atoms less than {MIN_DISTANCE} Å apart"] = together
    seen = np.zeros(len(refused), bool)
    for reason, concerned in reasons.items():
        reasons[reason] = concerned & ~seen
        seen |= concerned
    return reasons


def describe(report: SkipReport) -> str:
    """Returns one line: how many records were skipped, why, and the first of them."""
    parts = []
    for reason, names in report.skipped.items():
        shown = ", ".join(names[:_NAMES_SHOWN])
        more = ", ..." if len(names) > _NAMES_SHOWN else ""
        parts.append(f"{len(names)} with {reason} ({shown}{more})")
    total = sum(map(len, report.skipped.values()))
    head = f"skipped {total} of {report.num_records} records"
    return f"{head}: {'; '.join(parts)}" if parts else head


def screen(
    records: Records,
    species_table: tuple[int, ...],
    max_atoms: int,
    source: str,
    strict: bool,
) -> tuple[Records, SkipReport]:
    """Returns the records that can be used, and a report on the others.

    Args:
        records: records that a reader found.
        species_table: atomic numbers that the model knows.
        max_atoms: size of the largest bucket.
        source: name of the file, for messages.
        strict: true to make one bad record an error, for molecules that a user wants
            scored or completed.

    Raises:
        UsageError: No record is left, more than 5 % are bad, or one is and `strict`.
    """
    skipped = {}
    if records.unreadable:
        skipped["a form that cannot be parsed"] = records.unreadable
    good = np.ones(len(records.molecules.num_atoms), bool)
    for reason, bad in faults(records.molecules, species_table, max_atoms).items():
        if bad.any():
            skipped[reason] = tuple(records.molecules.names[bad].tolist())
            good &= ~bad
    report = SkipReport(len(good) + len(records.unreadable), skipped)
    _check_share(report, int(good.sum()), source, strict)
    if skipped:
        logging.warning("%s: %s", source, describe(report))
        split = None if records.split is None else records.split[good]
        records = Records(select(records.molecules, good), split, ())
    return records, report


def _check_share(report: SkipReport, num_good: int, source: str, strict: bool) -> None:
    """Raises `UsageError` where too many records are bad; see `screen`."""
    num_bad = report.num_records - num_good
    line = f"{source}: {describe(report)}"
    if num_bad and strict:
        shown = line.replace("skipped", "cannot use")
        raise UsageError(f"{shown}; each molecule must be usable here")
    if num_bad > MAX_BAD_FRACTION * report.num_records:
        raise UsageError(f"{line}; at most {MAX_BAD_FRACTION:.0%} may be bad")
    if not num_good:
        raise UsageError(f"{source}: expected at least one molecule, found none")
