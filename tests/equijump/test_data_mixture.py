"""Tests of the mixture: a pair counts by its weight alone, in buckets or without."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.equijump import tiny
from equijump import build, train
from equijump.data import mixture, pairs, splits
from equijump.data.crops import Crop
from equijump.data.lags import Lags
from tests.equijump.test_data_pairs import ALANINE, make_trajectory, whole

LAW = Lags((2.0, 2.0, 4.0), is_range=False)
AT = 0.7
"""Place of the parameter."""

GRID_LAGS, GRID_SOURCES = 3, 72
"""Numbers of a grid that is even over lags, and over the sources of all segments."""


@dataclasses.dataclass
class Grid:
    """Stands for a generator: gives every number of an even grid once, not at random.

    Attributes:
        num_segments: segments are chosen evenly over so many numbers.
        bucket: number that chooses the bucket.
    """

    num_segments: int
    bucket: float = 0.0

    def choice(self, count, size, p):
        middles = (np.arange(self.num_segments) + 0.5) / self.num_segments
        segments = np.searchsorted(np.cumsum(p), middles)
        assert segments.max() < count
        return np.repeat(segments, size // self.num_segments)

    def random(self, shape=None):
        if shape is None:
            return self.bucket
        lag = (np.arange(GRID_LAGS) + 0.5) / GRID_LAGS
        source = (np.arange(GRID_SOURCES) + 0.5) / GRID_SOURCES
        cells = np.stack(np.meshgrid(lag, source, indexing="ij"), -1).reshape(-1, 2)
        return np.tile(cells, (shape[0] // len(cells), 1))


def of_size(count, num_frames, seed):
    """A trajectory of so many residues that move at random."""
    made, rng = make_trajectory(num_frames), np.random.default_rng(seed)
    slots = np.full((count, 14), -1, np.int32)
    slots[:, 1] = np.arange(count)
    system = made.system._replace(
        tokens=np.full(count, ALANINE, np.int32),
        chains=np.zeros(count, np.int32),
        numbers=np.arange(count, dtype=np.int32),
        slot_atoms=slots,
    )
    positions = rng.normal(scale=count, size=(num_frames, count, 3))
    return made._replace(system=system, positions=positions.astype(np.float32))


SEGMENTS = (  # Of weights 3/8, 3/8 and, by length, 1/12 and 1/6 in one bucket.
    whole(of_size(40, 10, 0))._replace(entry=0, share=3.0),
    whole(of_size(12, 5, 1))._replace(entry=0, share=3.0),
    whole(of_size(11, 5, 2))._replace(entry=1, share=1.0),
    whole(of_size(11, 10, 3))._replace(entry=1, share=1.0),
)
NUM_CELLS = GRID_LAGS * GRID_SOURCES


def pair_errors(params, batch, keys):
    """Errors as a network has them: of each pair its mean over residues."""
    del keys
    moved = batch.target[:, :, 1] - params * batch.source[:, :, 1]
    lag = batch.conditions["lag"].value[:, None]
    errors = jnp.sum(jnp.square(moved), -1) * jnp.exp(-params * lag / 10.0)
    real = batch.tokens > 0
    return jnp.sum(jnp.where(real, errors, 0.0), 1) / jnp.sum(real, 1)


@pytest.fixture
def parts(monkeypatch):
    """The parts of a run over some segments, with these errors for a network's."""
    monkeypatch.setattr(train, "make_errors", lambda config, statistics: pair_errors)

    def make(segments, batch_size):
        config = tiny.get_config()
        config.train.update(batch_size=batch_size, num_validation=4)
        most = max(map(mixture.num_residues, segments))
        of_run = splits.Segments(segments, segments, LAW, most, 22)
        statistics = build.Statistics(np.ones(1), np.ones(1), np.ones(1))
        return train._make_parts(config, of_run, statistics, None)

    return make


def gradient_of(made):
    """Returns `batch -> gradient` of the loss of a step, as training takes it."""
    take = jax.jit(jax.grad(lambda params, batch: made.loss_fn(params, batch, None)[0]))
    return lambda batch: float(take(jnp.float32(AT), batch))


def by_hand(segments):
    """The gradient of every pair of all segments, each by its weight."""
    total, shares = 0.0, mixture.shares_of(segments)
    for segment, share in zip(segments, shares, strict=True):
        positions = np.float64(segment.trajectory.positions)
        for steps in (1, 1, 2):
            source, target = positions[:-steps], positions[steps:]
            off, rate = target - AT * source, 0.2 * steps
            squares, slopes = (off**2).sum(-1), -2.0 * (source * off).sum(-1)
            total += share / 3.0 * np.mean(slopes - rate * squares) * np.exp(-AT * rate)
    return total


