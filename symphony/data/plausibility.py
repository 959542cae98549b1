"""Positions that are not what they seem: drawings, and lengths in another unit than Å.

Each is told by distances between neighbours, which hardly differ among molecules.
"""

from typing import NamedTuple

import numpy as np
from absl import logging
from jaxtyping import Bool, Float32

from symphony.data.molecules import Molecules, Records
from symphony.data.neighbours import any_of_molecule

HYDROGEN, CARBON = 1, 6
_SMALLEST_DRAWING = 4  # atoms; three always lie in a plane
# Å: nearest neighbours of heavy atoms and of hydrogens in planar molecules. Drawings
# have one length for all, mostly 1.5 or about 0.8.
_HEAVY_BONDS, _HYDROGEN_BONDS = (1.15, 1.49), (0.85, 1.25)
_CROWDED, _CROWD = 1.7, 4  # Å, atoms: a carbon with so many around is not planar
_FEW_HYDROGENS = 0.1  # of molecules with carbon, and for each carbon


class Unit(NamedTuple):
    """A unit that lengths may be in, in the place of Å, and how many Å it has."""

    name: str
    factor: float


NANOMETRE, BOHR, PICOMETRE = (
    Unit("nm", 10.0),
    Unit("bohr", 0.529177),
    Unit("pm", 0.01),
)
_SHORT, _LONG = (0.05, 0.2), (50.0, np.inf)  # Å, of the median nearest neighbour
# From O-H to C-H, and from C=O to C-C, in bohr.
_BOHR_HYDROGEN, _BOHR_CARBON, _BOHR_ATOMS = (1.75, 2.115), (2.2, 3.0), 5


def _medians(
    molecules: Molecules,
    distances: Float32[np.ndarray, " total_atoms"],
    chosen: Bool[np.ndarray, " total_atoms"],
) -> Float32[np.ndarray, " num_molecules"]:
    """Returns the median of the chosen atoms of each molecule; NaN without any."""
    owner = np.repeat(np.arange(len(molecules.num_atoms)), molecules.num_atoms)
    chosen = chosen & np.isfinite(distances)
    owner, values = owner[chosen], distances[chosen]
    order = np.lexsort((values, owner))
    counts = np.bincount(owner, minlength=len(molecules.num_atoms))
    first = np.cumsum(counts) - counts
    medians = np.full(len(counts), np.nan, np.float32)
    some = counts > 0
    middle = first[some] + (counts[some] - 1) // 2
    medians[some] = values[order][middle]
    return medians


def _within(
    values: Float32[np.ndarray, " _"], limits: tuple[float, float]
) -> Bool[np.ndarray, " _"]:
    with np.errstate(invalid="ignore"):
        return (values >= limits[0]) & (values <= limits[1])


def in_unit(
    molecules: Molecules, distances: Float32[np.ndarray, " total_atoms"]
) -> dict[Unit, Bool[np.ndarray, " num_molecules"]]:
    """Returns for each unit which molecules seem to be written in it.

    Nearest neighbours of a molecule are about 1.1 Å apart: 0.11 nm, 110 pm. Carbon and
    its hydrogens are 1.1 Å = 2.1 bohr apart, and carbons among themselves 1.5 Å = 2.8
    bohr.

    Args:
        molecules: molecules with finite positions.
        distances: distance of each atom to its nearest neighbour, as if in Å.
    """
    numbers = molecules.atomic_numbers
    everything = _medians(molecules, distances, np.ones(len(numbers), bool))
    hydrogens = _medians(molecules, distances, numbers == HYDROGEN)
    carbons = _medians(molecules, distances, numbers == CARBON)
    organic = any_of_molecule(molecules, np.isin(numbers, (CARBON, 7, 8)))
    bohr = _within(hydrogens, _BOHR_HYDROGEN) & organic
    many = molecules.num_atoms >= _BOHR_ATOMS
    bohr |= np.isnan(hydrogens) & many & _within(carbons, _BOHR_CARBON)
    bohr &= ~any_of_molecule(molecules, distances < _BOHR_HYDROGEN[0])
    return {
        NANOMETRE: _within(everything, _SHORT),
        BOHR: bohr,
        PICOMETRE: _within(everything, _LONG),
    }


def are_drawings(
    records: Records, distances: Float32[np.ndarray, " total_atoms"]
) -> Bool[np.ndarray, " num_molecules"]:
    """Returns which molecules are drawings: all z are one, and no molecule is so flat.

    One with 2D in its header is a drawing. So is any other with four atoms, not in a
    line, a carbon among them, and lengths that planar molecules do not have.

    Args:
        records: molecules with finite positions.
        distances: distance of each atom to its nearest neighbour, in Å.
    """
    molecules = records.molecules
    drawn = np.zeros(len(molecules.num_atoms), bool)
    heights = molecules.positions[:, 2]
    first = np.repeat(molecules.offsets[:-1], molecules.num_atoms)
    flat = ~any_of_molecule(molecules, heights != heights[first])
    tags = np.zeros(len(drawn), np.int8) if records.tags is None else records.tags
    drawn[flat & (tags == 2) & (molecules.num_atoms > 1)] = True
    many = molecules.num_atoms >= _SMALLEST_DRAWING
    for index in np.flatnonzero(flat & ~drawn & many):
        atoms = slice(*molecules.offsets[index : index + 2])
        numbers, positions = molecules.atomic_numbers[atoms], molecules.positions[atoms]
        drawn[index] = _looks_drawn(numbers, positions, distances[atoms])
    return drawn


def _looks_drawn(
    numbers: np.ndarray, positions: np.ndarray, distances: np.ndarray
) -> bool:
    """Returns whether a flat molecule has lengths that none has."""
    centred = positions.astype(np.float64) - positions.mean(axis=0, dtype=np.float64)
    is_line = np.linalg.matrix_rank(centred, tol=1e-3) < 2
    if is_line or not np.any(numbers == CARBON):
        return False
    is_hydrogen = numbers == HYDROGEN
    between = np.linalg.norm(centred[:, None] - centred, axis=-1)
    crowd = np.sum(between[numbers == CARBON] < _CROWDED, axis=1) - 1
    if np.any(crowd >= _CROWD):
        return True
    if np.any(is_hydrogen):
        return not _within(distances[is_hydrogen], _HYDROGEN_BONDS).all()
    return not _within(distances, _HEAVY_BONDS).all()


def warn_without_hydrogens(molecules: Molecules, source: str) -> None:
    """Warns if hardly any molecule with carbon has hydrogens, or all have few."""
    numbers = molecules.atomic_numbers
    organic = any_of_molecule(molecules, numbers == CARBON)
    total = int(organic.sum())
    have = int((any_of_molecule(molecules, numbers == HYDROGEN) & organic).sum())
    hydrogens, carbons = (int(np.sum(numbers == n)) for n in (HYDROGEN, CARBON))
    if not total or min(have / total, hydrogens / carbons) > _FEW_HYDROGENS:
        return
    count = "none" if have == 0 else f"only {have}"
    found = f"{count} of {total} molecules {'has' if have < 2 else 'have'} hydrogens"
    if have > _FEW_HYDROGENS * total:
        found = f"found {hydrogens} hydrogens for {carbons} carbons"
    logging.warning(
        "%s: %s; add them, as by RDKit's Chem.AddHs(mol, addCoords=True)",
        source, found,
    )  # fmt: skip
