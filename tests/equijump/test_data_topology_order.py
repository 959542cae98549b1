"""Tests of systems as arrays: orders of atoms, bonds apart, and matching by bonds."""

import itertools

import numpy as np
import pytest

from equijump.data import parts, topology
from equijump.data.residues import (
    RESIDUES,
    TOKENS,
    element_of,
    num_slots_of,
    num_types_for,
)
from equijump.data.topology import System


def make_system(names, order=None, chains=None):
    """A chain of residues; atom `order[k]` of the file is the k-th by slots."""
    chains = np.zeros(len(names), np.int32) if chains is None else np.int32(chains)
    tokens = np.array([TOKENS[name] for name in names], np.int32)
    width = num_slots_of(num_types_for(tokens.tolist()))
    slots = np.full((len(names), width), -1, np.int32)
    atom_names, count = [], 0
    for row, name in zip(slots, names, strict=True):
        for slot, atom in enumerate(RESIDUES[TOKENS[name] - 1].slots):
            if atom is not None:
                row[slot], count = count, count + 1
                atom_names.append(atom)
    order = np.arange(count) if order is None else np.asarray(order)
    slots = np.append(order, -1).astype(np.int32)[slots]
    return System(
        tokens=tokens,
        chains=chains,
        numbers=np.arange(len(names), dtype=np.int32),
        slot_atoms=slots,
        bonds=topology.all_bonds(tokens, chains, slots),
        kept=np.arange(count, dtype=np.int32),
        residue_names=tuple(names),
        atom_names=tuple(atom_names[i] for i in np.argsort(order)),
    )


ORDER = np.random.default_rng(0).permutation(9)


def shuffled():
    return make_system(["GLY", "ALA"], ORDER)


def test_in_slot_order_atoms_are_numbered_by_their_slots():
    found = topology.in_slot_order(shuffled())
    plain = make_system(["GLY", "ALA"])
    np.testing.assert_array_equal(found.slot_atoms, plain.slot_atoms)
    np.testing.assert_array_equal(found.bonds, plain.bonds)
    assert found.atom_names == plain.atom_names
    np.testing.assert_array_equal(found.kept, ORDER)


