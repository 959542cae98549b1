"""Times and free energies of single residues, from phi and psi in radians.

A unit is a trajectory; times are in the units of its spacing.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.sparse.csgraph import connected_components

from equijump.evaluate import kinetics, resampling

NUM_CELLS = 6
"""Cells along phi and along psi, of the states of one residue: few, so that a few
thousand frames determine their Markov model."""

CONNECTED = 0.99
"""Share of the frames of either side in common states from which times compare."""

GAS = 0.0019872041  # kcal/mol/K
_COARSE = 1e-4
"""Error of the models of resamples."""

Unit = Float[np.ndarray, "_ 2"]


class Slowest(NamedTuple):
    """The slowest implied time-scale of one residue on both sides, in frames.

    Attributes:
        value: time-scale of what is judged, NaN without a model.
        reference: time-scale of the reference.
        low: lower end of 95 % of resampled units of the reference; NaN where times do
            not compare.
        high: upper end.
        covered: least share of a side's frames in states that connect on both.
    """

    value: float
    reference: float
    low: float
    high: float
    covered: float


def slowest(
    ours: Sequence[Unit],
    theirs: Sequence[Unit],
    lag: int,
    weights: Int[np.ndarray, "num_resamples num_units"],
) -> Slowest:
    """Compares the slowest time-scales of phi and psi, in states that both connect.

    A process that one side never sees there and back would have no time on the other:
    where such states hold more than 1 - `CONNECTED` of the frames, times do not
    compare.

    Args:
        ours: phi and psi of each unit of what is judged.
        theirs: the same of the reference.
        lag: lag of the Markov models, in frames.
        weights: counts of units of the reference in each resample.
    """
    cells = [
        [kinetics.cells_of(x[:, 0], x[:, 1], NUM_CELLS) for x in side]
        for side in (ours, theirs)
    ]
    counts = [kinetics.count_transitions(side, NUM_CELLS**2, lag) for side in cells]
    whole = [np.ones(len(side)) for side in cells]
    connected = [
        _connected(rows @ summed) for rows, summed in zip(whole, counts, strict=True)
    ]
    common = np.flatnonzero(connected[0] & connected[1])
    covered = min(float(np.isin(np.concatenate(x), common).mean()) for x in cells)
    scale = lambda side, row: _scale(row @ counts[side], common, lag)
    compares = covered >= CONNECTED
    drawn = np.array([scale(1, row) for row in weights if compares] or [np.nan])
    values = scale(0, whole[0]), scale(1, whole[1])
    low, high = map(float, resampling.interval(drawn))
    return Slowest(*values, low, high, covered)


def _connected(summed: Any) -> Bool[np.ndarray, " num_states"]:
    """Returns which states are in the largest set that is connected both ways."""
    size = NUM_CELLS**2
    matrix = np.asarray(summed).reshape(size, size)
    _, parts = connected_components(matrix, connection="strong")
    visits = np.bincount(parts, matrix.sum(axis=1), size)
    return (parts == np.argmax(visits)) & (matrix.sum(axis=1) > 0)


def _scale(summed: Any, states: Int[np.ndarray, " _"], lag: int) -> float:
    """Returns the slowest time-scale among some states; NaN without a model."""
    if len(states) < 2:
        return float("nan")
    matrix = np.asarray(summed, float).reshape(NUM_CELLS**2, NUM_CELLS**2)
    msm = kinetics.fit_msm(matrix[np.ix_(states, states)], lag, _COARSE)
    return float(kinetics.time_scales(msm, 1)[0])


def helix_relaxation(units: Sequence[Unit], lag: int) -> float:
    r"""Returns the relaxation time of alphaR among frames with phi < 0, in frames.

    $$ -l / \ln \mathrm{corr}(h_t, h_{t+l}) $$ over pairs of frames with phi < 0 at both
    ends, where $h$ is 1 in alphaR and 0 elsewhere.

    >>> alpha, beta = [-1.2, -0.7], [-1.2, 2.0]
    >>> unit = np.array([alpha, alpha, alpha, beta, beta, beta] * 500)
    >>> round(helix_relaxation([unit], lag=1), 2)  # A correlation of 1/3.
    0.91
    """
    pairs = []
    for unit in units:
        inside = kinetics.basin_of(unit[:, 0], unit[:, 1]) == 0
        both = (unit[:-lag, 0] < 0.0) & (unit[lag:, 0] < 0.0)
        pairs.append(np.stack([inside[:-lag], inside[lag:]])[:, both])
    first, last = np.concatenate(pairs, axis=1).astype(float)
    if min(len(np.unique(first)), len(np.unique(last))) < 2:
        return float("nan")
    correlation = float(np.corrcoef(first, last)[0, 1])
    return float(-lag / np.log(correlation)) if correlation > 0.0 else float("nan")


def free_energies(units: Sequence[Unit], temperature: float) -> dict[str, float]:
    """Returns free energies in kcal/mol: of alphaR over beta, of phi > 0 over the rest.

    >>> unit = np.array([[-1.2, -0.7], [-1.2, 2.0], [-1.2, 2.0], [1.0, 0.5]])
    >>> found = free_energies([unit], temperature=300.0)
    >>> {name: round(value, 3) for name, value in found.items()}
    {'alphaR_over_beta': 0.413, 'phi_above_0': 0.655}
    """
    phi, psi = np.concatenate(units).T
    alpha, beta = (
        np.sum((kinetics.basin_of(phi, psi) == i) & (phi < 0)) for i in (0, 1)
    )
    left = np.sum(phi > 0.0)
    energy = lambda part, rest: _energy(int(part), int(rest), temperature)
    return {
        "alphaR_over_beta": energy(alpha, beta),
        "phi_above_0": energy(left, len(phi) - left),
    }


def _energy(part: int, rest: int, temperature: float) -> float:
    if not part or not rest:
        return float("nan")
    return -GAS * temperature * float(np.log(part / rest))


def passages(units: Sequence[Unit]) -> int:
    """Counts passages of phi through 0, from one frame to the next.

    Passages through pi do not count.

    >>> phi = np.array([-1.0, 0.5, 3.0, -3.0])
    >>> passages([np.stack([phi, phi], axis=1)])
    1
    """
    count = 0
    for unit in units:
        phi = unit[:, 0]
        apart = np.abs(np.diff(phi))
        count += int(np.sum((np.diff(np.sign(phi)) != 0) & (apart < np.pi)))
    return count
