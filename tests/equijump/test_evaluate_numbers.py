"""Tests of counts, resamples and models against values found by hand."""

import math

import numpy as np
import pytest

from equijump.evaluate import correlations, kinetics, resampling


def test_divergence_of_disjoint_histograms_is_ln_2():
    p, q = np.array([3, 1, 0, 0]), np.array([0, 0, 5, 5])
    assert resampling.jensen_shannon(p, q) == pytest.approx(math.log(2))
    assert resampling.jensen_shannon(p, 7 * p) == 0.0


def test_divergence_is_that_of_its_formula_row_by_row():
    p, q = np.array([[1, 3], [2, 2]]), np.array([[3, 1], [1, 1]])
    x, y = 0.25, 0.75
    expected = x * math.log(x / 0.5) + y * math.log(y / 0.5)
    np.testing.assert_allclose(resampling.jensen_shannon(p, q), [expected, 0.0])


def test_bins_of_two_axes_are_counted_through_and_closed_at_the_ends():
    edges = (np.array([0.0, 1, 2]), np.array([0.0, 1, 2, 3]))
    values = np.array([[0.5, 0.5], [1.5, 2.5], [-9, 9], [2.0, 0.0], [1.0, 1.0]])
    np.testing.assert_array_equal(resampling.bins_of(values, edges), [0, 5, 2, 3, 4])


def test_histograms_are_of_each_unit():
    found = resampling.histograms([np.array([0, 2, 2]), np.array([1])], 4)
    np.testing.assert_array_equal(found, [[1, 0, 2, 0], [0, 1, 0, 0]])
    np.testing.assert_allclose(resampling.shares(found)[0], [1 / 3, 0, 2 / 3, 0])


def test_resamples_draw_as_many_units_as_there_are_and_halves_are_halves():
    found = resampling.draw(7, 5, 200, seed=1)
    assert np.all(found.trajectory.sum(axis=1) == 7)
    assert np.all(found.reference.sum(axis=1) == 5)
    assert np.all(found.halves.sum(axis=1) == 2)
    assert set(np.unique(found.halves)) == {0, 1}
    assert np.mean(found.trajectory == 0) == pytest.approx((6 / 7) ** 7, abs=0.03)
    again = resampling.draw(7, 5, 200, seed=1)
    np.testing.assert_array_equal(found.trajectory, again.trajectory)


def test_intervals_hold_the_middle_and_leave_out_what_is_not_finite():
    values = np.append(np.arange(1_001.0), [np.nan, np.inf])
    np.testing.assert_allclose(resampling.interval(values), [25.0, 975.0])
    assert np.isnan(resampling.interval(np.full(5, np.nan))).all()
    assert resampling.interval(np.ones((9, 3))).shape == (2, 3)


def test_an_estimate_has_its_value_and_ends():
    found = resampling.estimate(3.0, np.linspace(0.0, 1.0, 101))
    assert found == pytest.approx({"value": 3.0, "low": 0.025, "high": 0.975})


def test_a_comparison_with_itself_is_zero_and_above_its_low_end():
    counts = np.random.default_rng(0).poisson(50.0, (6, 8))
    found = resampling.compare(counts, counts, resampling.draw(6, 6, 100, 0))
    assert found.js == found.root == found.low == 0.0
    assert 0.0 < found.high < 0.1
    assert found.floor_root == pytest.approx(math.sqrt(found.floor))


def test_cells_are_twenty_degrees_wide_and_cover_the_circle():
    angles = np.radians(np.arange(-180.0, 180.0, 20.0) + 10.0)
    phi, psi = (x.ravel() for x in np.meshgrid(angles, angles, indexing="ij"))
    np.testing.assert_array_equal(kinetics.cells_of(phi, psi), np.arange(18 * 18))
    ends = kinetics.cells_of(np.array([-np.pi, np.pi]), np.array([-np.pi, np.pi]))
    np.testing.assert_array_equal(ends, [0, 18 * 18 - 1])


TRANSITIONS = np.array([[0.9, 0.1], [0.3, 0.7]])


@pytest.fixture(scope="module")
def model():
    """Two states of weights 3/4 and 1/4, and a third that is never left."""
    counts = np.zeros((3, 3))
    counts[:2, :2] = np.array([[3.0], [1.0]]) * TRANSITIONS * 1e4
    return kinetics.fit_msm(counts, lag=2)


SETS = {"A": np.array([True, False, False]), "B": np.array([False, True, True])}


def test_a_model_of_two_states_has_its_weights_and_time_scale(model):
    np.testing.assert_allclose(kinetics.stationary(model, 3), [0.75, 0.25, 0.0])
    found = kinetics.time_scales(model, 3)
    assert found[0] == pytest.approx(-2 / math.log(0.6))
    assert np.isnan(found[1:]).all()
    weights = kinetics.set_weights(model, SETS)
    assert weights == pytest.approx({"A": 0.75, "B": 0.25})


def test_first_passage_takes_the_inverse_of_the_probability(model):
    found = kinetics.passage_times(model, SETS)
    assert found["A to B"] == pytest.approx(2 / 0.1, rel=1e-6)
    assert found["B to A"] == pytest.approx(2 / 0.3, rel=1e-6)


