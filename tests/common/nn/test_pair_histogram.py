"""Pair histograms: bins, symmetry, padding, derivatives, and what they add."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import symmetry_tasks
from common.nn.pair_histogram import cloud_histogram, node_histogram
from tests.common.nn.random_inputs import positions, rotation

BINS = (0.0, 5.0, 11)
of_nodes = jax.jit(lambda x, mask: node_histogram(x, mask, *BINS))
of_cloud = jax.jit(lambda x, mask: cloud_histogram(x, mask, *BINS))
ALL = jnp.ones(6, bool)


def test_bins_hold_the_shares_of_pairs():
    x = jnp.array(
        [[0.0, 0, 0], [1.0, 0, 0], [0, 3.0, 0], [9.0, 9, 9], [9, 9, 9], [9, 9, 9]]
    )
    mask = jnp.arange(6) < 3
    found = np.asarray(of_nodes(x, mask))
    # Centres are half an Å apart: 1 Å is bin 2, 3 Å bin 6, sqrt(10) Å near it.
    assert set(np.argsort(found[0])[-2:]) == {2, 6}
    np.testing.assert_allclose(found[:3].sum(axis=1), 1.0, atol=0.02)
    np.testing.assert_array_equal(found[3:], 0.0)
    np.testing.assert_allclose(of_cloud(x, mask), found[:3].mean(axis=0), atol=1e-6)


@pytest.mark.parametrize("sign", [1, -1])
def test_rotations_reflections_and_translations_change_nothing(sign):
    x = positions(6)
    moved = x @ rotation(sign).T + 2.0
    np.testing.assert_allclose(of_nodes(moved, ALL), of_nodes(x, ALL), atol=1e-5)


def test_nodes_take_their_rows_along():
    x, order = positions(6), np.array([3, 1, 0, 5, 4, 2])
    np.testing.assert_allclose(
        of_nodes(x[order], ALL), of_nodes(x, ALL)[order], atol=1e-6
    )


def test_padding_changes_nothing_wherever_it_lies():
    x, mask = positions(6), jnp.arange(6) < 4
    far = x.at[4:].set(1e30)
    np.testing.assert_array_equal(of_nodes(far, mask), of_nodes(x, mask))
    small = node_histogram(x[:4], ALL[:4], *BINS)
    np.testing.assert_allclose(of_nodes(x, mask)[:4], small, atol=1e-6)


def test_a_pair_beyond_the_last_bin_fades():
    apart = lambda d: jnp.zeros((6, 3)).at[1, 0].set(d)
    mask = jnp.arange(6) < 2
    sums = [float(of_cloud(apart(d), mask).sum()) for d in (4.0, 5.0, 6.5, 9.0)]
    assert sums[0] > sums[1] > 0.95
    assert sums[2] < sums[1]
    assert sums[3] < 1e-6


@functools.cache
def derivatives():
    """Returns the compiled slope, and the slope of its square."""
    total = lambda x, mask: jnp.sum(cloud_histogram(x, mask, *BINS) ** 2)
    slope = jax.grad(total)
    return jax.jit(jax.value_and_grad(lambda x, m: jnp.sum(slope(x, m) ** 2)))


@pytest.mark.parametrize("num_real", [0, 1, 6])
def test_both_derivatives_are_finite(num_real):
    x = positions(6).at[1].set(positions(6)[0])  # Two nodes coincide.
    first, second = derivatives()(x, jnp.arange(6) < num_real)
    assert np.isfinite(first)
    assert np.all(np.isfinite(second))
    assert (float(first) > 0.0) == (num_real == 6)


def test_histograms_reduce_the_error_that_a_cutoff_leaves():
    figures = symmetry_tasks.correlation()
    assert figures["error, near and far"] < 0.75 * figures["error, near"]
