"""The figures of MDGen (Jing, Stark, Jaakkola and Berger 2024), by its definitions.

They are Jensen-Shannon *distances*: roots of divergences in nats. Torsions keep the
names of their atoms, also where these mean nothing. Slow coordinates and states are
those of the reference.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from deeptime.clustering import KMeans
from deeptime.decomposition import TICA
from deeptime.markov.msm import MarkovStateModel
from jaxtyping import Float, Int

from equijump.evaluate import correlations, kinetics, resampling

LAG = 100.0
"""ps, of slow coordinates and of the Markov model."""

NUM_BINS, NUM_BINS_OF_PAIRS = 100, 50
NUM_CLUSTERS, NUM_STATES = 100, 10
_VARIANCE = 0.95  # Of slow coordinates, of which so much is kept.
_FITTED = 20_000
"""Frames that cluster centres are fitted to, at most."""

Angles = Sequence[Float[np.ndarray, "_ num_torsions"]]


class Named(NamedTuple):
    """Torsions of one side.

    Attributes:
        kinds: phi, psi, chi1 ... of each; omega is left out of the figures.
        residues: number of the residue of each.
        units: angles in radians of each trajectory.
    """

    kinds: Sequence[str]
    residues: Sequence[int]
    units: Angles


def distance(
    first: Float[np.ndarray, "num_frames num_axes"],
    second: Float[np.ndarray, "num_other_frames num_axes"],
    ranges: Sequence[tuple[float, float]],
    num_bins: int,
) -> float:
    """Returns the Jensen-Shannon distance of two samples in one or more dimensions.

    >>> ends = [(0.0, 1.0)]
    >>> found = distance(np.array([[0.1]]), np.array([[0.9]]), ends, num_bins=2)
    >>> round(found**2, 4)  # ln 2
    0.6931
    """
    edges = [np.linspace(*ends, num_bins + 1) for ends in ranges]
    counts = [
        np.bincount(resampling.bins_of(side, edges), minlength=num_bins ** len(edges))
        for side in (first, second)
    ]
    return float(np.sqrt(max(float(resampling.jensen_shannon(*counts)), 0.0)))


def measure(
    ours: Named,
    theirs: Named,
    spacing: float,
    seed: int = 0,
    refine: bool = True,
) -> dict[str, Any]:
    """Returns MDGen's figures.

    Args:
        ours: torsions of what is judged.
        theirs: the same of the reference.
        spacing: ps between frames, of both.
        seed: seed of the clusters.
        refine: true for the metastable states of PCCA+, in seconds; false for those
            that it starts from, in milliseconds.

    Returns:
        `backbone`, `side_chain` and `all_torsions`, means over torsions; `ramachandran`
        of phi and psi together; `tica_0`, `tica_01` and `msm_states`, None where the
        reference allows none; `torsions`, each; `num_states`, of the Markov model;
        `lag`, in ps.
    """
    chosen = [place for place, kind in enumerate(ours.kinds) if kind != "omega"]
    kinds = [ours.kinds[place] for place in chosen]
    sides = [[unit[:, chosen] for unit in side.units] for side in (ours, theirs)]
    joined = [np.concatenate(side) for side in sides]
    circle = [(-np.pi, np.pi)]
    each = [
        distance(*(x[:, [place]] for x in joined), circle, NUM_BINS)
        for place in range(len(chosen))
    ]
    backbone = [x for x, kind in zip(each, kinds, strict=True) if kind in _BACKBONE]
    others = [x for x, kind in zip(each, kinds, strict=True) if kind not in _BACKBONE]
    lag = _lag_of(sides, spacing)
    return {
        "backbone": _mean(backbone),
        "side_chain": _mean(others),
        "all_torsions": _mean(each),
        "ramachandran": _mean(_pairs(ours, theirs)),
        **_slow(*sides, lag, seed, refine),
        "lag": lag * spacing,
    }


_BACKBONE = ("phi", "psi")


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if len(values) else None


def _pairs(ours: Named, theirs: Named) -> list[float]:
    """Returns the distance of phi and psi together, of each residue with both."""
    named = zip(ours.kinds, ours.residues, strict=True)
    place = {pair: index for index, pair in enumerate(named)}
    joined = [np.concatenate(side.units) for side in (ours, theirs)]
    found = []
    for (kind, residue), phi in place.items():
        if kind == "phi" and ("psi", residue) in place:
            both = [phi, place["psi", residue]]
            sides = (x[:, both] for x in joined)
            found.append(distance(*sides, [(-np.pi, np.pi)] * 2, NUM_BINS_OF_PAIRS))
    return found


def _lag_of(sides: Sequence[Angles], spacing: float) -> int:
    """Returns the lag in frames: `LAG`, or a third of the shortest unit if less."""
    shortest = min(len(unit) for side in sides for unit in side)
    return max(1, min(round(LAG / spacing), shortest // 3))


def _circular(
    angles: Float[np.ndarray, "num_frames num_torsions"],
) -> Float[np.ndarray, "num_frames num_feats"]:
    return np.concatenate([np.cos(angles), np.sin(angles)], axis=1).astype(np.float64)


def _slow(
    ours: Angles, theirs: Angles, lag: int, seed: int, refine: bool
) -> dict[str, Any]:
    """Returns the distances along slow coordinates, and of states of a model."""
    model = _fit_tica([_circular(unit) for unit in theirs], lag)
    if model is None:
        return {"tica_0": None, "tica_01": None, "msm_states": None, "num_states": 0}
    tics = [
        [np.asarray(model.transform(_circular(x))) for x in s] for s in (ours, theirs)
    ]
    first, second = (np.concatenate(side) for side in tics)
    ends = [
        (float(both.min()), float(both.max()))
        for both in np.concatenate([first, second]).T[:2]
    ]
    two = distance(first[:, :2], second[:, :2], ends, NUM_BINS_OF_PAIRS)
    states, count = _states(*tics, lag, seed, refine)
    return {
        "tica_0": distance(first[:, :1], second[:, :1], ends[:1], NUM_BINS),
        "tica_01": two if len(ends) > 1 else None,
        "msm_states": states,
        "num_states": count,
    }


def _fit_tica(units: Angles, lag: int) -> Any:
    """Returns slow coordinates as a kinetic map; None where nothing moves."""
    from deeptime.numeric import ZeroRankError

    estimator = TICA(lagtime=lag, var_cutoff=_VARIANCE, scaling="kinetic_map")
    for unit in units:
        estimator.partial_fit((unit[:-lag], unit[lag:]))
    try:
        return estimator.fetch_model()
    except ZeroRankError:
        return None


def _states(
    ours: Angles, theirs: Angles, lag: int, seed: int, refine: bool
) -> tuple[float | None, int]:
    """Returns the distance of populations of metastable states, and their number.

    States are those of PCCA+ on a reversible Markov model of clusters; frames of
    clusters that do not connect are left out, on both sides.
    """
    frames = np.concatenate(theirs)
    fitted = frames[:: -(-len(frames) // _FITTED)]
    size = min(NUM_CLUSTERS, max(2, len(fitted) // 10))
    clusters = KMeans(size, fixed_seed=seed, n_jobs=1, max_iter=50).fit_fetch(fitted)
    known = [[clusters.transform(x, n_jobs=1) for x in s] for s in (ours, theirs)]
    counts = kinetics.count_transitions(known[1], size, lag)
    summed = np.asarray(counts.sum(axis=0)).reshape(size, size).astype(float)
    msm = kinetics.fit_msm(summed, 1)
    if msm is None:
        return None, 0
    count = min(NUM_STATES, msm.n_states - 1)
    if count < 2:
        return None, count
    state_of = np.full(size, -1)
    found = msm.pcca(count).assignments if refine else corners(msm, count)
    state_of[msm.count_model.state_symbols] = found
    visits = [_visits(state_of[np.concatenate(side)], count) for side in known]
    apart = float(resampling.jensen_shannon(*visits)) if visits[0].sum() else np.log(2)
    return float(np.sqrt(max(apart, 0.0))), count


def corners(msm: MarkovStateModel, count: int) -> Int[np.ndarray, " num_states"]:
    """Puts states of a model together by the corners of its slow eigenvectors.

    It is the inner simplex algorithm, from which PCCA+ starts: `count` states far from
    each other span a simplex, and each state goes to the corner that it has most of.

    >>> counts = np.array([[8.0, 2.0, 0.0], [2.0, 8.0, 0.1], [0.0, 0.1, 9.0]])
    >>> found = corners(kinetics.fit_msm(counts, lag=1), count=2)
    >>> bool(found[0] == found[1] != found[2])
    True
    """
    vectors = np.real(msm.eigenvectors_right(count))
    first = int(np.argmax(np.linalg.norm(vectors - vectors.mean(axis=0), axis=1)))
    left, chosen = vectors - vectors[first], [first]
    for _ in range(count - 1):
        chosen.append(int(np.argmax(np.linalg.norm(left, axis=1))))
        axis = left[chosen[-1]] / np.linalg.norm(left[chosen[-1]])
        left = left - np.outer(left @ axis, axis)
    shares = vectors @ np.linalg.pinv(vectors[chosen])
    return np.argmax(shares, axis=1)


def _visits(
    states: Int[np.ndarray, " num_frames"], count: int
) -> Int[np.ndarray, " count"]:
    return np.bincount(states[states >= 0], minlength=count)


def decorrelation(
    units: Sequence[Float[np.ndarray, " _"]], num_lags: int
) -> Float[np.ndarray, " num_lags"]:
    r"""Returns MDGen's autocorrelation of one torsion.

    $$ \frac{E[\cos\theta_t \cos\theta_{t+l} + \sin\theta_t \sin\theta_{t+l}] - b}
            {1 - b}, \qquad b = E[\cos\theta]^2 + E[\sin\theta]^2 $$

    >>> turning = np.pi * np.arange(8.0)
    >>> decorrelation([turning], num_lags=3).round(3).tolist()
    [1.0, -1.0, 1.0]
    """
    circle = [np.stack([np.cos(x), np.sin(x)], axis=1) for x in units]
    sums, terms = correlations.correlation_sums(circle, num_lags, centred=False)
    product = sums.sum(axis=0) / terms.sum(axis=0)
    base = float(np.sum(np.concatenate(circle).mean(axis=0) ** 2))
    return (product - base) / (1.0 - base)


def decorrelation_times(side: Named, spacing: float) -> dict[str, float | None]:
    """Returns the median time in ps after which torsions decorrelate to 1/e.

    It is None where most of them do not within half of the shortest trajectory.

    Args:
        side: torsions of one side.
        spacing: ps between frames.
    """
    num_lags = max(2, min(map(len, side.units)) // 2)
    groups: dict[str, list[float]] = {"backbone": [], "side_chain": []}
    for place, kind in enumerate(side.kinds):
        if kind != "omega":
            curve = decorrelation([unit[:, place] for unit in side.units], num_lags)
            time = spacing * float(correlations.time_below(curve, np.exp(-1.0)))
            time = np.inf if np.isnan(time) else time
            groups["backbone" if kind in _BACKBONE else "side_chain"].append(time)
    medians = {
        name: np.median(times) if times else np.inf for name, times in groups.items()
    }
    return {n: float(x) if np.isfinite(x) else None for n, x in medians.items()}
