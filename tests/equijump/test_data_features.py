"""Tests of features of frames: bounded in number, and the same chunk by chunk."""

import numpy as np
import pytest

from equijump.data import features


def brute(num_points):
    return np.stack(np.triu_indices(num_points, 1), axis=1)


@pytest.mark.parametrize("num_points", [0, 1, 2, 5, 30])
def test_all_pairs_are_chosen_where_they_are_few(num_points):
    found = features.choose_pairs(num_points)
    np.testing.assert_array_equal(found, brute(num_points))


@pytest.mark.parametrize("num_points", [60, 1_000, 30_000])
def test_of_many_pairs_some_are_chosen_evenly(num_points):
    found = features.choose_pairs(num_points)
    assert len(found) == features.MOST_PAIRS
    assert np.all(found[:, 0] < found[:, 1])
    assert len(np.unique(found, axis=0)) == len(found)
    assert found.max() == num_points - 1
    # The mean distance along the chain of all pairs is a third of its length.
    along = np.mean(found[:, 1] - found[:, 0]) / num_points
    assert along == pytest.approx(1 / 3, abs=0.03)


def test_chosen_pairs_are_those_of_the_whole_list():
    whole = {tuple(pair) for pair in brute(100).tolist()}
    assert {tuple(pair) for pair in features.choose_pairs(100, 77).tolist()} <= whole


def test_distances_are_lengths_of_differences():
    positions = np.random.default_rng(0).normal(size=(3, 5, 3))
    found = features.distances(positions, np.array([[0, 4], [2, 1]]))
    expected = np.linalg.norm(positions[:, 2] - positions[:, 1], axis=-1)
    np.testing.assert_allclose(found[:, 1], expected)


def signals(count=3_000):
    """A slow signal and noise, mixed."""
    rng = np.random.default_rng(1)
    slow, noise = np.zeros(count), rng.normal(size=(2, count))
    for k in range(1, count):
        slow[k] = 0.98 * slow[k - 1] + 0.2 * noise[0, k]
    return np.stack([slow + noise[1], slow - noise[1]], axis=1)


def test_chunks_change_neither_fit_nor_projection(monkeypatch):
    units = [signals(), signals(500)[::-1]]
    function = lambda x: np.concatenate([x, 0.3 * x[:, :1] ** 2], axis=1)
    whole = features.fit_tica(units, function, 5, dim=2)
    expected = features.project(whole, units[0], function)
    monkeypatch.setattr(features, "CHUNK", 170)
    sizes = []

    def counted(x):
        sizes.append(len(x))
        return function(x)

    parts = features.fit_tica(units, counted, 5, dim=2)
    found = features.project(parts, units[0], counted)
    assert max(sizes) == 175
    np.testing.assert_allclose(np.abs(found), np.abs(expected), rtol=1e-5, atol=1e-6)


def test_a_unit_that_is_shorter_than_the_lag_does_not_count():
    units = [signals(), signals(5)]
    ours = features.fit_tica(units, lambda x: x, 5, dim=1)
    theirs = features.fit_tica(units[:1], lambda x: x, 5, dim=1)
    np.testing.assert_allclose(ours.singular_values, theirs.singular_values)
