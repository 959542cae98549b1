"""Tests of the table of residues: chemistry that any textbook has."""

from collections import Counter

import numpy as np
import pytest

from equijump.data import residues
from equijump.data.residues import CA_SLOT, NUM_SLOTS, RESIDUES, TOKENS

HEAVY_ATOMS = {
    "GLY": 4, "ALA": 5, "SER": 6, "CYS": 6, "THR": 7, "VAL": 7, "PRO": 7, "ILE": 8,
    "LEU": 8, "ASP": 8, "ASN": 8, "MET": 8, "GLU": 9, "GLN": 9, "LYS": 9, "HIS": 10,
    "PHE": 11, "ARG": 11, "TYR": 12, "TRP": 14, "ACE": 3, "NME": 2,
}  # fmt: skip
RINGS = {"PRO": 1, "HIS": 1, "PHE": 1, "TYR": 1, "TRP": 2}


def atoms_of(residue):
    return [name for name in residue.slots if name]


@pytest.mark.parametrize("residue", RESIDUES, ids=lambda r: r.name)
def test_a_residue_has_its_heavy_atoms(residue):
    atoms = atoms_of(residue)
    assert len(atoms) == HEAVY_ATOMS[residue.name]
    assert len(set(atoms)) == len(atoms)
    assert len(residue.slots) <= NUM_SLOTS


@pytest.mark.parametrize("residue", RESIDUES, ids=lambda r: r.name)
def test_bonds_connect_all_atoms_and_close_the_rings(residue):
    atoms = atoms_of(residue)
    assert {name for bond in residue.bonds for name in bond} == set(atoms)
    assert len({frozenset(bond) for bond in residue.bonds}) == len(residue.bonds)
    assert len(residue.bonds) == len(atoms) - 1 + RINGS.get(residue.name, 0)
    reached = {atoms[0]}
    for _ in atoms:
        reached |= {n for bond in residue.bonds if reached & set(bond) for n in bond}
    assert reached == set(atoms)


@pytest.mark.parametrize("residue", RESIDUES, ids=lambda r: r.name)
def test_no_atom_has_more_bonds_than_its_valence(residue):
    """One bond of N and one of C belong to the neighbours in the chain."""
    limits = {"C": 4, "N": 3, "O": 2, "S": 2}
    degrees = Counter(name for bond in residue.bonds for name in bond)
    for name, degree in degrees.items():
        assert degree + (name in ("N", "C")) <= limits[name[0]]


@pytest.mark.parametrize("residue", RESIDUES[:-2], ids=lambda r: r.name)
def test_the_backbone_has_the_first_slots(residue):
    assert residue.slots[:4] == ("N", "CA", "C", "O")
    assert {("N", "CA"), ("CA", "C"), ("C", "O")} <= set(residue.bonds)


def test_methyl_carbons_of_caps_are_in_the_slot_of_ca():
    for residue in RESIDUES[-2:]:
        assert residue.slots[CA_SLOT] == "CH3"
    assert RESIDUES[-2].slots[0] is None


def test_tokens_count_from_one_and_aliases_share_them():
    names = [residue.name for residue in RESIDUES]
    assert [TOKENS[name] for name in names] == list(range(1, len(RESIDUES) + 1))
    assert len(RESIDUES) + 1 == residues.NUM_TOKENS
    assert TOKENS["HIE"] == TOKENS["HIS"]
    assert TOKENS["CYX"] == TOKENS["CYS"]
    assert set(TOKENS) == set(names) | set(residues.ALIASES)
    assert np.max(list(TOKENS.values())) == len(RESIDUES)
