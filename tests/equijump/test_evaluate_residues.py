"""Tests of times and free energies of single residues, on chains with known ones."""

import numpy as np
import pytest

from equijump.evaluate import residues

ALPHA, BETA, LEFT = [-1.2, -0.7], [-1.2, 2.0], [1.0, 0.5]
WEIGHTS = np.ones((1, 4), int)


def walk(rng, stay, count, places=(ALPHA, BETA)):
    """Two states, kept with a probability: the time is -1 / ln(2 stay - 1)."""
    moves = rng.random(count) > stay
    states = np.cumsum(moves) % 2
    return np.array(places)[states]


def test_the_slowest_time_is_that_of_a_known_chain_and_lies_in_its_interval():
    rng = np.random.default_rng(0)
    units = [walk(rng, 0.95, 4000) for _ in range(8)]
    weights = rng.multinomial(4, np.full(4, 0.25), 100)
    found = residues.slowest(units[:4], units[4:], 1, weights)
    expected = -1.0 / np.log(0.9)
    assert found.value == pytest.approx(expected, rel=0.1)
    assert found.reference == pytest.approx(expected, rel=0.1)
    assert found.low < found.reference < found.high < 1.3 * expected
    assert found.covered == 1.0


def test_a_state_that_one_side_never_leaves_again_is_no_time():
    rng = np.random.default_rng(1)
    ours = [walk(rng, 0.9, 1000) for _ in range(4)]
    theirs = [*ours[:3], np.concatenate([np.repeat([LEFT], 500, 0), ours[3]])]
    found = residues.slowest(ours, theirs, 1, WEIGHTS)
    assert found.covered == pytest.approx(4000 / 4500)
    assert found.covered < residues.CONNECTED
    assert np.isnan(found.low)


def test_a_state_of_one_side_alone_does_not_change_the_others_time():
    rng = np.random.default_rng(2)
    theirs = [walk(rng, 0.9, 1000) for _ in range(4)]
    visit = np.array([BETA, LEFT, LEFT, BETA])
    ours = [np.concatenate([theirs[0], visit]), *theirs[1:]]
    found = residues.slowest(ours, theirs, 1, WEIGHTS)
    assert found.covered > residues.CONNECTED
    assert found.value == pytest.approx(found.reference, rel=0.02)


def test_residues_without_two_states_have_no_time():
    still = [np.repeat([ALPHA], 50, axis=0)] * 4
    assert np.isnan(residues.slowest(still, still, 1, WEIGHTS).value)
    assert np.isnan(residues.helix_relaxation(still, 1))


def test_alphar_relaxes_in_its_time_whatever_phi_above_0_does():
    rng = np.random.default_rng(3)
    expected = -1.0 / np.log(0.8)
    unit = walk(rng, 0.9, 20_000)
    assert residues.helix_relaxation([unit], 1) == pytest.approx(expected, rel=0.1)
    away = np.repeat([LEFT], 5000, axis=0)
    both = np.concatenate([unit, away])
    assert residues.helix_relaxation([both], 1) == pytest.approx(expected, rel=0.1)


def test_free_energies_are_those_of_the_shares():
    unit = np.array([ALPHA] * 30 + [BETA] * 60 + [LEFT] * 10)
    found = residues.free_energies([unit[:50], unit[50:]], temperature=300.0)
    kt = residues.GAS * 300.0
    assert found["alphaR_over_beta"] == pytest.approx(kt * np.log(2.0))
    assert found["phi_above_0"] == pytest.approx(kt * np.log(9.0))
    alone = residues.free_energies([unit[:20]], temperature=300.0)
    assert all(np.isnan(value) for value in alone.values())


def test_passages_through_0_count_and_those_through_pi_do_not():
    phi = np.array([-1.0, 1.0, 3.0, -3.0, -1.0, 1.0])
    units = [np.stack([phi, phi], axis=1), np.stack([-phi[:1], phi[:1]], axis=1)]
    assert residues.passages(units) == 2
