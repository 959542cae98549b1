"""States and Markov models of them, on deeptime.

Times are counted in frames here and turned into ps by the caller. Both sides go through
the same states and the same estimator; transitions are counted once in each unit.
"""

import warnings
from collections.abc import Mapping, Sequence

import numpy as np
import scipy.sparse
from deeptime.clustering import KMeans, KMeansModel
from deeptime.markov import TransitionCountEstimator, TransitionCountModel
from deeptime.markov.msm import MarkovStateModel, MaximumLikelihoodMSM
from jaxtyping import Bool, Float, Int
from scipy.sparse.csgraph import connected_components

MAX_DIMENSIONS = 4
"""TICs that are kept, and that states are clustered in."""

NUM_CLUSTERS = 100
NUM_CELLS = 18
"""Cells of a grid of states along phi and along psi."""

CONNECTED = 0.95
"""Share of frames in states that connect from which a model is one of its data."""

_LEAST_CLUSTERS = 5
_FEW_FRAMES = 20
"""Frames of a state below which a Markov model is rough, and has fewer states."""

_NUM_CLUSTERED = 20_000
"""Frames of the reference that cluster centres are fitted to."""

ALPHA_PSI = (-2.0, 1.0)  # rad
LEFT_PHI = (0.0, 2.6)  # rad
BASINS = ("alphaR", "beta", "phi>0")

Frames = Sequence[Float[np.ndarray, "_ num_feats"]]
States = Sequence[Int[np.ndarray, " _"]]


def basin_of(
    phi: Float[np.ndarray, "*shape"], psi: Float[np.ndarray, "*shape"]
) -> Int[np.ndarray, "*shape"]:
    """Returns the place in `BASINS` of torsions in radians.

    `phi>0` is phi from 0 to 2.6; of the rest, `alphaR` is phi below 0 with psi from -2
    to 1, and `beta` everything else.

    >>> phi, psi = np.radians([-60.0, -120.0, 60.0]), np.radians([-45.0, 130.0, 45.0])
    >>> [BASINS[place] for place in basin_of(phi, psi)]
    ['alphaR', 'beta', 'phi>0']
    """
    is_left = (phi > LEFT_PHI[0]) & (phi < LEFT_PHI[1])
    is_alpha = (phi < 0.0) & (psi > ALPHA_PSI[0]) & (psi < ALPHA_PSI[1])
    return np.where(is_left, 2, np.where(is_alpha, 0, 1))


def cells_of(
    phi: Float[np.ndarray, " num_frames"],
    psi: Float[np.ndarray, " num_frames"],
    num_cells: int = NUM_CELLS,
) -> Int[np.ndarray, " num_frames"]:
    """Numbers cells of a grid, by default of 20 by 20 degrees.

    >>> cells_of(np.array([-3.14, 3.14]), np.array([-3.14, 3.14])).tolist()
    [0, 323]

    Args:
        phi: torsions in radians.
        psi: torsions in radians.
        num_cells: cells along either axis.
    """
    axes = [
        np.clip((angle + np.pi) / (2 * np.pi) * num_cells, 0, num_cells - 1)
        for angle in (phi, psi)
    ]
    return axes[0].astype(int) * num_cells + axes[1].astype(int)


