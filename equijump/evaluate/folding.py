"""How much of the time a protein is folded, and how long folding and unfolding take.

A frame is folded by its share of native contacts Q. A fold begins in one core of Q and
ends in the other, so that a frame on the way is none.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from equijump.evaluate.resampling import Resamples, estimate
from equijump.evaluate.sides import NAMES, Prepared
from equijump.evaluate.structure import CORES, FOLDED, Structure


def cores_of(
    shares: Float[np.ndarray, " num_frames"],
) -> Int[np.ndarray, " num_frames"]:
    """Returns the core that each frame is in or came from: 1 folded, 0 not, -1 unknown.

    >>> cores_of(np.array([0.5, 0.9, 0.5, 0.2, 0.5])).tolist()
    [-1, 1, 1, 0, 0]
    """
    low, high = CORES
    found = np.where(shares >= high, 1, np.where(shares <= low, 0, -1))
    last = np.maximum.accumulate(np.where(found >= 0, np.arange(len(found)), -1))
    return np.where(last >= 0, found[last], -1)


def counts_of(shares: Float[np.ndarray, " num_frames"]) -> Float[np.ndarray, " 6"]:
    """Returns sums over a trajectory that shares and times are made of.

    They are frames, folded frames, frames from the unfolded and from the folded core,
    and passages to the folded and to the unfolded one.

    >>> counts_of(np.array([0.2, 0.5, 0.9, 0.9, 0.2])).tolist()
    [5.0, 3.0, 3.0, 2.0, 1.0, 1.0]
    """
    cores = cores_of(shares)
    steps = np.diff(cores)
    known = cores[:-1] >= 0
    sums = (
        len(shares), np.sum(shares >= FOLDED), np.sum(cores == 0), np.sum(cores == 1),
        np.sum(known & (steps == 1)), np.sum(known & (steps == -1)),
    )  # fmt: skip
    return np.array(sums, float)


def measure(
    structure: Structure | None, prepared: Prepared, resamples: Resamples
) -> dict[str, Any] | None:
    """Returns the folded share and the times of both sides; None without contacts.

    Args:
        structure: structure of the frames, see `equijump.evaluate.structure.measure`.
        prepared: both sides.
        resamples: resamples of units, for the intervals.
    """
    if structure is None or "q" not in structure.names:
        return None
    place, found = structure.names.index("q"), {}
    for name in NAMES:
        units = [values[:, place] for values in structure.values[name]]
        spacing = prepared.spacing / prepared.sides[name].every
        found[name] = _measure(units, getattr(resamples, name), spacing)
    return found


def _measure(
    units: Sequence[Float[np.ndarray, " _"]],
    weights: Int[np.ndarray, "num_resamples num_units"],
    spacing: float,
) -> dict[str, Any]:
    sums = np.stack([counts_of(unit) for unit in units])
    whole, drawn = sums.sum(axis=0), (weights @ sums).T
    ratios = {
        "folded": (1, 0, 1.0),
        "folding_time": (2, 4, spacing),
        "unfolding_time": (3, 5, spacing),
    }
    found: dict[str, Any] = {
        name: estimate(
            float(_ratio(whole[above], whole[below]) * scale),
            _ratio(drawn[above], drawn[below]) * scale,
        )
        for name, (above, below, scale) in ratios.items()
    }
    return found | {"foldings": int(whole[4]), "unfoldings": int(whole[5])}


def _ratio(above: Any, below: Any) -> Any:
    """Returns a quotient, NaN where nothing was counted."""
    return np.where(below > 0, above / np.where(below > 0, below, 1.0), np.nan)
