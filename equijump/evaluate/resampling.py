"""Resamples of trajectories, intervals, and Jensen-Shannon divergences with a floor.

Everything is counted once in each unit, a trajectory or a block of one; a resample is
a weighted sum of these counts.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, Shaped
from scipy.special import rel_entr


class Resamples(NamedTuple):
    """How often each unit is drawn.

    Attributes:
        trajectory: resamples of the units of what is judged.
        reference: resamples of the units of the reference.
        halves: 1 for the units of the reference in one random half, 0 in the other.
    """

    trajectory: Int[np.ndarray, "num_resamples num_units"]
    reference: Int[np.ndarray, "num_resamples num_reference_units"]
    halves: Int[np.ndarray, "num_splits num_reference_units"]


class Divergence(NamedTuple):
    """A Jensen-Shannon divergence in nats, at most ln 2, and its root.

    Attributes:
        js: divergence of the two histograms.
        root: square root of `js`, a distance.
        low: lower end of 95 % of resamples, moved so that their median is `js`.
        high: upper end.
        floor: mean over random splits of the reference into halves.
        floor_root: square root of `floor`.
    """

    js: float
    root: float
    low: float
    high: float
    floor: float
    floor_root: float


def draw(
    num_units: int, num_reference_units: int, num_resamples: int, seed: int
) -> Resamples:
    """Draws units with replacement, and halves of the reference without.

    >>> found = draw(num_units=3, num_reference_units=4, num_resamples=2, seed=0)
    >>> found.trajectory.sum(axis=1).tolist(), found.halves.sum(axis=1).tolist()
    ([3, 3], [2, 2])

    Args:
        num_units: units of what is judged.
        num_reference_units: units of the reference, at least two.
        num_resamples: number of resamples, and of splits.
        seed: seed of all draws.
    """
    rng = np.random.default_rng(seed)
    halves = np.zeros((num_resamples, num_reference_units), int)
    halves[:, : num_reference_units // 2] = 1
    return Resamples(
        trajectory=_with_replacement(rng, num_units, num_resamples),
        reference=_with_replacement(rng, num_reference_units, num_resamples),
        halves=rng.permuted(halves, axis=1),
    )


def _with_replacement(
    rng: np.random.Generator, num_units: int, num_resamples: int
) -> Int[np.ndarray, "num_resamples num_units"]:
    return rng.multinomial(num_units, np.full(num_units, 1 / num_units), num_resamples)


def interval(
    values: Float[np.ndarray, " num_resamples *rest"],
) -> Float[np.ndarray, " 2 *rest"]:
    """Returns the ends of the middle 95 %; values that are not finite are left out.

    >>> interval(np.linspace(0.0, 1.0, 41)).round(3).tolist()
    [0.025, 0.975]
    """
    values = np.where(np.isfinite(values), values, np.nan)
    if np.isnan(values).all():
        return np.full((2, *values.shape[1:]), np.nan)
    return np.nanquantile(values, [0.025, 0.975], axis=0)


def jensen_shannon(
    p: Shaped[np.ndarray, "*batch num_bins"], q: Shaped[np.ndarray, "*batch num_bins"]
) -> Float[np.ndarray, "*batch"]:
    r"""Returns the divergence of histograms in nats, no root taken.

    $$ \tfrac{1}{2} \sum_i p_i \ln (p_i / m_i) + q_i \ln (q_i / m_i),
       \qquad m = (p + q) / 2 $$

    >>> found = jensen_shannon(np.array([[1, 0], [1, 1]]), np.array([[0, 1], [2, 2]]))
    >>> found.round(4).tolist()  # ln 2, and nothing
    [0.6931, 0.0]

    Args:
        p: counts or weights, normalised here.
        q: counts or weights of the other.

    Returns:
        From 0 to $\ln 2$ (Lin 1991).
    """
    p, q = shares(p), shares(q)
    mean = (p + q) / 2
    return np.asarray(0.5 * np.sum(rel_entr(p, mean) + rel_entr(q, mean), axis=-1))


def bins_of(
    values: Float[np.ndarray, "num_frames num_axes"],
    edges: Sequence[Float[np.ndarray, " _"]],
) -> Int[np.ndarray, " num_frames"]:
    """Numbers the bin of each frame; what lies outside is put in the nearest bin.

    >>> edges = [np.array([0.0, 1.0, 2.0])]
    >>> bins_of(np.array([[-5.0], [0.5], [1.5], [9.0]]), edges).tolist()
    [0, 0, 1, 1]
    """
    found = [
        np.digitize(column, axis[1:-1])
        for column, axis in zip(values.T, edges, strict=True)
    ]
    return np.ravel_multi_index(found, [len(axis) - 1 for axis in edges])


def histograms(
    bins: Sequence[Int[np.ndarray, " _"]], num_bins: int
) -> Int[np.ndarray, "num_units num_bins"]:
    """Counts the frames of each unit in each bin.

    >>> histograms([np.array([0, 0, 2]), np.array([1])], num_bins=3).tolist()
    [[2, 0, 1], [0, 1, 0]]
    """
    return np.stack([np.bincount(unit, minlength=num_bins) for unit in bins])


def shares(
    counts: Shaped[np.ndarray, "*batch num_bins"],
) -> Float[np.ndarray, "*batch num_bins"]:
    """Divides counts by their sum.

    >>> shares(np.array([[1, 3], [2, 2]])).tolist()
    [[0.25, 0.75], [0.5, 0.5]]
    """
    return counts / np.sum(counts, axis=-1, keepdims=True)


def compare(
    trajectory: Int[np.ndarray, "num_units num_bins"],
    reference: Int[np.ndarray, "num_reference_units num_bins"],
    resamples: Resamples,
) -> Divergence:
    """Compares the histograms of two sides, with an interval and a floor.

    >>> counts = np.array([[4, 1], [3, 2], [4, 1], [3, 2]])
    >>> found = compare(counts, counts, draw(4, 4, num_resamples=50, seed=0))
    >>> found.js, found.low
    (0.0, 0.0)
    """
    js = float(jensen_shannon(trajectory.sum(axis=0), reference.sum(axis=0)))
    # Floats hold these counts exactly, and their products are far faster.
    ours, theirs = trajectory.astype(float), reference.astype(float)
    drawn = jensen_shannon(resamples.trajectory @ ours, resamples.reference @ theirs)
    low, high = interval(drawn) - np.median(drawn) + js
    floor = floor_of(reference, resamples.halves)
    return Divergence(js, js**0.5, max(float(low), 0.0), float(high), floor, floor**0.5)


def floor_of(
    reference: Int[np.ndarray, "num_units num_bins"],
    halves: Int[np.ndarray, "num_splits num_units"],
) -> float:
    """Returns the mean divergence between random halves of the reference.

    >>> floor_of(np.array([[4, 1], [4, 1]]), np.array([[1, 0], [0, 1]]))
    0.0
    """
    counts = reference.astype(float)
    split = jensen_shannon(halves @ counts, (1 - halves) @ counts)
    return float(np.mean(split))


def estimate(
    value: float, drawn: Float[np.ndarray, " num_resamples"]
) -> dict[str, float]:
    """Returns a value with the ends of the middle 95 % of its resamples.

    >>> estimate(0.5, np.full(10, 0.5))
    {'value': 0.5, 'low': 0.5, 'high': 0.5}
    """
    low, high = interval(drawn)
    return {"value": float(value), "low": float(low), "high": float(high)}
