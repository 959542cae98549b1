"""What is unusual in the geometry of a start: handedness, strained bonds, clashes.

Positions are in Å. The gate compares every jump with its start: where the start is
wrong, hardly any jump passes.
"""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float, Float32

from equijump.data.residues import RESIDUES
from equijump.data.topology import System, nearby
from equijump.data.whole import bonds_of, lengths_of

CLOSEST = 2.0  # Å, as `equijump.rejection.GATE` has it.

_WIDE, _NARROW = 0.75, 1.875
"""Of the longest and the shortest bond that is read: 1.2 and .75 of the sum of covalent
radii. Bonds of proteins at 300 K are from .83 (C=O) to 1.08."""

_LEAST_VOLUME = 0.5  # Å³, of the bonds of a CA; 2.6 where nothing is distorted.

Starts = Float32[np.ndarray, "num_frames num_atoms 3"]


def turned(system: System, positions: Starts) -> list[str]:
    """Names the residues of which a frame has the D form.

    Args:
        system: molecule.
        positions: frames, in Å.
    """
    names = []
    for row, slots in enumerate(system.slot_atoms.tolist()):
        kind = RESIDUES[system.tokens[row] - 1]
        atoms = dict(zip(kind.slots, slots, strict=False))
        if not {"N", "CA", "C", "CB"} <= atoms.keys():
            continue
        centre = positions[:, atoms["CA"]]
        bonds = (positions[:, atoms[name]] - centre for name in ("N", "C", "CB"))
        if (_volume(*bonds) < -_LEAST_VOLUME).any():
            names.append(f"{system.residue_names[row]}{row + 1}")
    return names


def _volume(
    a: Float[np.ndarray, "num_frames 3"],
    b: Float[np.ndarray, "num_frames 3"],
    c: Float[np.ndarray, "num_frames 3"],
) -> Float[np.ndarray, " num_frames"]:
    """Returns the triple product, positive for N, C and CB of an L amino acid."""
    return np.sum(a * np.cross(b, c), axis=-1)


def strained(system: System, positions: Starts) -> list[str]:
    """Returns in words which bonds are too long or short, and which atoms too close.

    Args:
        system: molecule.
        positions: frames, in Å; each counts, and of a pair the first that is strained.
    """
    names = _names(system)
    found = dict(_bad_bonds(system, positions)) | dict(_clashes(system, positions))
    return [
        f"{names[a]} and {names[b]} {distance:.2f} Å apart"
        for (a, b), distance in found.items()
    ]


Pairs = Iterator[tuple[tuple[int, int], float]]
"""Pairs of atoms with their distance in Å."""


def _bad_bonds(system: System, positions: Starts) -> Pairs:
    bonds = bonds_of(system)
    lengths = lengths_of(positions, bonds)
    wrong = (lengths > _WIDE * bonds.longest) | (lengths < _NARROW * bonds.shortest)
    for bond in np.flatnonzero(wrong.any(axis=0)).tolist():
        frame = int(np.argmax(wrong[:, bond]))
        yield tuple(bonds.pairs[bond].tolist()), float(lengths[frame, bond])


def _clashes(system: System, positions: Starts) -> Pairs:
    """Yields atoms more than three bonds apart that are nearer than the gate allows."""
    from scipy.spatial import cKDTree  # Slow to import, and few need it.

    near = nearby(system.bonds, len(system.kept))
    seen = set()
    for frame in positions:
        for a, b in sorted(cKDTree(frame).query_pairs(CLOSEST)):
            if not near[a, b] and (a, b) not in seen:
                seen.add((a, b))
                yield (a, b), float(np.linalg.norm(frame[a] - frame[b]))


def _names(system: System) -> dict[int, str]:
    """Returns atoms by number, as `CB of TRP9`."""
    names = {}
    for row, slots in enumerate(system.slot_atoms.tolist()):
        for atom in slots:
            label = f"{system.residue_names[row]}{row + 1}"
            names[atom] = f"{system.atom_names[atom]} of {label}"
    return names