def test_a_system_in_slot_order_stays_as_it_is():
    once = topology.in_slot_order(shuffled())
    twice = topology.in_slot_order(once)
    for ours, theirs in zip(once, twice, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_reordered_positions_keep_every_atom_in_its_slot():
    first, second = shuffled(), make_system(["GLY", "ALA"])
    positions = np.random.default_rng(1).normal(size=(5, 9, 3))
    found = topology.reordered(positions, first, second)
    filled = first.slot_atoms >= 0
    np.testing.assert_array_equal(
        found[:, second.slot_atoms[filled]], positions[:, first.slot_atoms[filled]]
    )
    back = topology.reordered(found, second, first)
    np.testing.assert_array_equal(back, positions)
    one = topology.reordered(positions[2], first, second)
    np.testing.assert_array_equal(one, found[2])


@pytest.mark.parametrize(
    ("names", "chains", "same"),
    [
        (["ALA", "GLY"], [0, 0], True),
        (["ALA", "GLY"], [3, 3], True),
        (["ALA", "GLY"], [0, 1], False),
        (["GLY", "ALA"], [0, 0], False),
        (["ALA"], [0], False),
    ],
)
def test_systems_are_the_same_by_residues_and_chains(names, chains, same):
    first = make_system(["ALA", "GLY"])
    assert topology.is_same(first, make_system(names, chains=chains)) == same


def test_bonds_go_from_residue_to_residue_of_one_chain_only():
    one, two = (make_system(["GLY", "GLY"], chains=c) for c in ([0, 0], [0, 1]))
    assert len(one.bonds) == 7
    assert len(two.bonds) == 6
    assert [2, 4] in one.bonds.tolist()


def line(count):
    return np.stack([np.arange(count - 1), np.arange(1, count)], axis=1)


@pytest.mark.parametrize("num_bonds", [1, 2, 3, 5])
def test_along_a_line_atoms_are_near_by_their_distance(num_bonds):
    found = topology.nearby(line(8), 8, num_bonds)
    apart = np.abs(np.arange(8)[:, None] - np.arange(8))
    np.testing.assert_array_equal(found, apart <= num_bonds)


def test_nearby_is_the_power_of_the_matrix_of_bonds():
    bonds = make_system(["TRP", "PRO", "TYR"]).bonds
    count = 14 + 7 + 12
    step = np.eye(count, dtype=int)
    step[bonds[:, 0], bonds[:, 1]] = step[bonds[:, 1], bonds[:, 0]] = 1
    expected = np.linalg.matrix_power(step, 3) > 0
    np.testing.assert_array_equal(topology.nearby(bonds, count), expected)


def test_without_bonds_an_atom_is_near_itself_only():
    none = np.zeros((0, 2), np.int32)
    np.testing.assert_array_equal(topology.nearby(none, 3), np.eye(3, dtype=bool))


def test_large_systems_are_fast_and_small():
    found = topology.nearby(line(4_000), 4_000)
    assert found.dtype == bool
    assert found.sum() == 7 * 4_000 - 2 * (1 + 2 + 3)


def graph_of(residue):
    """Elements, bonds by index and names of a residue's atoms."""
    names = [name for name in residue.slots if name]
    place = {name: index for index, name in enumerate(names)}
    bonds = {tuple(sorted((place[a], place[b]))) for a, b in residue.bonds}
    return [element_of(name) for name in names], bonds, names


@pytest.mark.parametrize("residue", RESIDUES, ids=lambda r: r.name)
def test_atoms_without_names_find_slots_with_all_bonds(residue):
    elements, bonds, names = graph_of(residue)
    order = np.random.default_rng(2).permutation(len(names))
    place = np.argsort(order)
    moved = {tuple(sorted((int(place[a]), int(place[b])))) for a, b in bonds}
    shuffled = [elements[i] for i in order]
    found = parts.match(residue, shuffled, moved, ["?"] * len(names))
    slot_of = dict(zip(residue.slots, found, strict=True))
    for first, second in residue.bonds:
        assert tuple(sorted((slot_of[first], slot_of[second]))) in moved
    assert sorted(x for x in found if x is not None) == list(range(len(names)))


def test_names_decide_between_atoms_that_bonds_cannot_tell_apart():
    residue = RESIDUES[TOKENS["VAL"] - 1]
    elements, bonds, names = graph_of(residue)
    for choice in itertools.permutations(("CG1", "CG2")):
        renamed = [*names[:-2], *choice]
        found = parts.match(residue, elements, bonds, renamed)
        assert [renamed[i] for i in found] == list(residue.slots)


def test_a_missing_bond_or_atom_is_no_match():
    residue = RESIDUES[TOKENS["SER"] - 1]
    elements, bonds, names = graph_of(residue)
    for bond in bonds:
        assert parts.match(residue, elements, bonds - {bond}, names) is None
    assert parts.match(residue, elements[:-1], bonds, names[:-1]) is None


def test_surplus_atoms_are_left_out():
    residue = RESIDUES[TOKENS["GLY"] - 1]
    elements, bonds, names = graph_of(residue)
    bonds = bonds | {(2, 4)}
    found = parts.match(residue, [*elements, "O"], bonds, [*names, "OXT"])
    assert found == (0, 1, 2, 3)


@pytest.mark.parametrize(
    ("chains", "numbers", "places"),
    [
        ([0, 0, 0], [5, 6, 7], [0, 1, 2]),
        ([0, 0, 0], [5, 8, 9], [0, 3, 4]),
        ([0, 0, 1, 1], [1, 2, 1, 2], [0, 1, 0, 1]),
        ([0, 0, 0], [5, 5, 4], [0, 1, 2]),
        ([0, 1, 0], [1, 9, 2], [0, 0, 1]),
    ],
)
def test_places_count_from_the_start_of_a_chain_with_its_gaps(chains, numbers, places):
    found = topology.places_of(np.array(chains), np.array(numbers))
    np.testing.assert_array_equal(found, places)


def test_bonds_are_read_from_distances_and_elements():
    positions = np.array([[0, 0, 0], [1.5, 0, 0], [1.5, 2.2, 0], [9, 9, 9.0]])
    assert parts.bonded_pairs(["C", "C", "C", "C"], positions) == {(0, 1)}
    assert parts.bonded_pairs(["C", "S", "S", "C"], positions) == {(0, 1), (1, 2)}
