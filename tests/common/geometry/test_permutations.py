"""Tests of alignment where identical points may be exchanged."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest

from common.geometry import alignment, permutations
from tests.common.geometry.test_alignment import CHIRAL, random_rotation


@pytest.mark.parametrize("seed", range(4))
def test_exchanged_atoms_are_put_back(seed):
    rng = np.random.default_rng(seed)
    order = np.append(0, 1 + rng.permutation(4))
    species = jnp.array([6, 1, 1, 1, 1, 0])
    pad = lambda x: jnp.float32(np.concatenate([x, np.full((1, 3), 9.0)]))
    y = pad(CHIRAL)
    x = pad(CHIRAL[order] @ random_rotation(seed).T + 1.0)
    mask = jnp.arange(6) < 5
    found = permutations.permutation_align(y, x, species, mask)
    np.testing.assert_array_equal(order[np.asarray(found.order)[:5]], np.arange(5))
    centred, _ = alignment.center(y, mask)
    np.testing.assert_allclose(found.x, centred, atol=1e-4)
    assert int(found.order[5]) == 5


def test_atoms_of_different_elements_are_never_exchanged():
    species = jnp.array([6, 1, 1, 9, 9])
    y, x = np.random.default_rng(0).normal(size=(2, 5, 3)).astype(np.float32)
    found = permutations.permutation_align(jnp.asarray(y), jnp.asarray(x), species)
    np.testing.assert_array_equal(species[found.order], species)
    assert sorted(found.order.tolist()) == list(range(5))


def test_the_best_automorphism_is_found():
    orders = np.array([[0, *p] for p in itertools.permutations(range(1, 5))])
    y = jnp.float32(CHIRAL)
    mixed = np.array([0, 3, 1, 4, 2])
    x = jnp.float32(CHIRAL[mixed] @ random_rotation(0).T)
    found = permutations.automorphism_align(y, x, jnp.asarray(orders))
    np.testing.assert_array_equal(mixed[np.asarray(found.order)], np.arange(5))
    np.testing.assert_allclose(found.x, alignment.center(y)[0], atol=1e-4)


def test_a_mirror_image_is_matched_by_an_exchange_of_two():
    """Points of one species may change hands; of five species they may not."""
    y = jnp.float32(CHIRAL)
    ones, own = jnp.zeros(5, jnp.int32), jnp.arange(5)
    worst = permutations.permutation_align(y, -y, own)
    best = permutations.permutation_align(y, -y, ones)
    distance = lambda found: float(alignment.rmsd(y, found.x))
    assert distance(best) < distance(worst)
    np.testing.assert_array_equal(worst.order, own)


def test_the_rotation_is_the_one_that_was_applied():
    turn = random_rotation(5)
    y = jnp.float32(CHIRAL @ turn.T)
    orders = jnp.arange(5)[None]
    found = permutations.automorphism_align(y, jnp.float32(CHIRAL), orders)
    np.testing.assert_allclose(found.rotation, turn, atol=1e-5)
    mask = jnp.arange(6) < 5
    pad = lambda x: jnp.concatenate([jnp.float32(x), jnp.full((1, 3), 4.0)])
    padded = permutations.automorphism_align(
        pad(y), pad(CHIRAL), jnp.arange(6)[None], mask
    )
    np.testing.assert_allclose(padded.x[:5], found.x, atol=1e-5)
    np.testing.assert_array_equal(padded.x[5], 0.0)


def test_the_order_of_the_given_points_is_nothing():
    y = jnp.float32(CHIRAL)
    x = jnp.float32(CHIRAL @ random_rotation(2).T)
    species = jnp.array([0, 1, 1, 1, 1])
    due = permutations.permutation_align(y, x, species).x
    mixed = jnp.array([0, 4, 2, 1, 3])
    found = permutations.permutation_align(y, x[mixed], species)
    np.testing.assert_allclose(found.x, due, atol=1e-4)
    np.testing.assert_array_equal(mixed[found.order], jnp.arange(5))


def test_the_matched_cloud_is_the_given_one_in_its_order_and_rotation():
    y, x = np.random.default_rng(3).normal(size=(2, 5, 3)).astype(np.float32)
    found = permutations.permutation_align(
        jnp.asarray(y), jnp.asarray(x), jnp.zeros(5, jnp.int32)
    )
    centred = x - x.mean(axis=0)
    again = centred[np.asarray(found.order)] @ np.asarray(found.rotation).T
    np.testing.assert_allclose(found.x, again, atol=1e-5)
    plain = alignment.rmsd(jnp.asarray(y), jnp.asarray(x))
    assert alignment.rmsd(jnp.asarray(y), found.x) <= plain + 1e-6


def test_no_order_is_better_than_the_one_found():
    """Among all of 24, by trying each."""
    y, x = np.random.default_rng(4).normal(size=(2, 4, 3)).astype(np.float32)
    y, x = jnp.asarray(y), jnp.asarray(x)
    orders = jnp.array(list(itertools.permutations(range(4))))
    tried = [float(alignment.rmsd(y, x[order])) for order in orders]
    best = permutations.automorphism_align(y, x, orders)
    assert float(alignment.rmsd(y, best.x)) == pytest.approx(min(tried), abs=1e-5)
    found = permutations.permutation_align(y, x, jnp.zeros(4, jnp.int32))
    assert float(alignment.rmsd(y, found.x)) == pytest.approx(min(tried), abs=1e-5)
