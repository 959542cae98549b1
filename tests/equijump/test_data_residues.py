"""Tests of the table of residues: chemistry that any textbook has."""

from collections import Counter

import numpy as np
import pytest

from equijump.data import residues
from equijump.data.residues import CA_SLOT, RESIDUES, TOKENS, element_of

HEAVY_ATOMS = {
    "GLY": 4, "ALA": 5, "SER": 6, "CYS": 6, "THR": 7, "VAL": 7, "PRO": 7, "ILE": 8,
    "LEU": 8, "ASP": 8, "ASN": 8, "MET": 8, "GLU": 9, "GLN": 9, "LYS": 9, "HIS": 10,
    "PHE": 11, "ARG": 11, "TYR": 12, "TRP": 14, "ACE": 3, "NME": 2,
    "MSE": 8, "NLE": 8, "NVA": 7, "ORN": 8, "HYP": 8, "AIB": 6, "ABA": 6, "SEP": 10,
    "TPO": 11, "PTR": 16, "MLY": 11, "M3L": 12, "ALY": 12, "CME": 10, "CSO": 7,
    "SAR": 5, "NH2": 1, "FOR": 2,
}  # fmt: skip
RINGS = {"PRO": 1, "HIS": 1, "PHE": 1, "TYR": 1, "TRP": 2, "HYP": 1, "PTR": 1}
AMINO_ACIDS = [r for r in RESIDUES if r.name not in residues.CAPS]


def atoms_of(residue):
    return [name for name in residue.slots if name]


@pytest.mark.parametrize("residue", RESIDUES, ids=lambda r: r.name)
def test_a_residue_has_its_heavy_atoms(residue):
    atoms = atoms_of(residue)
    assert len(atoms) == HEAVY_ATOMS[residue.name]
    assert len(set(atoms)) == len(atoms)
    assert len(residue.slots) <= residues.num_slots_of(len(RESIDUES))


def test_tokens_and_slots_of_old_networks_stay():
    names = [residue.name for residue in RESIDUES[:22]]
    assert names == [*sorted(residues.STANDARD - {"ACE", "NME"}), "ACE", "NME"]
    assert (residues.NUM_TYPES, residues.NUM_TOKENS, residues.NUM_SLOTS) == (22, 23, 14)
    assert residues.num_types_for([20, 22]) == 22
    assert residues.num_types_for([20, 23]) == len(RESIDUES)


@pytest.mark.parametrize("residue", RESIDUES, ids=lambda r: r.name)
def test_bonds_connect_all_atoms_and_close_the_rings(residue):
    atoms = atoms_of(residue)
    bonded = {name for bond in residue.bonds for name in bond}
    assert bonded == set(atoms) or len(atoms) == 1
    assert len({frozenset(bond) for bond in residue.bonds}) == len(residue.bonds)
    assert len(residue.bonds) == len(atoms) - 1 + RINGS.get(residue.name, 0)
    reached = {atoms[0]}
    for _ in atoms:
        reached |= {n for bond in residue.bonds if reached & set(bond) for n in bond}
    assert reached == set(atoms)


@pytest.mark.parametrize("residue", RESIDUES, ids=lambda r: r.name)
def test_no_atom_has_more_bonds_than_its_valence(residue):
    """One bond of N and one of C belong to the neighbours in the chain."""
    limits = {"C": 4, "N": 3, "O": 2, "S": 2, "Se": 2, "P": 5}
    limits["N"] += residue.name == "M3L"  # A cation.
    degrees = Counter(name for bond in residue.bonds for name in bond)
    for name, degree in degrees.items():
        assert degree + (name in ("N", "C")) <= limits[element_of(name)]


@pytest.mark.parametrize("residue", AMINO_ACIDS, ids=lambda r: r.name)
def test_the_backbone_has_the_first_slots(residue):
    assert residue.slots[:4] == ("N", "CA", "C", "O")
    assert {("N", "CA"), ("CA", "C"), ("C", "O")} <= set(residue.bonds)


def test_caps_have_an_atom_in_the_slot_of_ca():
    found = {name: RESIDUES[TOKENS[name] - 1].slots[CA_SLOT] for name in residues.CAPS}
    assert found == {"ACE": "CH3", "NME": "CH3", "NH2": "N", "FOR": "C"}
    assert RESIDUES[TOKENS["ACE"] - 1].slots[0] is None


def test_tokens_count_from_one_and_aliases_share_them():
    names = [residue.name for residue in RESIDUES]
    assert [TOKENS[name] for name in names] == list(range(1, len(RESIDUES) + 1))
    assert TOKENS["HIE"] == TOKENS["HIS"]
    assert TOKENS["CYX"] == TOKENS["CYS"]
    assert set(TOKENS) == set(names) | set(residues.ALIASES)
    assert np.max(list(TOKENS.values())) == len(RESIDUES)
