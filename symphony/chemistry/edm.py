"""Bond orders and stability by EDM's table of typical bond lengths.

Hoogeboom et al., "Equivariant Diffusion for Molecule Generation in 3D" (arXiv
2203.17003). Positions in Å, the table in pm.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from rdkit import Chem, rdBase

from symphony.arrays import AtomicNumbers, HostPositions
from symphony.chemistry import bonds

# Typical lengths in pm of single, double and triple bonds between two elements.
_LENGTHS = {
    "HH": (74,), "HC": (109,), "HN": (101,), "HO": (96,), "HF": (92,),
    "CC": (154, 134, 120), "CN": (147, 129, 116), "CO": (143, 120, 113),
    "CF": (135,), "NN": (145, 125, 110), "NO": (140, 121), "NF": (136,),
    "OO": (148, 121), "OF": (142,), "FF": (142,),
}  # fmt: skip
_MARGINS = (10, 5, 3)  # pm, added to the table for single, double, triple bonds.
# pm. A pair at a limit does not pass it, whatever the last bits of its coordinates:
# samples drawn on a grid have distances that equal limits.
_ROUNDING = 1e-3

_ATOMIC_NUMBERS = {"H": 1, "C": 6, "N": 7, "O": 8, "F": 9}
_VALENCES = {"H": 1, "C": 4, "N": 3, "O": 2, "F": 1}
_NUM_ELEMENTS = 10  # Rows of the tables: atomic numbers 0 to 9.


def _make_thresholds() -> Float[np.ndarray, "3 num_elements num_elements"]:
    """Returns the longest bond in pm by order and elements; zero where none exists."""
    thresholds = np.zeros((3, _NUM_ELEMENTS, _NUM_ELEMENTS))
    for pair, lengths in _LENGTHS.items():
        i, j = (_ATOMIC_NUMBERS[symbol] for symbol in pair)
        for level, length in enumerate(lengths):
            thresholds[level, [i, j], [j, i]] = length + _MARGINS[level]
    return thresholds


_THRESHOLDS = _make_thresholds()
_VALENCE_TABLE = np.full(_NUM_ELEMENTS, -1)
for _symbol, _valence in _VALENCES.items():
    _VALENCE_TABLE[_ATOMIC_NUMBERS[_symbol]] = _valence


class Stability(NamedTuple):
    """Atoms and molecules whose orders of bonds sum to the valence; fractions."""

    num_atoms: int
    num_stable_atoms: int
    num_stable_molecules: int
    atom_stability: float | None  # None where no molecule has an atom.
    molecule_stability: float


def bond_orders(
    atomic_numbers: AtomicNumbers, positions: HostPositions
) -> Int[np.ndarray, "num_atoms num_atoms"]:
    """Returns the order, 0 to 3, of the bond between every two atoms.

    A pair shorter than the single-bond length plus margin is bonded; it is a double
    bond only if it also passes that test, a triple bond only if it passes all three.
    Elements outside the table have no bonds.
    """
    elements = np.where(atomic_numbers < _NUM_ELEMENTS, atomic_numbers, 0)
    differences = positions[:, None] - positions[None, :]
    distances = 100.0 * np.sqrt(np.sum(differences**2, axis=-1))
    limits = _THRESHOLDS[:, elements[:, None], elements[None, :]]
    passed = distances < limits - _ROUNDING
    orders = np.sum(np.cumprod(passed, axis=0), axis=0)
    np.fill_diagonal(orders, 0)
    return orders


def stable_atoms(
    atomic_numbers: AtomicNumbers, positions: HostPositions
) -> Bool[np.ndarray, " num_atoms"]:
    """Returns which atoms have exactly their valence: H 1, C 4, N 3, O 2, F 1."""
    elements = np.where(atomic_numbers < _NUM_ELEMENTS, atomic_numbers, 0)
    orders = bond_orders(atomic_numbers, positions)
    return np.sum(orders, axis=1) == _VALENCE_TABLE[elements]


def stability(molecules: Sequence[bonds.Molecule]) -> Stability:
    """Returns the stability of atoms and molecules; those with a fault have none."""
    num_atoms = num_stable = num_molecules = 0
    for atomic_numbers, positions in molecules:
        num_atoms += len(atomic_numbers)
        if bonds.find_fault(atomic_numbers, positions) is not None:
            continue
        stable = stable_atoms(atomic_numbers, positions)
        num_stable += int(np.sum(stable))
        num_molecules += bool(np.all(stable))
    return Stability(
        num_atoms=num_atoms,
        num_stable_atoms=num_stable,
        num_stable_molecules=num_molecules,
        atom_stability=num_stable / num_atoms if num_atoms else None,
        molecule_stability=num_molecules / max(len(molecules), 1),
    )


def describe_molecule(
    atomic_numbers: AtomicNumbers, positions: HostPositions
) -> bonds.Perception:
    """Judges whether RDKit sanitizes the table's molecule and its largest fragment.

    RDKit may add implicit hydrogens, so "valid" means little more than that no atom
    has too many bonds. The description is of the largest fragment.
    """
    fault = bonds.find_fault(atomic_numbers, positions)
    if fault is not None:
        return bonds.Perception(fault)
    mol = _bonded(atomic_numbers, positions)
    with rdBase.BlockLogs():
        try:
            Chem.SanitizeMol(mol)
            fragments = Chem.GetMolFrags(mol, asMols=True)
            largest = max(fragments, key=lambda fragment: fragment.GetNumAtoms())
            Chem.SanitizeMol(largest)
        except ValueError:
            return bonds.Perception("valence")
        return bonds.describe(largest)


def _bonded(atomic_numbers: AtomicNumbers, positions: HostPositions) -> Chem.RWMol:
    """Returns the molecule with the bonds of the table, not sanitized."""
    mol = Chem.RWMol()
    for number in atomic_numbers:
        mol.AddAtom(Chem.Atom(int(number)))
    orders = bond_orders(atomic_numbers, positions)
    for i, j in zip(*np.nonzero(np.triu(orders)), strict=True):
        mol.AddBond(int(i), int(j), Chem.BondType.values[int(orders[i, j])])
    return mol


def to_mol(atomic_numbers: AtomicNumbers, positions: HostPositions) -> Chem.Mol | None:
    """Returns the table's molecule with its conformer, None where it is not valid.

    See `describe_molecule` for what that means; all fragments are there.
    """
    if describe_molecule(atomic_numbers, positions).status != "valid":
        return None
    mol = _bonded(atomic_numbers, positions)
    Chem.SanitizeMol(mol)
    conformer = bonds.to_mol(atomic_numbers, positions).GetConformer()
    mol.AddConformer(conformer, assignId=True)
    return mol.GetMol()


def validity(molecules: Sequence[bonds.Molecule]) -> bonds.Validity:
    """Returns validity and uniqueness by the distance table."""
    return bonds.summarize([describe_molecule(*molecule) for molecule in molecules])
