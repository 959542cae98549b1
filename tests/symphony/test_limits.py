"""Tests of the masks: what a step may draw, and which draws are taken back.

Positions are in Å; species are indices into the table H, C, N, O.
"""

import jax.numpy as jnp
import numpy as np
import pytest

from symphony import limits as limiting
from symphony.valence import table_of

TABLE = table_of((1, 6, 7, 8))
H, C, N, O = range(4)
CAPACITY = 8
CHAIN = np.array([[1.3 * i, 0.8 * (i % 2), 0.0] for i in range(CAPACITY)], np.float32)
"""Single bonds of 1.53 Å, with angles."""


def limits_of(**fields):
    free = limiting.no_limits(CAPACITY, 4)._replace(heavy_first=np.array(True))
    return free._replace(**{name: np.asarray(value) for name, value in fields.items()})


def formula(*counts):
    return {
        "most": np.array(counts, np.int32),
        "exact": True,
        "most_atoms": sum(counts),
    }


def census_of(limits, species, positions=CHAIN, count=None):
    padded = np.zeros(CAPACITY, np.int32)
    padded[: len(species)] = species
    return limiting.take_census(
        TABLE,
        limits,
        limiting.begin(CAPACITY),
        jnp.asarray(positions),
        jnp.asarray(padded),
        jnp.int32(len(species) if count is None else count),
    )


def allowed_of(limits, species, positions=CHAIN):
    census = census_of(limits, species, positions)
    allowed = limiting.allow(limits, census)
    any_focus = np.asarray(allowed.focus_species).any(axis=0)
    return np.flatnonzero(any_focus).tolist(), bool(allowed.stop), allowed


def test_without_limits_all_is_allowed_that_valences_allow():
    species, stop, _ = allowed_of(limits_of(), [C, C])
    assert species == [H, C, N, O]
    assert stop


def test_a_spent_element_is_masked():
    species, stop, _ = allowed_of(limits_of(**formula(6, 3, 0, 1)), [C, O])
    assert species == [C]
    assert not stop


def test_hydrogens_wait_for_the_heavy_atoms_of_a_formula():
    limits = limits_of(**formula(6, 2, 0, 0))
    assert allowed_of(limits, [C])[0] == [C]
    assert allowed_of(limits, [C, C])[0] == [H]


def test_only_a_met_formula_may_stop():
    limits = limits_of(**formula(2, 0, 0, 1))
    water = np.array([[0, 0, 0], [0.76, 0.59, 0], [-0.76, 0.59, 0]], np.float32)
    positions = np.pad(water, ((0, CAPACITY - 3), (0, 0)))
    assert allowed_of(limits, [O, H], positions)[:2] == ([H], False)
    assert allowed_of(limits, [O, H, H], positions)[:2] == ([], True)


def test_no_heavy_atom_follows_a_hydrogen():
    assert allowed_of(limits_of(), [C, H])[0] == [H]
    mixed = limits_of(heavy_first=False)
    assert allowed_of(mixed, [C, H])[0] == [H, C, N, O]


def test_a_saturated_atom_is_no_focus():
    close = CHAIN.copy()
    close[:5] = [[0, 0, 0], [1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]]
    close[1:5] *= 1.53 / np.sqrt(3.0)
    _, _, allowed = allowed_of(limits_of(), [C, C, C, C, C], close)
    focus = np.asarray(allowed.focus_species).any(axis=1)
    assert focus.tolist() == [False, True, True, True, True, False, False, False]


def test_an_end_stays_open_while_heavy_atoms_have_to_come():
    # One valence is open: oxygen, which has two, may follow; fluorine would close it.
    table = table_of((1, 6, 7, 9))
    limits = limits_of(**formula(0, 0, 1, 3))
    padded = jnp.zeros(CAPACITY, jnp.int32).at[0].set(3)
    state = limiting.begin(CAPACITY)
    census = limiting.take_census(
        table, limits, state, jnp.asarray(CHAIN), padded, jnp.int32(1)
    )
    allowed = limiting.allow(limits, census).focus_species
    assert np.flatnonzero(np.asarray(allowed).any(axis=0)).tolist() == [2]


def test_at_most_so_many_heavy_atoms():
    assert allowed_of(limits_of(most_heavy=2), [C, C])[0] == [H]
    assert allowed_of(limits_of(most_heavy=3), [C, C])[0] == [H, C, N, O]


def test_the_size_decides_when_hydrogens_begin():
    # Ethane has eight atoms, propane eleven, acetonitrile six.
    wants = lambda low, high: limits_of(fewest_atoms=low, most_atoms=high)
    assert H in allowed_of(wants(8, 8), [C, C])[0]
    assert H not in allowed_of(wants(9, 12), [C, C])[0]
    assert allowed_of(wants(4, 5), [C, C])[0] == [H]
    assert allowed_of(wants(5, 6), [C, C])[0] == [H, N]
    assert not allowed_of(wants(8, 8), [C, C])[1]
    assert allowed_of(wants(2, 2), [C, C])[:2] == ([], True)


