"""Tests of the orders of atoms that keep elements and bonds."""

import pytest

from symphony.automorphisms import automorphisms


def test_automorphisms_keep_the_bonds():
    methane = automorphisms([6, 1, 1, 1, 1], [(0, i) for i in range(1, 5)])
    assert methane.shape == (24, 5)
    ethanol = [(0, 1), (1, 2), (2, 8), *((0, i) for i in (3, 4, 5)), (1, 6), (1, 7)]
    species = [6, 6, 8, 1, 1, 1, 1, 1, 1]
    orders = automorphisms(species, ethanol)
    assert orders.shape == (12, 9)  # Those of a methyl group, and of two hydrogens.
    bonds = {frozenset(pair) for pair in ethanol}
    for order in orders:
        assert {frozenset(order[list(pair)].tolist()) for pair in ethanol} == bonds
    benzene = [(i, (i + 1) % 6) for i in range(6)]
    assert len(automorphisms([6] * 6, benzene)) == 12


def test_too_many_automorphisms_are_told():
    with pytest.raises(ValueError, match="at most 10000 automorphisms"):
        automorphisms([6] + [1] * 9, [(0, i) for i in range(1, 10)])
