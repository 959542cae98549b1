"""Correlations in time of what moves, and how long they last.

Times are counted in frames here and turned into ps by the caller. Sums are those of one
unit, so that units can be resampled.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

Frames = Sequence[Float[np.ndarray, "_ num_feats"]]

_MOST_NUMBERS = 1_000_000  # Of a signal, of which the spectrum is in memory at once.


def correlation_sums(
    units: Frames, num_lags: int, every: int = 1, centred: bool = True
) -> tuple[
    Float[np.ndarray, "num_units num_lags"], Int[np.ndarray, "num_units num_lags"]
]:
    r"""Returns $\sum_t x_t \cdot x_{t + l}$ of each unit for lags $l$ from 0 on.

    The mean over all frames of all units is taken off first where `centred`.

    >>> unit = np.array([[1.0], [-1.0], [1.0], [-1.0]])
    >>> sums, terms = correlation_sums([unit], num_lags=2)
    >>> sums.round(3).tolist(), terms.tolist()
    ([[4.0, -3.0]], [[4, 3]])

    Args:
        units: numbers of frames of the units.
        num_lags: number of lags.
        every: frames from one lag to the next.
        centred: true to take the mean off.

    Returns:
        The sums, and the number of their terms.
    """
    total = sum(np.sum(unit, axis=0, dtype=np.float64) for unit in units)
    mean = total / sum(map(len, units)) * centred
    lags = every * np.arange(num_lags)
    sums = [_products(unit, mean, lags) for unit in units]
    return np.stack(sums), np.stack([len(unit) - lags for unit in units])


def _products(
    unit: Float[np.ndarray, "num_frames num_feats"],
    mean: Float[np.ndarray, " num_feats"],
    lags: Int[np.ndarray, " num_lags"],
) -> Float[np.ndarray, " num_lags"]:
    """Returns sums of products of one unit, some columns at a time."""
    size, found = max(1, _MOST_NUMBERS // len(unit)), np.zeros(len(lags))
    for first in range(0, unit.shape[1], size):
        columns = slice(first, first + size)
        moved = unit[:, columns] - mean[columns]
        spectrum = np.fft.rfft(moved, 2 * len(unit), axis=0)
        products = np.fft.irfft(np.abs(spectrum) ** 2, 2 * len(unit), axis=0)
        found += products[lags].sum(axis=1)
    return found


def autocorrelation(
    sums: Float[np.ndarray, "num_units num_lags"],
    terms: Int[np.ndarray, "num_units num_lags"],
    weights: Int[np.ndarray, "num_resamples num_units"],
) -> Float[np.ndarray, "num_resamples num_lags"]:
    """Returns correlations of resampled units, 1 at lag 0; NaN where nothing moves.

    >>> sums, terms = np.array([[4.0, -3.0]]), np.array([[4, 3]])
    >>> autocorrelation(sums, terms, np.array([[1]])).tolist()
    [[1.0, -1.0]]
    """
    mean = (weights @ sums) / (weights @ terms)
    moves = np.broadcast_to(mean[:, :1] > 0.0, mean.shape)
    return np.divide(mean, mean[:, :1], out=np.full_like(mean, np.nan), where=moves)


def time_below(
    correlations: Float[np.ndarray, "*batch num_lags"], limit: float
) -> Float[np.ndarray, "*batch"]:
    """Returns the first lag in frames below a limit, by linear interpolation.

    NaN where the correlation stays above it.

    >>> float(time_below(np.array([1.0, 0.8, 0.4]), limit=0.6))
    1.5
    """
    below = correlations < limit
    after = np.argmax(below, axis=-1)
    take = lambda lags: np.take_along_axis(correlations, lags[..., None], -1)[..., 0]
    before = np.maximum(after - 1, 0)
    upper, lower = take(before), take(after)
    drop = np.where(upper > lower, upper - lower, 1.0)
    found = before + (upper - limit) / drop
    return np.where(np.any(below, axis=-1), found, np.nan)
