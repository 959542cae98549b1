"""Molecules as packed arrays.

Positions are in Å. Atoms of all molecules lie one after another; `offsets` divides
them. Nothing here reads a file, and nothing here needs RDKit.
"""

import hashlib
import itertools
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import (
    Bool,
    Float,
    Float32,
    Float64,
    Int8,
    Int32,
    Int64,
    Integer,
    Shaped,
    UInt8,
)

Properties = Mapping[str, Float32[np.ndarray, " num_molecules"]]


class Labels(NamedTuple):
    """Numbers that a network is to foresee, by name, in the units of their file.

    Attributes:
        of_molecules: one for each molecule, NaN where unknown; in double precision,
            since total energies are large and their differences small.
        of_atoms: three for each atom, as forces.
    """

    of_molecules: Mapping[str, Float64[np.ndarray, " num_molecules"]]
    of_atoms: Mapping[str, Float32[np.ndarray, "total_atoms 3"]]


NO_LABELS = Labels(MappingProxyType({}), MappingProxyType({}))


class Molecules(NamedTuple):
    """Molecules of different sizes in flat arrays.

    Attributes:
        num_atoms: atoms of each molecule.
        offsets: offsets of the atoms; molecule `m` owns `offsets[m]:offsets[m + 1]`.
        atomic_numbers: nuclear charge of each atom; 0 for a symbol of no element.
        positions: positions of the atoms, in Å.
        names: name of each molecule in its file, as text.
        properties: for each condition or column that was asked for, a number per
            molecule, in the unit of its row of `CONDITIONS` or that of the file; NaN
            where unknown.
        units: units of the properties that the file states.
        labels: numbers that a network is to foresee; none by default.
        molecule_id: number of the molecule that each is a conformer of; None if each is
            a molecule of its own.
    """

    num_atoms: Int32[np.ndarray, " num_molecules"]
    offsets: Int64[np.ndarray, " num_molecules+1"]
    atomic_numbers: UInt8[np.ndarray, " total_atoms"]
    positions: Float32[np.ndarray, "total_atoms 3"]
    names: Shaped[np.ndarray, " num_molecules"]
    properties: Properties
    units: Mapping[str, str] = MappingProxyType({})
    labels: Labels = NO_LABELS
    molecule_id: Int32[np.ndarray, " num_molecules"] | None = None


class Unreadable(NamedTuple):
    """A record that could not be read: its name, and the line and what is wrong."""

    name: str
    reason: str


class Records(NamedTuple):
    """Molecules of a file, before any screening.

    Attributes:
        molecules: records that could be read.
        split: 0 training, 1 validation, 2 test; None where the file has no split.
        unreadable: records that could not be read.
        tags: dimensions that the header of a record states, 2 or 3; 0 where it states
            none. None where the form of file has no such header.
        notes: remarks on what of the file was not used, for a warning.
    """

    molecules: Molecules
    split: Int8[np.ndarray, " num_molecules"] | None
    unreadable: tuple[Unreadable, ...]
    tags: Int8[np.ndarray, " num_molecules"] | None = None
    notes: tuple[str, ...] = ()


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
    units: Mapping[str, str] = MappingProxyType({}),
) -> Molecules:
    """Returns the packed form, with every array in its own type.

    Args:
        num_atoms: atoms of each molecule.
        atomic_numbers: nuclear charges from 0 (no element) to 118.
        positions: positions of the atoms, in Å.
        names: names of the molecules; their indices where None.
        properties: properties of the molecules, see `Molecules`; none where None.
        units: units of the properties, as far as they are known.
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
        units={name: units[name] for name in units if name in (properties or {})},
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
    ids = molecules.molecule_id
    labels = Labels(
        {name: v[chosen] for name, v in molecules.labels.of_molecules.items()},
        {name: v[atoms] for name, v in molecules.labels.of_atoms.items()},
    )
    return make_molecules(
        num_atoms,
        molecules.atomic_numbers[atoms],
        molecules.positions[atoms],
        molecules.names[chosen],
        {name: values[chosen] for name, values in molecules.properties.items()},
        molecules.units,
    )._replace(
        labels=labels,
        molecule_id=None if ids is None else ids[chosen],
    )


def ids_of(molecules: Molecules) -> Int32[np.ndarray, " num_molecules"]:
    """Returns the number of the molecule that each conformer is of."""
    if molecules.molecule_id is None:
        return np.arange(len(molecules.num_atoms), dtype=np.int32)
    return molecules.molecule_id


def find_conformers(molecules: Molecules) -> Molecules:
    """Takes molecules of one name and the same atoms in the same order for conformers.

    What states its molecules itself, or has no name twice, is returned as it is.
    """
    count = len(molecules.num_atoms)
    if molecules.molecule_id is not None or len({*molecules.names.tolist()}) == count:
        return molecules
    known: dict[tuple[str, bytes], int] = {}
    bounds = itertools.pairwise(molecules.offsets.tolist())
    rows = (molecules.atomic_numbers[begin:end].tobytes() for begin, end in bounds)
    keys = zip(molecules.names.tolist(), rows, strict=True)
    found = [known.setdefault(key, len(known)) for key in keys]
    return molecules._replace(molecule_id=np.array(found, np.int32))


def concatenate(parts: Sequence[Molecules]) -> Molecules:
    """Returns the molecules of all parts, one part after another; labels go."""
    ids, total = [], 0
    for part in parts:
        ids.append(ids_of(part) + np.int32(total))
        total = int(ids[-1].max(initial=total - 1)) + 1
    alone = all(part.molecule_id is None for part in parts)
    return make_molecules(
        np.concatenate([part.num_atoms for part in parts]),
        np.concatenate([part.atomic_numbers for part in parts]),
        np.concatenate([part.positions for part in parts]),
        np.concatenate([part.names for part in parts]),
        {
            name: np.concatenate([part.properties[name] for part in parts])
            for name in parts[0].properties
        },
        parts[0].units,
    )._replace(molecule_id=None if alone else np.concatenate(ids))


def checksum(molecules: Molecules) -> str:
    """Returns the SHA-256, in hexadecimal, of all numbers of the molecules.

    Names do not enter: a data set renamed trains the same model.
    """
    digest = hashlib.sha256()
    for array, kind in (
        (molecules.num_atoms, "<i4"),
        (molecules.atomic_numbers, "u1"),
        (molecules.positions, "<f4"),
        *((values, "<f4") for _, values in sorted(molecules.properties.items())),
        *((v, "<f8") for _, v in sorted(molecules.labels.of_molecules.items())),
        *((v, "<f4") for _, v in sorted(molecules.labels.of_atoms.items())),
        *(() if molecules.molecule_id is None else ((molecules.molecule_id, "<i4"),)),
    ):
        digest.update(np.ascontiguousarray(array, dtype=kind).data)
    return digest.hexdigest()


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
