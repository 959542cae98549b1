"""Orders of a molecule's atoms that leave its elements and bonds as they are."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

MAX_AUTOMORPHISMS = 10_000


def automorphisms(
    species: Sequence[int], bonds: Sequence[tuple[int, int]]
) -> Int[np.ndarray, "num_orders num_points"]:
    """Returns every order of the atoms that keeps elements and bonds.

    Args:
        species: atomic numbers.
        bonds: pairs of atoms; their orders are not looked at.

    Raises:
        ValueError: There are more than `MAX_AUTOMORPHISMS`.
    """
    from rdkit import Chem

    molecule = Chem.RWMol()
    for number in species:
        atom = Chem.Atom(int(number))
        atom.SetNoImplicit(True)
        molecule.AddAtom(atom)
    for i, j in bonds:
        molecule.AddBond(int(i), int(j), Chem.BondType.SINGLE)
    molecule.UpdatePropertyCache(strict=False)
    found = molecule.GetSubstructMatches(
        molecule, uniquify=False, maxMatches=MAX_AUTOMORPHISMS + 1
    )
    if len(found) > MAX_AUTOMORPHISMS:
        raise ValueError(
            f"expected at most {MAX_AUTOMORPHISMS} automorphisms of the bonds, found "
            "more"
        )
    return np.array(found, int)
