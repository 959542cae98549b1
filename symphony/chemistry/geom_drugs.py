"""Validity and stability by the revised evaluation of GEOM-Drugs.

Nikitin et al., "GEOM-Drugs Revisited" (Digital Discovery 2025, 4, 3282). Aromatic bonds
are counted apart from the orders of the others, in place of 1 or 1.5 each. Here the
bonds are those that `"xyz2mol_hueckel"` perceives.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool

from symphony.arrays import AtomicNumbers
from symphony.chemistry import bonds, edm
from symphony.data.elements import SYMBOLS

PARENT = "xyz2mol_hueckel"
AROMATIC = 1.5

Pairs = frozenset[tuple[int, int]]
"""Number of aromatic bonds of an atom, and the sum of the orders of its others."""

# The states that occur in GEOM-Drugs, by element and formal charge. A neutral sulphur
# with three bonds is among them, and so is a neutral carbon with three aromatic ones.
_STATES: dict[tuple[str, int], tuple[tuple[int, int], ...]] = {
    ("H", 0): ((0, 1),),
    ("B", 0): ((0, 3),),
    ("B", -1): ((0, 4),),
    ("C", 0): ((0, 4), (2, 1), (2, 2), (3, 0)),
    ("C", 1): ((0, 3), (2, 1), (3, 0)),
    ("C", -1): ((0, 3), (2, 1), (3, 0)),
    ("N", 0): ((0, 3), (2, 0), (2, 1), (3, 0)),
    ("N", 1): ((0, 4), (2, 0), (2, 1), (2, 2), (3, 0)),
    ("N", -1): ((0, 2), (2, 0)),
    ("N", -2): ((0, 1),),
    ("O", 0): ((0, 2), (2, 0)),
    ("O", 1): ((0, 3),),
    ("O", -1): ((0, 1),),
    ("F", 0): ((0, 1),),
    ("Si", 0): ((0, 4),),
    ("Si", 1): ((0, 5),),
    ("P", 0): ((0, 3), (0, 5)),
    ("P", 1): ((0, 4),),
    ("S", 0): ((0, 2), (0, 3), (0, 6), (2, 0)),
    ("S", 1): ((0, 3), (2, 0), (2, 1), (3, 0)),
    ("S", 2): ((0, 4), (2, 1), (2, 2)),
    ("S", 3): ((0, 2), (0, 5)),
    ("S", -1): ((0, 1),),
    ("Cl", 0): ((0, 1),),
    ("Cl", 1): ((0, 2),),
    ("Br", 0): ((0, 1),),
    ("Br", 1): ((0, 2),),
    ("I", 0): ((0, 1),),
    ("I", 1): ((0, 2),),
    ("I", 2): ((0, 3),),
    ("Bi", 0): ((0, 3),),
    ("Bi", 2): ((0, 5),),
}
ALLOWED: dict[tuple[int, int], Pairs] = {
    (SYMBOLS.index(symbol) + 1, charge): frozenset(pairs)
    for (symbol, charge), pairs in _STATES.items()
}
"""Pairs of a stable atom, by atomic number and formal charge."""


def judge(perception: bonds.Perception) -> bonds.Perception:
    """Turns a perception of `PARENT` into one of this convention.

    Valid is what RDKit sanitizes and what is in one piece. Charges and radicals are
    allowed: they are a matter of stability.
    """
    if perception.status == "valid" and perception.num_fragments != 1:
        return perception._replace(status="disconnected")
    return perception


def stable_atoms(
    atomic_numbers: AtomicNumbers, perception: bonds.Perception
) -> Bool[np.ndarray, " num_atoms"]:
    """Returns which atoms have bonds that the table allows; none without bonds."""
    num_atoms = len(atomic_numbers)
    if not perception.bonds:
        return np.zeros(num_atoms, bool)
    aromatic, others = np.zeros(num_atoms, int), np.zeros(num_atoms)
    for *pair, order in perception.bonds:
        if order == AROMATIC:
            aromatic[pair] += 1
        else:
            others[pair] += order
    states = zip(
        atomic_numbers.tolist(), perception.charges, aromatic, others, strict=True
    )
    return np.array(
        [(a, int(o)) in ALLOWED.get((number, q), ()) for number, q, a, o in states]
    )


def stability(
    molecules: Sequence[bonds.Molecule], perceptions: Sequence[bonds.Perception]
) -> edm.Stability:
    """Returns the stability of atoms and molecules; those without bonds have none.

    Args:
        molecules: pairs of atomic numbers and positions in Å.
        perceptions: what `PARENT` perceives of each.
    """
    pairs = zip(molecules, perceptions, strict=True)
    stable = [stable_atoms(numbers, found) for (numbers, _), found in pairs]
    num_atoms = sum(map(len, stable))
    num_stable = int(sum(map(np.sum, stable)))
    num_whole = sum(len(atoms) > 0 and bool(atoms.all()) for atoms in stable)
    return edm.Stability(
        num_atoms=num_atoms,
        num_stable_atoms=num_stable,
        num_stable_molecules=num_whole,
        atom_stability=num_stable / num_atoms if num_atoms else None,
        molecule_stability=num_whole / max(len(molecules), 1),
    )
