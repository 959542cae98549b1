"""Tests of MDGen's figures against their formulas written out with SciPy and loops."""

import numpy as np
import pytest
from scipy import linalg
from scipy.spatial.distance import jensenshannon

from equijump.evaluate import kinetics, mdgen

KINDS = ("psi", "omega", "phi", "psi", "chi1")
RESIDUES = (0, 1, 1, 1, 1)


def wrapped(angles):
    return (angles + np.pi) % (2 * np.pi) - np.pi


def side(seed, shift, num_units=3, num_frames=400):
    """Torsions that hop between two wells, psi with phi, and others that are noise."""
    rng = np.random.default_rng(seed)
    units = []
    for _ in range(num_units):
        hops = np.cumsum(rng.random(num_frames) < 0.05) % 2
        angles = rng.normal(0.0, 0.3, (num_frames, 5))
        angles[:, 2] += 2.0 * hops - 1.0 + shift
        angles[:, 3] -= 2.0 * hops - 1.0
        angles[:, 4] += 3.0
        units.append(wrapped(angles))
    return mdgen.Named(KINDS, RESIDUES, units)


@pytest.fixture(scope="module")
def both():
    return side(0, 0.4), side(1, 0.0)


@pytest.fixture(scope="module")
def found(both):
    return mdgen.measure(*both, spacing=10.0, refine=False)


def histogram_distance(ours, theirs, column):
    circle = (-np.pi, np.pi)
    sides = [np.concatenate(side.units)[:, column] for side in (ours, theirs)]
    return jensenshannon(*(np.histogram(x, 100, circle)[0] for x in sides))


def test_torsions_are_means_of_scipys_distances_over_100_bins(both, found):
    each = {column: histogram_distance(*both, column) for column in (0, 2, 3, 4)}
    assert found["backbone"] == pytest.approx(np.mean([each[c] for c in (0, 2, 3)]))
    assert found["side_chain"] == pytest.approx(each[4])
    assert found["all_torsions"] == pytest.approx(np.mean(list(each.values())))


def test_phi_and_psi_together_have_50_by_50_bins(both, found):
    ends = [(-np.pi, np.pi)] * 2
    counts = []
    for one in both:
        joined = np.concatenate(one.units)
        counts.append(np.histogram2d(*joined[:, [2, 3]].T, 50, ends)[0].ravel())
    assert found["ramachandran"] == pytest.approx(jensenshannon(*counts))


def explicit_tica(units, lag):
    """Slow coordinates by covariances in loops and a generalised eigenproblem."""
    circle = [np.concatenate([np.cos(x), np.sin(x)], axis=1) for x in units]
    before = np.concatenate([x[:-lag] for x in circle])
    after = np.concatenate([x[lag:] for x in circle])
    mean = (before.mean(axis=0) + after.mean(axis=0)) / 2
    before, after = before - mean, after - mean
    now = (before.T @ before + after.T @ after) / (2 * len(before))
    later = (before.T @ after + after.T @ before) / (2 * len(before))
    values, vectors = linalg.eigh(later, now)
    order = np.argsort(-values)
    return lambda x: (
        (np.concatenate([np.cos(x), np.sin(x)], axis=1) - mean)
        @ vectors[:, order[:2]]
        * values[order[:2]]
    )


def test_slow_coordinates_are_the_references_at_a_lag_of_100_ps(both, found):
    chosen = [0, 2, 3, 4]
    ours, theirs = ([unit[:, chosen] for unit in one.units] for one in both)
    project = explicit_tica(theirs, lag=10)
    first, second = (np.concatenate([project(x) for x in s]) for s in (ours, theirs))
    joined = np.concatenate([first, second])
    ends = [(low, high) for low, high in zip(joined.min(0), joined.max(0), strict=True)]
    one = [np.histogram(x[:, 0], 100, ends[0])[0] for x in (first, second)]
    assert found["lag"] == 100.0
    assert found["tica_0"] == pytest.approx(jensenshannon(*one), abs=0.02)
    two = [np.histogram2d(*x.T, 50, ends)[0].ravel() for x in (first, second)]
    assert found["tica_01"] == pytest.approx(jensenshannon(*two), abs=0.03)


def test_the_same_side_twice_has_no_distance(both):
    same = mdgen.measure(both[0], both[0], spacing=10.0, refine=False)
    for name in ("backbone", "side_chain", "tica_0", "tica_01", "msm_states"):
        assert same[name] == pytest.approx(0.0, abs=1e-6)


def test_states_of_two_wells_are_told_apart_and_their_shares_compared():
    msm = kinetics.fit_msm(
        np.array([[90.0, 9, 0, 0], [9, 90, 1, 0], [0, 1, 90, 9], [0, 0, 9, 90]]), 1
    )
    assert mdgen.corners(msm, 2).tolist() in ([0, 0, 1, 1], [1, 1, 0, 0])
    np.testing.assert_array_equal(
        mdgen.corners(msm, 2) == mdgen.corners(msm, 2)[0],
        msm.pcca(2).assignments == msm.pcca(2).assignments[0],
    )


def test_decorrelation_is_the_formula_written_out():
    rng = np.random.default_rng(0)
    angles = np.cumsum(rng.normal(0.0, 0.4, 60))
    base = np.cos(angles).mean() ** 2 + np.sin(angles).mean() ** 2
    for lag, value in enumerate(mdgen.decorrelation([angles], 5)):
        pairs = [np.cos(angles[t] - angles[t + lag]) for t in range(60 - lag)]
        assert value == pytest.approx((np.mean(pairs) - base) / (1 - base))


def test_a_reference_that_stands_still_has_torsions_but_no_slow_coordinates():
    still = mdgen.Named(("phi",), (0,), [np.full((40, 1), 0.5)] * 2)
    found = mdgen.measure(still, still, spacing=10.0)
    assert found["backbone"] == 0.0
    assert found["side_chain"] is found["tica_0"] is found["msm_states"] is None
