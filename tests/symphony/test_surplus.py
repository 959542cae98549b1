"""Tests of how likely a formula is still met."""

import jax.numpy as jnp
import numpy as np
import pytest

from symphony import limits as limiting
from symphony import surplus
from tests.symphony.test_limits import (
    CHAIN,
    C,
    O,
    census_of,
    formula,
    judged,
    limits_of,
)

BENZENE = np.array(
    [[1.36 * np.cos(a), 1.36 * np.sin(a), 0] for a in np.pi / 3 * np.arange(6)]
)


def ring(count):
    positions = CHAIN.copy()
    positions[:count] = BENZENE[:count]
    return positions


def surplus_of(hydrogens, carbons, positions, placed):
    limits = limits_of(**formula(hydrogens, carbons, 0, 0))
    return int(limiting._surplus(census_of(limits, [C] * placed, positions)))


def test_the_surplus_is_what_rings_and_multiple_bonds_take():
    # A saturated chain of six carbons has 14 hydrogens.
    assert surplus_of(14, 6, CHAIN, 3) == 0
    assert surplus_of(6, 6, CHAIN, 3) == 8
    # Two double bonds between four atoms take four.
    assert surplus_of(6, 6, ring(4), 4) == 4
    assert surplus_of(6, 6, ring(6), 6) == 0


def test_oxygen_takes_nothing():
    limits = limits_of(**formula(6, 2, 0, 1))
    assert int(limiting._surplus(census_of(limits, [C, C]))) == 0
    assert int(limiting._surplus(census_of(limits, [C, C, O]))) == 0


def test_the_last_but_one_atom_of_benzene_is_in_reach():
    limits = limits_of(**formula(6, 6, 0, 0))
    assert judged(limits, [C] * 5, ring(5), luck=0.01) == (True, True, False)
    assert judged(limits, [C] * 6, ring(6), luck=0.99) == (True, True, False)


def test_what_is_rare_is_drawn_anew_most_of_the_time():
    limits = limits_of(**formula(6, 6, 0, 0))
    # Three carbons in a saturated chain leave eight hydrogens to three atoms.
    assert judged(limits, [C] * 3, luck=0.5) == (False, True, False)
    assert judged(limits, [C] * 3, luck=0.01) == (True, True, False)


def chance(*numbers):
    return float(surplus.chance(*map(jnp.int32, numbers)))


@pytest.mark.parametrize("num_left", [0, 3, 8])
def test_a_saturated_formula_is_never_drawn_anew_for_saturated_atoms(num_left):
    assert chance(0, 0, num_left) == 1.0
    assert chance(0, -2, num_left) == 0.0


def test_the_likeliest_of_what_may_be_has_the_largest_chance():
    chances = [chance(8, after, 3) for after in range(9)]
    assert max(chances) == chances[4] == 1.0
    assert 0.0 < chances[8] < chances[0] < chances[2] < 1.0
    # What was there before is the most that can be left.
    assert chance(2, 2, 3) == 1.0
