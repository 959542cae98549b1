"""Features of frames and their slow combinations (TICA), computed chunk by chunk.

Memory grows neither with the number of frames nor beyond `MOST_PAIRS` distances.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int, Shaped

from common.errors import UsageError
from equijump.data.packed import let_go

MOST_PAIRS = 1_000
"""Distances that are features of a frame, at most."""

CHUNK, MOST_NUMBERS = 20_000, 4_000_000
"""Frames whose features are in memory at once, and numbers of these features."""

Features = Callable[[Any], Any]


def choose_pairs(
    num_points: int, at_most: int = MOST_PAIRS
) -> Int[np.ndarray, "num_pairs 2"]:
    """Returns all pairs of points, or so many of them, spread evenly over the list.

    >>> choose_pairs(3).tolist()
    [[0, 1], [0, 2], [1, 2]]
    >>> choose_pairs(1_000, at_most=3).tolist()
    [[0, 1], [292, 821], [998, 999]]

    Args:
        num_points: number of points.
        at_most: largest number of pairs.
    """
    count = num_points * (num_points - 1) // 2
    chosen = np.linspace(0, count - 1, min(at_most, count)).round().astype(np.int64)
    ends = np.cumsum(np.arange(num_points - 1, 0, -1))
    first = np.searchsorted(ends, chosen, side="right")
    second = num_points - (ends[first] - chosen) if count else first
    return np.stack([first, second], axis=1).astype(np.int32)


def distances(
    positions: Float[np.ndarray, "num_frames num_atoms 3"],
    pairs: Int[np.ndarray, "num_pairs 2"],
) -> Float[np.ndarray, "num_frames num_pairs"]:
    """Returns the distances of pairs of atoms, in Å."""
    apart = positions[:, pairs[:, 0]] - positions[:, pairs[:, 1]]
    return np.linalg.norm(apart, axis=-1)


def fit_tica(
    units: Sequence[Any], features: Features, lag: int | Sequence[int], dim: int
) -> Any:
    """Fits time-lagged independent components; the slowest comes first.

    Args:
        units: stretches of frames.
        features: function from frames to their features.
        lag: frames between those that are correlated, in all units or in each.
        dim: number of components.

    Raises:
        UsageError: Nothing moves.
    """
    from deeptime.decomposition import TICA
    from deeptime.numeric import ZeroRankError

    lags = [lag] * len(units) if isinstance(lag, int) else lag
    estimator = TICA(lagtime=lags[0], dim=dim)
    for unit, steps in zip(units, lags, strict=True):
        size = _chunk_of(unit, features)
        for first in range(0, len(unit) - steps, size):
            found = features(unit[first : first + size + steps])
            estimator.partial_fit((found[:-steps], found[steps:]))
            let_go(unit)
    try:
        return estimator.fetch_model()
    except ZeroRankError as error:
        raise UsageError(
            "expected trajectories that move, found frames that are all alike"
        ) from error


def project(
    model: Any, unit: Any, features: Features
) -> Shaped[np.ndarray, "num_frames dim"]:
    """Returns the components of the frames of a unit; see `fit_tica`."""
    size, found = _chunk_of(unit, features), []
    for first in range(0, len(unit), size):
        part = features(unit[first : first + size])
        found.append(np.asarray(model.transform(part)))
        let_go(unit)
    return np.concatenate(found)


def _chunk_of(unit: Any, features: Features) -> int:
    """Returns how many frames of a unit have their features in memory at once."""
    return max(1, min(CHUNK, MOST_NUMBERS // features(unit[:1]).shape[1]))
