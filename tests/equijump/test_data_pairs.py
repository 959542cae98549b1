"""Tests of pairs of frames: lags, segments, weights, repeatability."""

import jax
import numpy as np
import pytest

from equijump.data import lags, mixture, pairs
from equijump.data.frames import Trajectory
from equijump.data.segments import blocks
from equijump.data.topology import System

ALANINE, GLYCINE = 1, 8


def make_trajectory(num_frames=200, spacing=2.0, token=ALANINE, start=0):
    """Every coordinate of a frame is its number plus `start`."""
    slots = np.full((1, 14), -1, np.int32)
    slots[0, :4] = [0, 2, 1, 3]
    system = System(
        tokens=np.array([token], np.int32),
        chains=np.zeros(1, np.int32),
        numbers=np.zeros(1, np.int32),
        slot_atoms=slots,
        bonds=np.zeros((0, 2), np.int32),
        kept=np.arange(4, dtype=np.int32),
        residue_names=("ALA",),
        atom_names=("N", "C", "CA", "O"),
    )
    numbers = start + np.arange(num_frames, dtype=np.float32)
    positions = np.broadcast_to(numbers[:, None, None], (num_frames, 4, 3))
    return Trajectory("made", system, np.ascontiguousarray(positions), spacing, "")


def doubled(trajectory):
    """The same with a second residue like the first."""
    system, positions = trajectory.system, trajectory.positions
    twice = lambda array: np.concatenate([array, array])
    slots = system.slot_atoms
    system = system._replace(
        tokens=twice(system.tokens),
        chains=twice(system.chains),
        numbers=np.arange(2, dtype=np.int32),
        slot_atoms=np.concatenate([slots, np.where(slots >= 0, slots + 4, -1)]),
        kept=np.arange(8, dtype=np.int32),
        residue_names=2 * system.residue_names,
        atom_names=2 * system.atom_names,
    )
    positions = np.concatenate([positions, positions], axis=1)
    return trajectory._replace(system=system, positions=positions)


def whole(trajectory, weights=None):
    return pairs.Segment(trajectory, 0, len(trajectory.positions), weights)


def lags_of(batch):
    return batch.target[:, 0, 0, 0] - batch.source[:, 0, 0, 0]


def test_atoms_come_into_their_slots_and_the_rest_is_zero():
    trajectory = make_trajectory()
    trajectory.positions[:] = np.arange(4)[:, None]
    (placed,) = pairs.pad_slots(trajectory, np.array([3]), num_nodes=2)
    np.testing.assert_array_equal(placed[0, :4, 0], [0, 2, 1, 3])
    assert not placed[0, 4:].any()
    assert not placed[1].any()


def test_a_pair_is_a_lag_apart_inside_its_segment():
    trajectory = make_trajectory()
    segments = [pairs.Segment(trajectory, 20, 60), pairs.Segment(trajectory, 90, 180)]
    law = pairs.Lags((4.0, 10.0), is_range=False)
    batch = pairs.batch_at(segments, law, 4_000, 3, seed=0, step=0)
    steps = lags_of(batch)
    assert set(steps) == {2.0, 5.0}
    np.testing.assert_array_equal(batch.conditions["lag"].value, 2.0 * steps)
    source, target = batch.source[:, 0, 0, 0], batch.target[:, 0, 0, 0]
    first = (source >= 20) & (target < 60)
    assert np.all(first | ((source >= 90) & (target < 180)))
    assert np.mean(first) == pytest.approx(40 / 130, abs=0.03)
    assert {source.min(), target.max()} == {20, 179}
    assert np.mean(steps == 2.0) == pytest.approx(0.5, abs=0.03)
    np.testing.assert_array_equal(batch.tokens[0], [ALANINE, 0, 0])


@pytest.mark.parametrize("weighted", [False, True])
def test_frames_before_the_source_are_a_lag_apart_in_its_segment(weighted):
    weights = np.tile([1.0, 3.0], 20) if weighted else None
    segments = [pairs.Segment(make_trajectory(), 20, 60, weights)]
    law = pairs.Lags((4.0, 10.0), is_range=False)
    batch = pairs.batch_at(segments, law, 4_000, 1, seed=0, step=0, num_before=2)
    frames = [batch.before[:, 0], batch.before[:, 1], batch.source, batch.target]
    numbers = np.stack([frame[:, 0, 0, 0] for frame in frames])
    np.testing.assert_array_equal(
        np.diff(numbers, axis=0), np.tile(lags_of(batch), (3, 1))
    )
    assert (numbers.min(), numbers.max()) == (20, 59)
    if weighted:
        odd = np.mean(batch.source[:, 0, 0, 0] % 2)
        assert odd == pytest.approx(0.75, abs=0.03)


def test_systems_come_equally_often():
    segments = [
        whole(make_trajectory(50)),
        whole(make_trajectory(50, start=1_000)),
        whole(make_trajectory(900, token=GLYCINE)),
    ]
    law = pairs.Lags((2.0,), is_range=False)
    batch = pairs.batch_at(segments, law, 4_000, 1, seed=0, step=0)
    assert np.mean(batch.tokens == GLYCINE) == pytest.approx(0.5, abs=0.03)