def expected_gradient(made, monkeypatch, num_buckets, num_segments):
    """The mean gradient over all numbers that a step may draw: its expectation."""
    found, gradient = [], gradient_of(made)
    for place in range(num_buckets):
        grid = Grid(num_segments, (place + 0.5) / num_buckets)
        monkeypatch.setattr(np.random, "default_rng", lambda key, grid=grid: grid)
        found.append(gradient(made.batch_at(0)))
    monkeypatch.undo()
    return np.mean(found), found


def test_the_expected_gradient_is_that_of_batches_without_buckets(parts, monkeypatch):
    """Both by enumeration, through the drawing and the loss of training."""
    assert mixture.shares_of(SEGMENTS) == pytest.approx([3 / 8, 3 / 8, 1 / 12, 1 / 6])
    expected = by_hand(SEGMENTS)
    # In the small bucket the shares are 3/5, 2/15 and 4/15: fifteen numbers suffice.
    made = parts(SEGMENTS, 15 * NUM_CELLS)
    buckets, found = expected_gradient(made, monkeypatch, 8, 15)
    assert len({round(value, 2) for value in found}) == 2
    assert buckets == pytest.approx(expected, rel=1e-4)
    unequal = np.mean(sorted(set(found)))  # As if each bucket came equally often.
    assert abs(unequal / expected - 1.0) > 0.05

    one = mixture.Bucket(40, 1.0, mixture.shares_of(SEGMENTS))
    monkeypatch.setattr(mixture, "make_buckets", lambda *given: (one,))
    monkeypatch.setattr(train, "make_errors", lambda config, statistics: pair_errors)
    made = parts(SEGMENTS, 24 * NUM_CELLS)
    whole_batches, _ = expected_gradient(made, monkeypatch, 1, 24)
    assert whole_batches == pytest.approx(expected, rel=1e-4)


def test_steps_of_training_have_the_expected_gradient_on_average(parts):
    made = parts(SEGMENTS, 16)
    batches = [made.batch_at(step) for step in range(300)]
    sizes = {batch.tokens.shape[1] for batch in batches}
    assert sizes == {12, 40}
    found = np.array(list(map(gradient_of(made), batches)))
    error = found.std() / np.sqrt(len(found))
    assert abs(found.mean() - by_hand(SEGMENTS)) < 3.5 * error


def test_pairs_of_validation_that_are_larger_than_any_of_training_fit():
    training = [whole(of_size(4, 20, 0)), whole(of_size(12, 20, 1))]
    validation = [*training, whole(of_size(3, 20, 2)), whole(of_size(30, 20, 3))]
    plan = pairs.make_plan(validation, LAW)
    buckets = mixture.make_buckets(training)
    parts = train._validation_parts(plan, buckets, 40, 1)
    sizes = pairs.sizes_at(plan, 40, seed=0, step=0)
    assert [part.num_nodes for part in parts] == [4, 12, 30]
    assert sorted(row for part in parts for row in part.rows.tolist()) == [*range(40)]
    for part, smallest in zip(parts, (3, 12, 30), strict=True):
        assert sizes[part.rows].min() == smallest
        batch = pairs.draw(plan, 40, part.num_nodes, 0, 0, rows=part.rows)
        assert (batch.tokens > 0).sum(axis=1).max() == part.num_nodes


def test_crops_are_of_the_bucket_of_their_size():
    long = whole(of_size(200, 20, 0))._replace(crop=Crop(14, in_space=True))
    segments = [long, whole(of_size(12, 20, 1)), whole(of_size(3, 20, 2))]
    buckets = mixture.make_buckets(segments)
    assert [bucket.num_nodes for bucket in buckets] == [14, 3]
    assert buckets[0].probability == pytest.approx(2 / 3)
    batch = pairs.batch_at(segments, LAW, 8, 14, 0, 0, shares=buckets[0].shares)
    assert batch.source.shape[:2] == (8, 14)


def test_entries_that_have_nothing_to_train_on_leave_their_weight_to_others():
    shares = mixture.shares_of(SEGMENTS[:2])
    assert shares == pytest.approx([0.5, 0.5])
    serving = np.array([False, True, True, True])
    shares = mixture.shares_of(SEGMENTS, serving)
    assert shares == pytest.approx([0.0, 3 / 4, 1 / 12, 1 / 6])


def test_a_step_takes_no_longer_with_a_hundred_times_the_data(monkeypatch):
    """Nothing is asked of a segment that is not drawn."""
    segments = [whole(of_size(4, 40, 0))] * 2_000
    plan = pairs.make_plan(segments, LAW)
    asked = []
    fill = pairs._fill
    monkeypatch.setattr(
        pairs, "_fill", lambda batch, rows, plan, index, drawn: (
            asked.append(index), fill(batch, rows, plan, index, drawn)
        ),
    )  # fmt: skip

    class Watched(tuple):
        def __iter__(self):
            raise AssertionError("a step goes through all segments")

    watched = plan._replace(segments=Watched(segments), lags=Watched(plan.lags))
    pairs.draw(watched, 8, 4, seed=0, step=0)
    assert len(asked) <= 8
