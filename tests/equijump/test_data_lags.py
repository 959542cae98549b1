"""Tests of lags: what a trajectory serves of a law, and pairs by time."""

import numpy as np
import pytest

from equijump.data import lags, pairs
from equijump.data.lags import Lags
from tests.equijump.test_data_pairs import make_trajectory, whole

STEPS = np.array([10_000, 10_001, 10_010, 10_100, 11_000])


def uneven(times):
    """A trajectory with times of its own; its coordinates are frame numbers."""
    spacing = float(np.median(np.diff(times)))
    return make_trajectory(len(times), spacing)._replace(times=np.asarray(times))


def logarithmic(num_periods=80):
    """Frames at five steps of .5 fs in every 10,000."""
    periods = 10_000 * np.arange(num_periods)[:, None]
    return uneven(0.0005 * (periods + STEPS).ravel())


def jittered(num_frames=600, seed=0):
    """Frames about a picosecond apart, to ten percent."""
    rng = np.random.default_rng(seed)
    return uneven(np.cumsum(1.0 + 0.1 * rng.uniform(-1, 1, num_frames)))


def listed(*values):
    return Lags(tuple(map(float, values)), is_range=False)


def numbers_of(batch):
    return [np.int64(x[:, 0, 0, 0]) for x in (batch.source, batch.target)]


def serving_by_hand(times, lag):
    """The frame nearest to a lag after each one; -1 where it is too far from it."""
    found = np.full(len(times), -1)
    for row, time in enumerate(times):
        nearest = int(np.argmin(np.abs(times - time - lag)))
        off = abs(times[nearest] - time - lag)
        if time + lag <= times[-1] + 1e-6 * lag and off <= lags.TOLERANCE * lag:
            found[row] = nearest
    return found


@pytest.mark.parametrize("lag", [0.5, 1.0, 5.0, 10.0, 0.0045])
@pytest.mark.parametrize("make", [logarithmic, jittered])
def test_partners_by_time_are_those_found_one_by_one(make, lag):
    times = make().times
    found, serves = lags.partners(times, np.arange(len(times)), lag)
    expected = serving_by_hand(times, lag)
    np.testing.assert_array_equal(np.where(serves, found[0], -1), expected)


@pytest.mark.parametrize(("make", "lag"), [(logarithmic, 0.5), (jittered, 3.0)])
def test_pairs_by_time_come_evenly_from_all_that_serve(make, lag):
    trajectory = make()
    times = trajectory.times
    segment = pairs.Segment(trajectory, 20, 220)
    batch = pairs.batch_at([segment], listed(lag), 20_000, 1, seed=0, step=0)
    source, target = numbers_of(batch)
    inside = serving_by_hand(times[20:220], lag)
    serving = np.flatnonzero(inside >= 0)
    assert 0 < len(serving) <= 200
    assert set(source - 20) == set(serving)
    np.testing.assert_array_equal(target - 20, inside[source - 20])
    counts = np.bincount(source - 20, minlength=200)[serving]
    expected = len(source) / len(serving)
    assert np.abs(counts - expected).max() < 6.0 * np.sqrt(expected)
    told = batch.conditions["lag"].value
    np.testing.assert_allclose(told, times[target] - times[source], rtol=1e-5)


def test_sources_of_uneven_times_come_by_their_weights():
    trajectory = jittered()
    weights = np.tile([1.0, 3.0], 300)
    batch = pairs.batch_at([whole(trajectory, weights)], listed(5), 8_000, 1, 0, 0)
    assert np.mean(numbers_of(batch)[0] % 2) == pytest.approx(0.75, abs=0.02)


def test_frames_before_are_found_by_time_too():
    trajectory = logarithmic()
    batch = pairs.batch_at([whole(trajectory)], listed(5), 500, 1, 0, 0, num_before=2)
    frames = [*np.moveaxis(batch.before, 1, 0), batch.source, batch.target]
    times = trajectory.times[np.int64([frame[:, 0, 0, 0] for frame in frames])]
    np.testing.assert_allclose(np.diff(times, axis=0), 5.0, rtol=lags.TOLERANCE)


def test_a_rare_source_is_found_although_all_tries_fail():
    """One frame in a hundred has a target; tries alone would miss it often."""
    starts = 1_000.0 * np.arange(3_000)
    extra = starts[::40] + 7.0
    trajectory = uneven(np.sort(np.concatenate([starts, extra])))
    batch = pairs.batch_at([whole(trajectory)], listed(7), 600, 1, seed=0, step=0)
    np.testing.assert_array_equal(batch.conditions["lag"].value, 7.0)
    assert len(set(numbers_of(batch)[0])) > 50


def test_batches_of_uneven_times_are_functions_of_seed_and_step():
    segments, law = [whole(logarithmic()), whole(jittered())], listed(0.5, 5)
    draw = lambda step, rows=None: pairs.batch_at(
        segments, law, 64, 1, 3, step, 0, rows
    )
    np.testing.assert_array_equal(draw(1).source, draw(1).source)
    assert np.any(draw(1).source != draw(2).source)
    rows = np.array([5, 60, 5])
    np.testing.assert_array_equal(draw(1, rows).target, draw(1).target[rows])


@pytest.mark.parametrize(
    ("asked", "spacing", "found"),
    [
        ((2.0,), 2.0, (2.0,)),
        ((10.0, 10.0, 50.0), 5.0, (10.0, 10.0, 50.0)),
        ((10.0, 250.0, 500.0), 100.0, (200.0, 500.0)),
        ((10.0, 50.0), 4.0, (8.0, 48.0)),
        ((0.5, 3.0), 2.0, ()),
        ((50.0,), 100.0, ()),
    ],
)
def test_lags_of_a_list_are_snapped_to_the_spacing(asked, spacing, found):
    segment = whole(make_trajectory(200, spacing))
    assert lags.served(listed(*asked), segment).values == found


