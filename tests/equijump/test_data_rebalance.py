"""Tests of the weights of source frames."""

import numpy as np

from equijump.data import pairs, rebalance
from tests.equijump.test_data_pairs import make_trajectory, whole

MATRIX = np.array([[0.98, 0.02, 0.0], [0.1, 0.8, 0.1], [0.0, 0.3, 0.7]])


def chain(num_frames=60_000):
    """A trajectory whose coordinates are the state of a Markov chain."""
    rng = np.random.default_rng(0)
    draws, states = rng.random(num_frames), np.zeros(num_frames, int)
    bounds = np.cumsum(MATRIX, axis=1)
    for k in range(1, num_frames):
        states[k] = np.searchsorted(bounds[states[k - 1]], draws[k])
    trajectory = make_trajectory(num_frames)
    trajectory.positions[:] = states[:, None, None]
    return trajectory, states


def conditional(segment):
    """The law of the target given the source, and the shares of the sources."""
    lags = pairs.Lags((segment.trajectory.spacing,), is_range=False)
    batch = pairs.batch_at([segment], lags, 60_000, 1, seed=0, step=0)
    source, target = (x[:, 0, 1, 0].astype(int) for x in (batch.source, batch.target))
    counts = np.zeros((3, 3))
    np.add.at(counts, (source, target), 1.0)
    shares = counts.sum(axis=1, keepdims=True)
    return counts / shares, shares[:, 0] / counts.sum()


def test_weights_of_sources_leave_the_conditional_and_weights_of_targets_do_not():
    trajectory, states = chain()
    by_state = 1.0 / np.bincount(states)[states]
    found, shares = conditional(whole(trajectory, by_state))
    np.testing.assert_allclose(found, MATRIX, atol=0.015)
    np.testing.assert_allclose(shares, 1.0 / 3.0, atol=0.02)
    wrong, _ = conditional(whole(trajectory, np.append(by_state[1:], 0.0)))
    assert np.abs(wrong - MATRIX).max() > 0.1


def test_clusters_come_equally_often():
    """Two basins apart by a bond's stretch, one of them nine times as full."""
    rng = np.random.default_rng(0)
    trajectory = make_trajectory(10_000)
    rare = (np.arange(10_000) // 100) % 10 == 0
    trajectory.positions[:] = rng.normal(scale=0.05, size=trajectory.positions.shape)
    trajectory.positions[:, 1, 0] += np.where(rare, 3.0, 1.0)
    halves = [
        pairs.Segment(trajectory, 0, 4_000), pairs.Segment(trajectory, 4_500, 10_000),
    ]  # fmt: skip
    weighted = rebalance.rebalance(halves, lag=20.0, num_clusters=2)
    kept = np.concatenate([rare[:4_000], rare[4_500:]])
    weights = np.concatenate([segment.weights for segment in weighted])
    share = weights[kept].sum() / weights.sum()
    np.testing.assert_allclose(share, 0.5, atol=0.02)
    assert np.mean(kept) < 0.15
    lags = pairs.Lags((20.0,), is_range=False)
    batch = pairs.batch_at(weighted, lags, 4_000, 1, seed=0, step=0)
    stretched = batch.source[:, 0, 2, 0] - batch.source[:, 0, 0, 0] > 2.0
    assert 0.35 < np.mean(stretched) < 0.65


def basins(order, spacing=1.0):
    """Two basins of a bond's length, of a file with its atoms in some order."""
    rng = np.random.default_rng(3)
    made = make_trajectory(4_000, spacing=spacing)
    made.positions[:] = rng.normal(scale=0.05, size=made.positions.shape)
    rare = (np.arange(4_000) // 50) % 4 == 0
    made.positions[:, 1, 0] += np.where(rare, 5.0, 1.0)
    place = np.append(np.argsort(order), -1).astype(np.int32)
    slots = place[made.system.slot_atoms]
    system = made.system._replace(slot_atoms=slots)
    return made._replace(system=system, positions=made.positions[:, order]), rare


def test_clusters_do_not_depend_on_the_order_of_atoms_in_each_file():
    first, rare = basins(np.arange(4))
    second, _ = basins(np.array([2, 0, 3, 1]), spacing=2.0)
    labels = rebalance.cluster([whole(first), whole(second)], 20.0, 2)
    np.testing.assert_array_equal(*labels)
    assert len(set(labels[0][rare])) == len(set(labels[0][~rare])) == 1
