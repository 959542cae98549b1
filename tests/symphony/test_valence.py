"""Tests of open valences, on molecules of QM9 without their hydrogens."""

import itertools

import numpy as np
import pytest

from symphony import data, valence, wishes

SPECIES = (1, 6, 7, 8, 9)


@pytest.fixture(scope="module")
def molecules():
    some, _ = data.read_molecules("qm9-sample", SPECIES, 29, split="validation")
    chosen = np.random.default_rng(0).choice(len(some.num_atoms), 120, replace=False)
    picked = data.select(some, chosen)
    rows = [slice(*ends) for ends in itertools.pairwise(picked.offsets)]
    return [(picked.atomic_numbers[own], picked.positions[own]) for own in rows]


def test_heavy_atoms_tell_which_hydrogens_were_theirs(molecules):
    num_atoms = num_right = whole = 0
    for numbers, positions in molecules:
        heavy = numbers > 1
        found = valence.bonds_of(numbers[heavy], positions[heavy], SPECIES).needed
        owners = wishes.parents_of(numbers, positions)[~heavy]
        true = np.bincount(owners, minlength=len(numbers))[heavy]
        num_atoms += heavy.sum()
        num_right += (found == true).sum()
        whole += found.sum() == true.sum()
    assert num_right > 0.985 * num_atoms
    assert whole > 0.9 * len(molecules)


def test_whole_molecules_need_nothing(molecules):
    for numbers, positions in molecules[:20]:
        bonds = valence.bonds_of(numbers, positions, SPECIES)
        assert bonds.needed.sum() <= 1
        assert not bonds.room[numbers == 1].any()
        # Every hydrogen has one bond.
        assert (bonds.bonded[numbers == 1].sum(axis=1) == 1).all()


def test_an_atom_alone_needs_all():
    bonds = valence.bonds_of(np.array([7], np.uint8), np.zeros((1, 3), "f4"), SPECIES)
    assert (bonds.needed[0], bonds.room[0]) == (3, 3)


def test_sulfur_takes_hydrogens_up_to_two_and_bonds_up_to_six():
    table = valence.table_of((1, 16, 26))
    assert table.usual.tolist()[1] == 2
    assert table.valence.tolist()[1] == 6
    bonds = valence.bonds_of(
        np.array([16], np.uint8), np.zeros((1, 3), np.float32), (1, 16, 26)
    )
    assert (bonds.needed[0], bonds.room[0]) == (2, 6)


def test_nothing_is_said_of_what_an_unknown_element_needs():
    bonds = valence.bonds_of(
        np.array([26], np.uint8), np.zeros((1, 3), np.float32), (1, 16, 26)
    )
    assert bonds.needed[0] == 0
    assert bonds.room[0] == valence.UNKNOWN_VALENCE