def test_staying_is_the_power_of_the_matrix(model):
    for power in (1, 2, 5):
        matrix = np.linalg.matrix_power(TRANSITIONS, power)
        found = kinetics.stay_probabilities(model, SETS, power)
        assert found == pytest.approx({"A": matrix[0, 0], "B": matrix[1, 1]}, rel=1e-6)


def test_slow_sets_divide_the_states_of_the_model(model):
    found = kinetics.slow_sets(model, 3)
    assert sorted(tuple(np.flatnonzero(x)) for x in found.values()) == [(0,), (1,)]


def test_a_set_the_model_does_not_know_has_no_times(model):
    sets = {**SETS, "C": np.array([False, False, True])}
    found = kinetics.passage_times(model, sets)
    assert math.isnan(found["A to C"])
    assert math.isnan(kinetics.stay_probabilities(model, sets, 1)["C"])
    assert kinetics.set_weights(model, sets)["C"] == 0.0


def test_without_a_model_everything_is_nan():
    assert kinetics.fit_msm(np.eye(3), lag=1) is None
    assert np.isnan(kinetics.time_scales(None, 2)).all()
    assert all(map(math.isnan, kinetics.passage_times(None, SETS).values()))
    assert all(map(math.isnan, kinetics.set_weights(None, SETS).values()))
    assert all(map(math.isnan, kinetics.stay_probabilities(None, SETS, 1).values()))
    assert kinetics.slow_sets(None, 3) == {}


def test_frames_share_the_weight_of_their_state():
    units = [np.array([0, 0, 1]), np.array([1, 0])]
    first, second = kinetics.frame_weights(units, np.array([0.6, 0.3, 0.1]))
    np.testing.assert_allclose(first, [0.2, 0.2, 0.15])
    np.testing.assert_allclose(second, [0.15, 0.2])


def test_correlations_are_sums_of_products_within_units():
    rng = np.random.default_rng(0)
    units = [rng.normal(size=(20, 2)), rng.normal(size=(12, 2))]
    sums, terms = correlations.correlation_sums(units, 4, every=2)
    mean = np.mean(np.concatenate(units), axis=0)
    for unit, row, counts in zip(units, sums, terms, strict=True):
        x = unit - mean
        for lag in range(4):
            expected = np.sum(x[: len(x) - 2 * lag] * x[2 * lag :])
            assert row[lag] == pytest.approx(expected)
            assert counts[lag] == len(x) - 2 * lag


def test_correlations_start_at_one_and_are_nan_where_nothing_moves():
    sums, terms = np.array([[4.0, 2.0], [0.0, 0.0]]), np.ones((2, 2), int)
    found = correlations.autocorrelation(
        sums, terms, np.array([[1, 0], [1, 1], [0, 1]])
    )
    np.testing.assert_allclose(found[:2], [[1.0, 0.5]] * 2)
    assert np.isnan(found[2]).all()


def test_the_time_below_a_limit_is_interpolated():
    rows = np.array([[1.0, 0.6, 0.2], [1.0, 0.9, 0.8], [0.1, 0.0, 0.0]])
    found = correlations.time_below(rows, 0.4)
    assert found[0] == pytest.approx(1.5)
    assert np.isnan(found[1])


def test_few_frames_have_few_clusters():
    frames = np.random.default_rng(0).normal(size=(60, 2))
    assert kinetics.fit_clusters([frames[:20], frames[20:]], seed=0).n_clusters == 6
    assert kinetics.fit_clusters([frames[:5]], seed=0).n_clusters == 2


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("counts", "expected"),
    [([[5.0, 5.0], [5.0, 5.0]], 0.0), ([[4.0, 0.0], [0.0, 4.0]], math.nan)],
)
def test_time_scales_of_no_memory_come_without_a_warning(counts, expected):
    msm = kinetics.fit_msm(np.array(counts), lag=1)
    np.testing.assert_allclose(kinetics.time_scales(msm, 1), expected, atol=1e-1)


def test_few_frames_have_as_many_states_as_connect():
    rng = np.random.default_rng(0)
    units = [rng.uniform(0.0, 1.0, (40, 2)) for _ in range(4)]
    found = kinetics.connected_clusters(units, 0, 1)
    first = kinetics.fit_clusters(units, 0)
    share = lambda model: kinetics._share_connected(
        kinetics.count_transitions(
            states := [model.transform(x, n_jobs=1) for x in units],
            model.n_clusters, 1,
        ),
        states, model.n_clusters,
    )  # fmt: skip
    assert share(found) >= share(first)
    assert share(found) > 0.95
    assert found.n_clusters <= first.n_clusters == 16


def test_states_that_trajectories_only_leave_are_told_in_words():
    whole = {"connected_states": 3, "covered_frames": 1.0}
    assert kinetics.word(whole, 3, 600) == ""
    assert "rough: 50 frames are few for 3 states" in kinetics.word(whole, 3, 50)
    part = {"connected_states": 2, "covered_frames": 0.6}
    assert "of 60% of the frames" in kinetics.word(part, 3, 600)
    none = {"connected_states": 0, "covered_frames": 0.0}
    assert kinetics.word(none, 3, 600).startswith("no Markov model")
