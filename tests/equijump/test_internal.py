"""Tests of the tables of ideal geometry."""

import itertools

import numpy as np
import pytest

from equijump import internal
from equijump.data.residues import RESIDUES, STANDARD, TOKENS

AMINO_ACIDS = sorted(STANDARD - {"ACE", "NME"})


def side_chain(name, chi):
    """N, CA, C and the side chain of a residue."""
    n, ca = np.zeros(3), np.array([internal.N_CA, 0.0, 0.0])
    aside = np.array([0.0, 1.0, 0.0])
    c = internal.place(aside, n, ca, internal.CA_C, internal.N_CA_C, 60.0)
    atoms = {"N": n, "CA": ca, "C": c}
    for row in internal.SIDE_CHAINS[name]:
        atoms[row.atom] = internal.place_row(row, atoms, chi)
    return atoms


def draws(name, count=6):
    drawn = internal.draw_chi(name, np.random.default_rng(1), count)
    return [{key: at[i] for key, at in drawn.items()} for i in range(count)]


@pytest.mark.parametrize("name", AMINO_ACIDS)
def test_every_heavy_atom_of_a_residue_has_a_row(name):
    wanted = set(filter(None, RESIDUES[TOKENS[name] - 1].slots)) - {"O"}
    assert set(side_chain(name, draws(name)[0])) == wanted


@pytest.mark.parametrize("name", AMINO_ACIDS)
def test_bonds_of_a_residue_have_the_lengths_of_such_bonds(name):
    """Rings too, which no row closes."""
    for chi in draws(name):
        atoms = side_chain(name, chi)
        for first, second in RESIDUES[TOKENS[name] - 1].bonds:
            if "O" in (first, second):
                continue
            length = np.linalg.norm(atoms[first] - atoms[second])
            low, high = (1.7, 1.85) if {first[0], second[0]} & {"S"} else (1.2, 1.56)
            assert low < length < high
            closed = internal.CLOSURES.get(f"{first}-{second}")
            assert closed is None or abs(length - closed) < 0.02


@pytest.mark.parametrize("name", AMINO_ACIDS)
def test_angles_of_a_residue_are_those_of_bonded_atoms(name):
    for chi in draws(name):
        atoms = side_chain(name, chi)
        bonds = {frozenset(bond) for bond in RESIDUES[TOKENS[name] - 1].bonds}
        for first, second in itertools.combinations(atoms, 2):
            for middle in atoms:
                if {frozenset((first, middle)), frozenset((middle, second))} <= bonds:
                    ends = atoms[first] - atoms[middle], atoms[second] - atoms[middle]
                    one, other = (end / np.linalg.norm(end) for end in ends)
                    assert 98.0 < np.degrees(np.arccos(one @ other)) < 136.0


def test_a_torsion_that_is_placed_is_measured():
    rng = np.random.default_rng(0)
    three = rng.normal(size=(3, 50, 3))
    wanted = rng.uniform(-180.0, 180.0, 50)
    fourth = internal.place(*three, 1.5, 110.0, wanted)
    np.testing.assert_allclose(internal.torsion(*three, fourth), wanted, atol=1e-6)
    lengths = np.linalg.norm(fourth - three[2], axis=1)
    np.testing.assert_allclose(lengths, 1.5)