def fit_clusters(
    reference: Frames, seed: int, at_most: int = NUM_CLUSTERS
) -> KMeansModel:
    """Fits k-means clusters, with fewer of them where frames are few."""
    frames = np.concatenate(reference)
    frames = frames[:: -(-len(frames) // _NUM_CLUSTERED)]
    count = min(at_most, max(2, len(frames) // 10))
    return KMeans(count, fixed_seed=seed, n_jobs=1).fit_fetch(frames)


def connected_clusters(reference: Frames, seed: int, lag: int) -> KMeansModel:
    """Fits as many clusters as the reference connects, at most `NUM_CLUSTERS`.

    Where less than `CONNECTED` of its frames are in states that connect, it tries half
    as many states, as long as a state has fewer than `_FEW_FRAMES`; the first of the
    best is kept.
    """
    best, most, count = None, -1.0, NUM_CLUSTERS
    least = max(_LEAST_CLUSTERS, sum(map(len, reference)) // _FEW_FRAMES)
    while most < 0.0 or (count >= least and most < CONNECTED):
        clusters = fit_clusters(reference, seed, count)
        states = [clusters.transform(unit, n_jobs=1) for unit in reference]
        counts = count_transitions(states, clusters.n_clusters, lag)
        share = _share_connected(counts, states, clusters.n_clusters)
        if share > most:
            best, most = clusters, share
        count = min(count, clusters.n_clusters) // 2
    return best


def _share_connected(
    counts: scipy.sparse.csr_array, states: States, num_states: int
) -> float:
    """Returns the share of frames in the largest set that connects both ways."""
    summed = np.asarray(counts.sum(axis=0)).reshape(num_states, num_states)
    parts = connected_components(summed, connection="strong")[1]
    visits = np.bincount(np.concatenate(states), minlength=num_states)
    return float(np.bincount(parts, visits).max() / visits.sum())


def count_transitions(
    units: States, num_states: int, lag: int
) -> scipy.sparse.csr_array:
    """Counts transitions in a sliding window, one flattened matrix for each unit.

    >>> counts = count_transitions([np.array([0, 0, 1, 0])], num_states=2, lag=1)
    >>> counts.toarray().reshape(2, 2).tolist()
    [[1.0, 1.0], [1.0, 0.0]]
    """
    rows = []
    for states in units:
        estimator = TransitionCountEstimator(
            lag, "sliding", n_states=num_states, sparse=True
        )
        counts = estimator.fit_fetch(states.astype(np.int32)).count_matrix
        rows.append(scipy.sparse.csr_array(counts).reshape(1, -1))
    return scipy.sparse.csr_array(scipy.sparse.vstack(rows))


def fit_msm(
    counts: Float[np.ndarray, "num_states num_states"],
    lag: int,
    max_error: float = 1e-8,
) -> MarkovStateModel | None:
    """Fits a reversible model on the largest connected set of states.

    >>> msm = fit_msm(np.array([[8.0, 2.0], [2.0, 8.0]]), lag=1)
    >>> msm.transition_matrix.round(3).tolist()
    [[0.8, 0.2], [0.2, 0.8]]

    Args:
        counts: counts of transitions, from rows to columns.
        lag: Frames.
        max_error: error at which the iteration for the largest likelihood ends.

    Returns:
        The model, or None where fewer than two states are connected.
    """
    model = TransitionCountModel(counts, counting_mode="sliding", lagtime=lag)
    connected = model.submodel_largest()
    if connected.n_states < 2:
        return None
    return MaximumLikelihoodMSM(reversible=True, maxerr=max_error).fit_fetch(connected)


def time_scales(
    msm: MarkovStateModel | None, count: int
) -> Float[np.ndarray, " num_scales"]:
    r"""Returns implied time-scales $-\tau / \ln |\lambda_i|$ in frames, slowest first.

    >>> msm = fit_msm(np.array([[8.0, 2.0], [2.0, 8.0]]), lag=1)
    >>> time_scales(msm, 1).round(3).tolist()  # -1 / ln .6
    [1.958]

    Args:
        msm: Markov model; NaN are returned where it is None.
        count: length of the result, filled up with NaN.
    """
    found = np.full(count, np.nan)
    if msm is not None:
        # Eigenvalues of 0 and of 1 have the times 0 and infinity: no fault.
        with np.errstate(divide="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            scales = msm.timescales(min(count, msm.n_states - 1))
        # An eigenvalue may be above 1 by rounding: its time is endless, not negative.
        found[: len(scales)] = np.where(scales < 0.0, np.inf, scales)
    return found


def stationary(
    msm: MarkovStateModel, num_states: int
) -> Float[np.ndarray, " num_states"]:
    """Returns the stationary weights; states outside the connected set have none.

    >>> counts = np.array([[9.0, 1.0, 0.0], [1.0, 4.0, 0.0], [0.0, 0.0, 0.0]])
    >>> stationary(fit_msm(counts, lag=1), 3).round(3).tolist()
    [0.667, 0.333, 0.0]
    """
    weights = np.zeros(num_states)
    weights[msm.count_model.state_symbols] = msm.stationary_distribution
    return weights


def coverage(
    msm: MarkovStateModel | None, units: States, num_states: int
) -> dict[str, int | float]:
    """Returns how many states are connected, and their share of states and of frames.

    >>> msm = fit_msm(np.array([[9.0, 1.0, 0.0], [1.0, 4.0, 0.0], [0, 0, 0]]), lag=1)
    >>> coverage(msm, [np.array([0, 1, 2, 0])], num_states=4)
    {'connected_states': 2, 'covered_states': 0.5, 'covered_frames': 0.75}
    """
    visits = np.bincount(np.concatenate(units), minlength=num_states)
    none = np.zeros(0, int)
    connected = none if msm is None else msm.count_model.state_symbols
    return {
        "connected_states": len(connected),
        "covered_states": len(connected) / num_states,
        "covered_frames": float(visits[connected].sum() / visits.sum()),
    }


def word(covered: Mapping[str, int | float], num_states: int, num_frames: int) -> str:
    """Says in plain words what the data do not allow of a Markov model, if anything.

    >>> word({"connected_states": 9, "covered_frames": 0.99}, 10, 1000)
    ''
    >>> word({"connected_states": 1, "covered_frames": 0.4}, 10, 1000)
    'no Markov model: no trajectory goes from one state to another and back'

    Args:
        covered: result of `coverage`.
        num_states: number of states.
        num_frames: number of frames.
    """
    connected, share = covered["connected_states"], covered["covered_frames"]
    if connected < 2:
        return "no Markov model: no trajectory goes from one state to another and back"
    if share < CONNECTED:
        return (
            f"the Markov model is of {share:.0%} of the frames: the rest is in states "
            "that trajectories enter or leave, not both"
        )
    if num_frames < _FEW_FRAMES * num_states:
        return (
            f"the Markov model is rough: {num_frames} frames are few for {num_states} "
            "states"
        )
    return ""


def set_weights(
    msm: MarkovStateModel | None, sets: Mapping[str, Bool[np.ndarray, " num_states"]]
) -> dict[str, float]:
    """Returns the stationary weight of each set of states; NaN without a model.

    >>> msm = fit_msm(np.array([[9.0, 1.0], [1.0, 4.0]]), lag=1)
    >>> round(set_weights(msm, {"first": np.array([True, False])})["first"], 3)
    0.667
    """
    if msm is None:
        return dict.fromkeys(sets, np.nan)
    return {
        name: float(stationary(msm, len(inside)) @ inside)
        for name, inside in sets.items()
    }


def frame_weights(
    units: States, weights: Float[np.ndarray, " num_states"]
) -> list[Float[np.ndarray, " _"]]:
    """Shares the weight of each state among its frames.

    >>> units = [np.array([0, 0, 1]), np.array([1, 1])]
    >>> [weights.tolist() for weights in frame_weights(units, np.array([0.5, 0.75]))]
    [[0.25, 0.25, 0.25], [0.25, 0.25]]
    """
    visits = np.bincount(np.concatenate(units), minlength=len(weights))
    share = weights / np.maximum(visits, 1)
    return [share[states] for states in units]


def passage_times(
    msm: MarkovStateModel | None, sets: Mapping[str, Bool[np.ndarray, " num_states"]]
) -> dict[str, float]:
    """Returns mean first passage times in frames between sets of states.

    NaN where a set has no state that the model knows.

    >>> msm = fit_msm(np.array([[8.0, 2.0], [2.0, 8.0]]), lag=1)
    >>> sets = {"a": np.array([True, False]), "b": np.array([False, True])}
    >>> {name: round(time, 3) for name, time in passage_times(msm, sets).items()}
    {'a to b': 5.0, 'b to a': 5.0}
    """
    found = {}
    members = {}
    if msm is not None:
        symbols = msm.count_model.state_symbols
        members = {
            name: np.flatnonzero(inside[symbols]) for name, inside in sets.items()
        }
    for first in sets:
        for last in sets:
            if first == last:
                continue
            known = msm is not None and len(members[first]) and len(members[last])
            found[f"{first} to {last}"] = (
                float(msm.mfpt(members[first], members[last])) if known else np.nan
            )
    return found


def stay_probabilities(
    msm: MarkovStateModel | None,
    sets: Mapping[str, Bool[np.ndarray, " num_states"]],
    power: int,
) -> dict[str, float]:
    """Returns how likely one is in the set where one started, `power` lags later.

    The start is drawn from the stationary weights within the set. Compared with a model
    of the longer lag this is the test of Chapman and Kolmogorov. NaN where a set has no
    state that the model knows.

    >>> msm = fit_msm(np.array([[8.0, 2.0], [2.0, 8.0]]), lag=1)
    >>> round(stay_probabilities(msm, {"a": np.array([True, False])}, power=2)["a"], 3)
    0.68
    """
    found = {}
    for name, inside in sets.items():
        found[name] = np.nan
        if msm is None:
            continue
        members = inside[msm.count_model.state_symbols]
        start = np.where(members, msm.stationary_distribution, 0.0)
        if start.sum() > 0.0:
            moved = start @ np.linalg.matrix_power(msm.transition_matrix, power)
            found[name] = float(moved[members].sum() / start.sum())
    return found


def slow_sets(
    msm: MarkovStateModel | None, num_states: int
) -> dict[str, Bool[np.ndarray, " num_states"]]:
    """Divides states by the sign of the slowest right eigenvector.

    States outside the connected set are in neither part.

    >>> msm = fit_msm(np.array([[8.0, 2.0], [2.0, 8.0]]), lag=1)
    >>> sorted(inside.tolist() for inside in slow_sets(msm, 2).values())
    [[False, True], [True, False]]
    """
    if msm is None:
        return {}
    symbols = msm.count_model.state_symbols
    vector = np.real(msm.eigenvectors_right(2)[:, 1])
    sets = {}
    for name, inside in (("slow A", vector < 0.0), ("slow B", vector >= 0.0)):
        sets[name] = np.zeros(num_states, bool)
        sets[name][symbols[inside]] = True
    return sets