def test_elements_without_hydrogen_stop_where_nothing_is_open():
    limits = limits_of(most=np.array([0, 9, 9, 9]))
    dioxide = np.zeros((CAPACITY, 3), np.float32)
    dioxide[:3, 0] = 0.0, 1.16, -1.16
    assert not allowed_of(limits, [C, O, O])[1]
    assert allowed_of(limits, [C, O, O], dioxide)[1]


def judged(limits, species, positions=CHAIN, luck=0.5):
    before = census_of(limits, species, positions, len(species) - 1)
    after = census_of(limits, species, positions)
    verdict = limiting.judge(limits, before, after, jnp.float32(luck))
    return tuple(map(bool, verdict))


@pytest.mark.parametrize(
    ("hydrogens", "in_reach", "hopeless"),
    [(8, True, False), (7, False, False), (6, False, True), (10, False, True)],
)
def test_the_last_heavy_atom_must_leave_the_hydrogens_of_the_formula(
    hydrogens, in_reach, hopeless
):
    limits = limits_of(**formula(hydrogens, 3, 0, 0))
    assert judged(limits, [C, C, C]) == (in_reach, True, hopeless)


def test_there_is_hope_while_atoms_have_to_come():
    # Three of six carbons in a saturated chain: triple bonds may follow.
    benzene = limits_of(**formula(6, 6, 0, 0))
    assert judged(benzene, [C, C, C]) == (False, True, False)
    carbon = limits_of(**formula(2, 6, 0, 0))
    assert judged(carbon, [C, C, C, C]) == (False, True, True)


def test_unsaturation_that_is_too_much_is_taken_back():
    double = CHAIN.copy()
    double[1] = [1.33, 0, 0]
    double[2] = [2.1, 1.25, 0]
    ethylene = limits_of(**formula(6, 2, 0, 1))
    assert judged(ethylene, [C, C, O]) == (True, True, False)
    assert judged(ethylene, [C, C, O], double) == (False, True, True)


def test_a_size_that_cannot_be_is_hopeless():
    wants = lambda low, high: limits_of(fewest_atoms=low, most_atoms=high, most_heavy=3)
    assert judged(wants(11, 11), [C, C, C]) == (True, True, False)
    assert judged(wants(8, 9), [C, C, C]) == (False, True, True)
    assert judged(wants(13, 14), [C, C, C]) == (False, True, True)


def test_an_atom_on_one_that_may_not_grow_cannot_stay():
    grows = np.array([False] + [True] * (CAPACITY - 1))
    limits = limits_of(may_grow=grows)
    ring = CHAIN.copy()
    ring[2] = [0.65, 1.4, 0.0]  # Bonded to both.
    assert judged(limits, [C, C, C]) == (True, True, False)
    assert judged(limits, [C, C, C], ring) == (True, False, False)


def test_what_the_core_had_bounds_its_bonds():
    most = np.full(CAPACITY, limiting.UNLIMITED)
    most[0] = 1
    limits = limits_of(most_bonded=most)
    bonds = census_of(limits, [C, C]).bonds
    assert bonds.needed[:2].tolist() == [0, 3]
    assert bonds.room[:2].tolist() == [0, 3]


def waiting(always, **fields):
    kept = np.zeros((CAPACITY, 3), np.float32)
    kept[:3] = [[-0.5, 1.0, 0.0], [-0.5, -1.0, 0.3], [-0.5, 0.0, -1.0]]
    flags = np.zeros(CAPACITY, bool)
    flags[:3] = always
    return limits_of(kept=kept, always=flags, num_kept=3, **fields)


def returning(limits, species, positions=CHAIN):
    census = census_of(limits, species, positions)
    order, count = limiting.choose_returning(limits, census, jnp.asarray(positions))
    return np.asarray(order)[: int(count)].tolist()


def test_hydrogens_come_back_as_valence_allows():
    assert sorted(returning(waiting(always=True), [C, C])) == [0, 1, 2]
    # An ethylene carbon has two; the farthest from the others stay.
    double = CHAIN.copy()
    double[1] = [0.9, -0.9, -0.1]
    kept = returning(waiting(always=False), [C, C], double)
    assert len(kept) == 2
    assert 0 in kept
    assert sorted(returning(waiting(always=True), [C, C], double)) == [0, 1, 2]


def test_no_more_hydrogens_come_back_than_a_formula_has():
    few = waiting(always=[True, False, False], most=np.array([2, 2, 0, 0]))
    found = returning(few, [C, C])
    assert len(found) == 2
    assert found[0] == 0


def test_a_heavy_atom_may_not_lie_on_a_hydrogen_that_comes_back():
    limits = waiting(always=True)
    near, far = jnp.array([-1.0, 1.5, 0.0]), jnp.array([3.0, 0.0, 0.0])
    heavy = jnp.array(True)
    assert limiting.clashes(limits, near, heavy)
    assert not limiting.clashes(limits, far, heavy)
    assert not limiting.clashes(waiting(always=False), near, heavy)