@pytest.mark.parametrize(
    ("spacing", "num_frames", "ends"),
    [
        (5.0, 1_000, (10.0, 500.0)),
        (100.0, 1_000, (100.0, 500.0)),
        (7.0, 1_000, (14.0, 497.0)),
        (5.0, 101, (10.0, 250.0)),
        (600.0, 1_000, ()),
    ],
)
def test_a_range_is_snapped_to_spacing_and_length(spacing, num_frames, ends):
    segment = whole(make_trajectory(num_frames, spacing))
    found = lags.served(Lags((10.0, 500.0), is_range=True), segment)
    assert found == Lags(ends, is_range=True)
    if ends:
        law = Lags((10.0, 500.0), is_range=True)
        batch = pairs.batch_at([segment], law, 4_000, 1, seed=0, step=0)
        drawn = batch.conditions["lag"].value
        assert (drawn.min(), drawn.max()) == ends
        np.testing.assert_allclose(drawn, np.round(drawn / spacing) * spacing)


def test_a_range_of_uneven_times_is_log_uniform():
    law = Lags((2.0, 50.0), is_range=True)
    batch = pairs.batch_at([whole(jittered())], law, 6_000, 1, seed=0, step=0)
    told = batch.conditions["lag"].value
    assert np.mean(told > 10.0) == pytest.approx(0.5, abs=0.05)
    assert np.mean(told > 22.4) == pytest.approx(0.25, abs=0.05)
    assert (told.min() < 3.0, told.max() > 45.0) == (True, True)


def test_lags_of_a_range_that_uneven_times_lack_are_left_out():
    law = Lags((0.5, 50.0), is_range=True)
    served = lags.served(law, whole(logarithmic(400))).values
    assert len(served) > 5
    assert not [lag for lag in served if 0.7 < lag < 3.5]


def test_lags_without_half_of_the_frames_as_sources_are_not_served():
    segment = whole(make_trajectory(101, 1.0))
    assert lags.served(listed(10, 50, 51), segment).values == (10.0, 50.0)
    assert (
        lags.served(listed(10, 25, 34), segment, num_before=2).values
        == (10, 25, 33)[:2]
    )
    assert lags.served(listed(10, 11), segment, num_blocks=5).values == (10.0,)


def test_segments_that_serve_nothing_never_come():
    fine, coarse = whole(make_trajectory(spacing=5.0)), whole(
        make_trajectory(spacing=100.0, start=1_000)
    )  # fmt: skip
    draw = lambda *values: pairs.batch_at([fine, coarse], listed(*values), 400, 1, 0, 0)
    assert numbers_of(draw(10))[0].max() < 1_000
    assert numbers_of(draw(1_000))[0].min() >= 1_000
    both = draw(10, 100)
    is_coarse = numbers_of(both)[0] >= 1_000
    assert np.mean(is_coarse) == pytest.approx(0.5, abs=0.1)
    np.testing.assert_array_equal(both.conditions["lag"].value[is_coarse], 100.0)


def test_repeated_lags_come_more_often_and_are_measured_once():
    law = listed(50, 10, 10)
    batch = pairs.batch_at([whole(make_trajectory())], law, 6_000, 1, 0, 0)
    share = np.mean(batch.conditions["lag"].value == 10.0)
    assert share == pytest.approx(2 / 3, abs=0.02)
    segments = [whole(make_trajectory(spacing=s)) for s in (5.0, 0.1, 9.0, 100.0)]
    assert lags.representative(law, segments[:2]) == (10.0, 50.0)
    assert lags.representative(law, segments) == (9.0, 10.0, 50.0, 54.0)
    assert lags.representative(listed(0.3, 52), segments[:2]) == (0.3, 50.0)


def test_representative_lags_of_a_range_are_multiples_that_are_served():
    law = Lags((10.0, 500.0), is_range=True)
    segments = [whole(make_trajectory(200, s)) for s in (5.0, 100.0)]
    found = np.array(lags.representative(law, segments))
    assert (found[0], found[-1]) == (10.0, 500.0)
    assert np.all(np.diff(found) > 0)
    np.testing.assert_allclose(found, 5.0 * np.round(found / 5.0))
    assert lags.representative(law, segments[1:])[0] == 100.0


def test_representative_lags_are_those_that_something_serves():
    law = Lags((10.0, 5_000.0), is_range=True)
    fine, coarse = whole(make_trajectory(55, 5.0)), whole(make_trajectory(95, 100.0))
    segments = [fine, coarse, whole(jittered())]
    found = lags.representative(law, segments)
    assert (found[0], found[-1]) == (10.0, 4_700.0)
    assert len(found) >= 8
    for lag in found:
        batch = pairs.batch_at(segments, listed(lag), 4, 1, seed=0, step=0)
        told = batch.conditions["lag"].value
        np.testing.assert_allclose(told, lag, rtol=lags.TOLERANCE + 1e-6)


def test_what_is_not_served_is_told_by_its_cause():
    segment = whole(make_trajectory(10))
    told = lags.refusal(3.0, segment)
    assert "expected multiples of 2 ps to 25%, the spacing of made, found 3 ps" in told
    assert "expected more than 10 frames for lags up to 10 ps" in lags.refusal(
        10.0, segment
    )
    assert "frames that are 300 ps apart to 25%" in lags.refusal(
        300.0, whole(jittered(1_000))
    )
    assert "expected more than 60 ps for lags up to 30 ps, found 45.5 ps" in (
        lags.refusal(30.0, whole(logarithmic(10)))
    )