def test_a_batch_is_a_function_of_seed_and_step():
    segments, law = [whole(make_trajectory())], pairs.Lags((2.0, 40.0), is_range=True)
    draw = lambda seed, step: pairs.batch_at(segments, law, 8, 1, seed, step)
    jax.tree.map(np.testing.assert_array_equal, draw(1, 2), draw(1, 2))
    assert np.any(draw(1, 2).source != draw(1, 3).source)
    assert np.any(draw(1, 2).source != draw(2, 2).source)


@pytest.mark.parametrize("rows", [[0, 1, 2], [5], [7, 0, 7]])
def test_some_pairs_of_a_batch_are_those_of_the_whole(rows):
    segments = [whole(make_trajectory()), whole(make_trajectory(90, token=GLYCINE))]
    law = pairs.Lags((2.0, 40.0), is_range=True)
    given = (segments, law, 8, 2, 3, 4)
    found = pairs.batch_at(*given, rows=np.array(rows))
    expected = jax.tree.map(lambda x: x[rows], pairs.batch_at(*given))
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_a_condition_is_known_where_a_trajectory_states_it():
    stated = make_trajectory()._replace(conditions={"temperature": 310.0, "gap": 2.0})
    silent = make_trajectory(start=1_000)._replace(conditions={"temperature": 350.0})
    law = pairs.Lags((2.0,), is_range=False)
    batch = pairs.batch_at([whole(stated), whole(silent)], law, 64, 1, 0, 0)
    assert set(batch.conditions) == {"lag", "temperature", "gap"}
    first = batch.source[:, 0, 0, 0] < 500
    assert 0 < first.sum() < 64
    np.testing.assert_array_equal(batch.conditions["gap"].mask, first)
    np.testing.assert_array_equal(batch.conditions["gap"].value[first], 2.0)
    expected = np.where(first, 310.0, 350.0)
    np.testing.assert_array_equal(batch.conditions["temperature"].value, expected)
    assert batch.conditions["temperature"].mask.all()
    assert batch.conditions["lag"].mask.all()


def test_a_lag_of_a_microsecond_is_a_lag_and_hides_nothing():
    trajectory = make_trajectory(spacing=5e5, start=1)
    law = pairs.Lags((1e6,), is_range=False)
    batch = pairs.batch_at([whole(trajectory)], law, 16, 1, seed=0, step=0)
    np.testing.assert_array_equal(batch.conditions["lag"].value, 1e6)
    assert batch.conditions["lag"].mask.all()
    assert np.all(batch.source[:, 0, 0, 0] > 0)


def test_some_sources_are_hidden_as_a_function_of_seed_and_step():
    segments, law = [whole(make_trajectory(start=1))], pairs.Lags((2.0,), False)
    draw = lambda: pairs.batch_at(segments, law, 4_000, 1, 0, 5)
    batch = pairs.hide_sources(draw(), 0.3, seed=0, step=5)
    hidden = ~batch.conditions["lag"].mask
    assert np.mean(hidden) == pytest.approx(0.3, abs=0.03)
    np.testing.assert_array_equal(batch.source[hidden], 0.0)
    np.testing.assert_array_equal(batch.source[~hidden], draw().source[~hidden])
    np.testing.assert_array_equal(batch.target, draw().target)
    again = pairs.hide_sources(draw(), 0.3, seed=0, step=5)
    np.testing.assert_array_equal(~again.conditions["lag"].mask, hidden)
    rows = np.arange(1_000, 2_000)
    part = pairs.batch_at(segments, law, 4_000, 1, 0, 5, rows=rows)
    pairs.hide_sources(part, 0.3, seed=0, step=5, rows=rows)
    np.testing.assert_array_equal(~part.conditions["lag"].mask, hidden[rows])


def test_lags_of_a_range_are_log_uniform():
    law = pairs.Lags((1.0, 64.0), is_range=True)
    drawn = lags.draw_lags(law, 1.0, np.random.default_rng(0).random(20_000))
    assert (drawn.min(), drawn.max()) == (1, 64)
    ends = np.array([0.5, 2.5, 8.5, 24.5, 64.5])
    shares = np.diff(np.log(ends)) / np.log(ends[-1] / ends[0])
    found = np.histogram(drawn, ends)[0] / 20_000
    np.testing.assert_allclose(found, shares, atol=0.015)


def test_sources_come_by_their_weights():
    weights = np.tile([1.0, 3.0], 100)
    segments = [whole(make_trajectory(), weights)]
    law = pairs.Lags((2.0,), is_range=False)
    batch = pairs.batch_at(segments, law, 8_000, 1, seed=0, step=0)
    odd = batch.source[:, 0, 0, 0] % 2
    assert np.mean(odd) == pytest.approx(0.75, abs=0.02)
    np.testing.assert_array_equal(lags_of(batch), 1.0)


def test_blocks_of_time_are_apart_by_the_gap():
    trajectory = make_trajectory(100)
    training, held_out = blocks(whole(trajectory), num_blocks=5, held_out=2, gap=10)
    assert [(s.start, s.stop) for s in training] == [(0, 30), (70, 100)]
    assert (held_out.start, held_out.stop) == (40, 60)
    training, _ = blocks(whole(trajectory), num_blocks=5, held_out=0, gap=10)
    assert [(s.start, s.stop) for s in training] == [(30, 100)]


def sized(num_residues, num_frames=60):
    """A trajectory of so many residues, of which the first has the atoms."""
    made = make_trajectory(num_frames)
    padding = np.full((num_residues - 1, 14), -1, np.int32)
    system = made.system._replace(
        tokens=np.full(num_residues, ALANINE, np.int32),
        chains=np.zeros(num_residues, np.int32),
        numbers=np.arange(num_residues, dtype=np.int32),
        slot_atoms=np.concatenate([made.system.slot_atoms, padding]),
    )
    return made._replace(system=system)


MIXED = [
    whole(sized(80), np.linspace(0.5, 1.5, 60)),
    whole(sized(10, 90)),
    whole(sized(10, 30)),
    whole(sized(12)),
    whole(sized(41)),
    whole(sized(3)),
    whole(sized(1)),
]


def test_buckets_hold_systems_of_about_one_size():
    buckets = mixture.make_buckets(MIXED)
    assert [bucket.num_nodes for bucket in buckets] == [80, 12, 3, 1]
    sizes = np.array([len(s.trajectory.system.tokens) for s in MIXED])
    for bucket in buckets:
        held = sizes[bucket.shares > 0.0]
        assert held.max() == bucket.num_nodes
    ten = [whole(sized(n)) for n in (12, 10, 7)]
    assert [bucket.num_nodes for bucket in mixture.make_buckets(ten)] == [12]
    several = [whole(sized(n)) for n in (1, 2, 3, 4, 7, 8, 15, 16, 33, 64, 100)]
    found = [bucket.num_nodes for bucket in mixture.make_buckets(several)]
    assert found == [100, 33, 16, 8]


def test_a_pair_counts_by_its_weight_alone_with_buckets_and_without():
    """The probability of every segment, enumerated; and so any mean over pairs."""
    buckets = mixture.make_buckets(MIXED)
    assert len(buckets) > 1
    assert sum(bucket.probability for bucket in buckets) == pytest.approx(1.0)
    shares = sum(bucket.probability * bucket.shares for bucket in buckets)
    np.testing.assert_allclose(shares, mixture.shares_of(MIXED), rtol=1e-12)
    gradients = np.random.default_rng(0).normal(size=len(MIXED))
    expected = mixture.shares_of(MIXED) @ gradients
    found = sum(b.probability * (b.shares @ gradients) for b in buckets)
    assert found == pytest.approx(expected)


def test_steps_draw_their_bucket_by_its_probability():
    buckets = mixture.make_buckets(MIXED)
    drawn = [mixture.bucket_at(buckets, 7, step).num_nodes for step in range(4_000)]
    for bucket in buckets:
        share = np.mean(np.array(drawn) == bucket.num_nodes)
        assert share == pytest.approx(bucket.probability, abs=0.03)
    assert drawn == [mixture.bucket_at(buckets, 7, n).num_nodes for n in range(4_000)]
    assert drawn != [mixture.bucket_at(buckets, 8, n).num_nodes for n in range(4_000)]


def test_a_batch_of_a_bucket_has_its_systems_alone():
    law = pairs.Lags((2.0,), is_range=False)
    for bucket in mixture.make_buckets(MIXED):
        batch = pairs.batch_at(
            MIXED, law, 64, bucket.num_nodes, 1, 2, shares=bucket.shares
        )
        sizes = (batch.tokens > 0).sum(axis=1)
        assert sizes.max() == bucket.num_nodes == batch.tokens.shape[1]


def test_systems_of_one_size_are_drawn_as_without_buckets():
    segments = [whole(make_trajectory()), whole(make_trajectory(90, token=GLYCINE))]
    (bucket,) = mixture.make_buckets(segments)
    given = segments, pairs.Lags((2.0, 40.0), is_range=True), 8, 1, 3, 4
    found = pairs.batch_at(*given, shares=mixture.bucket_at([bucket], 3, 4).shares)
    jax.tree.map(np.testing.assert_array_equal, found, pairs.batch_at(*given))
    assert bucket.num_nodes == 1


def test_sizes_of_pairs_are_known_before_they_are_read():
    plan = pairs.make_plan(MIXED, pairs.Lags((2.0,), is_range=False))
    batch = pairs.draw(plan, 50, 80, seed=5, step=6)
    sizes = pairs.sizes_at(plan, 50, seed=5, step=6)
    np.testing.assert_array_equal(sizes, (batch.tokens > 0).sum(axis=1))
