"""Times of both sides: Markov models at several lags, basins, autocorrelations."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from deeptime.markov.msm import MarkovStateModel
from jaxtyping import Bool, Float, Int

from equijump.evaluate import correlations, geometry, kinetics, resampling
from equijump.evaluate.resampling import Resamples, estimate
from equijump.evaluate.sides import NAMES, Prepared, Side

NUM_SCALES = 3
_LONGEST_CORRELATION = 50
"""Lags over which correlations are followed, as a multiple of the first."""

_COARSE = 1e-5
"""Error of the models of resamples, far below what resampling changes."""

_NUM_POINTS = 100  # Of a correlation, in the report.


class Models(NamedTuple):
    """Markov models of one side.

    Attributes:
        whole: models by lag in steps, of all units; None where too few states connect.
        drawn: models by lag, of each resample.
    """

    whole: dict[int, MarkovStateModel | None]
    drawn: dict[int, list[MarkovStateModel | None]]


def fit_models(
    side: Side,
    prepared: Prepared,
    weights: Int[np.ndarray, "num_resamples num_units"],
    advance: Callable[[int], None],
) -> Models:
    """Fits models at all lags, to all units and to resamples of them.

    Args:
        side: side whose states are counted.
        prepared: both sides, with lags and the number of states.
        weights: counts of units; see `resampling.Resamples`.
        advance: function of the number of resamples done.
    """
    size = prepared.num_states
    counts = {
        lag: kinetics.count_transitions(side.states, size, lag * side.every)
        for lag in prepared.lags
    }

    def fit(row: Int[np.ndarray, " num_units"], lag: int, max_error: float) -> Any:
        summed = (row @ counts[lag]).reshape(size, size).astype(float)
        return kinetics.fit_msm(summed, lag, max_error)

    everything = np.ones(len(side.states), int)
    whole = {lag: fit(everything, lag, 1e-8) for lag in prepared.lags}
    drawn: dict[int, list] = {lag: [] for lag in prepared.lags}
    for row in weights:
        for lag in prepared.lags:
            drawn[lag].append(fit(row, lag, _COARSE))
        advance(1)
    return Models(whole, drawn)


def find_sets(
    prepared: Prepared, reference: MarkovStateModel | None
) -> tuple[dict[str, Bool[np.ndarray, " num_states"]], str]:
    """Returns sets of states to pass between, and what they are.

    Args:
        prepared: both sides.
        reference: model of the reference, for systems with several residues.
    """
    pairs = geometry.pairs_of_phi_and_psi(prepared.torsions)
    if len(pairs) != 1:
        sets = kinetics.slow_sets(reference, prepared.num_states)
        return sets, "signs of the slowest eigenvector of the reference's model"
    ((phi, psi),) = pairs.values()
    visits = np.zeros((prepared.num_states, len(kinetics.BASINS)), int)
    for side in prepared.sides.values():
        for states, angles in zip(side.states, side.torsions, strict=True):
            basins = kinetics.basin_of(angles[:, phi], angles[:, psi])
            np.add.at(visits, (states, basins), 1)
    most = np.argmax(visits, axis=1)
    sets = {name: most == place for place, name in enumerate(kinetics.BASINS)}
    return sets, "basins, each state in the one that most of its frames are in"


def measure_models(prepared: Prepared, models: Mapping[str, Models]) -> dict[str, Any]:
    """Returns time-scales, passage times, weights of sets and how well models hold.

    Args:
        prepared: both sides.
        models: models of both sides.
    """
    first = prepared.lags[0]
    sets, what = find_sets(prepared, models["reference"].whole[first])
    return {
        "states": prepared.states,
        "num_states": prepared.num_states,
        "lags": [lag * prepared.spacing for lag in prepared.lags],
        "sets": what,
        **{name: _measure_side(prepared, name, models[name], sets) for name in NAMES},
    }


def _measure_side(
    prepared: Prepared,
    name: str,
    models: Models,
    sets: Mapping[str, Bool[np.ndarray, " _"]],
) -> dict[str, Any]:
    lags, spacing = prepared.lags, prepared.spacing
    scales = []
    for lag in lags:
        value = kinetics.time_scales(models.whole[lag], NUM_SCALES) * spacing
        drawn = np.stack(
            [kinetics.time_scales(msm, NUM_SCALES) for msm in models.drawn[lag]]
        )
        scales.append(_estimates(value, drawn * spacing))
    whole, drawn = models.whole[lags[0]], models.drawn[lags[0]]
    passages = _with_interval(lambda m: kinetics.passage_times(m, sets), whole, drawn)
    states, size = prepared.sides[name].states, prepared.num_states
    covered = kinetics.coverage(whole, states, size)
    return {
        **covered,
        "word": kinetics.word(covered, size, sum(map(len, states))),
        "time_scales": scales,
        "passage_times": {
            name: {key: value * spacing for key, value in passage.items()}
            for name, passage in passages.items()
        },
        "weights": _with_interval(
            lambda m: kinetics.set_weights(m, sets), whole, drawn
        ),
        "chapman_kolmogorov": [
            {
                "time": lag * spacing,
                "predicted": kinetics.stay_probabilities(whole, sets, lag // lags[0]),
                "estimated": kinetics.stay_probabilities(models.whole[lag], sets, 1),
            }
            for lag in lags[1:]
        ],
    }


def _estimates(
    values: Float[np.ndarray, " num_values"],
    drawn: Float[np.ndarray, "num_resamples num_values"],
) -> list[dict[str, float]]:
    return [estimate(*pair) for pair in zip(values, drawn.T, strict=True)]


def _with_interval(
    measure: Callable[[MarkovStateModel | None], Mapping[str, float]],
    whole: MarkovStateModel | None,
    drawn: Sequence[MarkovStateModel | None],
) -> dict[str, dict[str, float]]:
    found = [measure(msm) for msm in drawn]
    return {
        name: estimate(value, np.array([each[name] for each in found]))
        for name, value in measure(whole).items()
    }


def weights_of_frames(
    prepared: Prepared, models: Mapping[str, Models]
) -> dict[str, list[Float[np.ndarray, " _"]]] | None:
    """Returns weights of frames by the models of the first lag, if both have one."""
    found = {}
    for name in NAMES:
        msm = models[name].whole[prepared.lags[0]]
        if msm is None:
            return None
        stationary = kinetics.stationary(msm, prepared.num_states)
        found[name] = kinetics.frame_weights(prepared.sides[name].states, stationary)
    return found


def measure_basins(
    prepared: Prepared,
    resamples: Resamples,
    frame_weights: Mapping[str, Sequence[Float[np.ndarray, " _"]]] | None,
) -> dict[str, Any]:
    """Returns shares of basins and crossings per ns, for each residue with phi and psi.

    Args:
        prepared: both sides.
        resamples: resamples of units.
        frame_weights: weights by the Markov models, for the second kind of share.
    """
    found = {}
    for residue, places in geometry.pairs_of_phi_and_psi(prepared.torsions).items():
        label = geometry.residue_label(prepared.system, residue)
        found[label] = {}
        for name in NAMES:
            side = prepared.sides[name]
            basins = [
                kinetics.basin_of(unit[:, places[0]], unit[:, places[1]])
                for unit in side.torsions
            ]
            found[label][name] = _measure_basins(
                basins,
                side.every,
                prepared.spacing,
                getattr(resamples, name),
                None if frame_weights is None else frame_weights[name],
            )
    return found


def _measure_basins(
    basins: Sequence[Int[np.ndarray, " _"]],
    every: int,
    spacing: float,
    weights: Int[np.ndarray, "num_resamples num_units"],
    frame_weights: Sequence[Float[np.ndarray, " _"]] | None,
) -> dict[str, Any]:
    count = len(kinetics.BASINS)
    visits = resampling.histograms(basins, count)
    shares = resampling.shares(weights @ visits)
    crossings = np.array([np.sum(x[every:] != x[:-every]) for x in basins])
    times = np.array([(len(x) - every) * spacing / 1000.0 for x in basins])  # ns
    reweighted = None
    if frame_weights is not None:
        summed = np.bincount(
            np.concatenate(basins), np.concatenate(frame_weights), count
        )
        reweighted = dict(zip(kinetics.BASINS, summed.tolist(), strict=True))
    whole = _estimates(resampling.shares(visits.sum(axis=0)), shares)
    return {
        "weights": dict(zip(kinetics.BASINS, whole, strict=True)),
        "weights_msm_reweighted": reweighted,
        "crossings_per_ns": estimate(
            crossings.sum() / times.sum(), (weights @ crossings) / (weights @ times)
        ),
    }


def _correlation(
    units: Sequence[Float[np.ndarray, "_ _"]],
    every: int,
    weights: Int[np.ndarray, "_ _"],
    shown: Int[np.ndarray, " _"],
    spacing: float,
) -> dict[str, Any]:
    """Returns an autocorrelation at the lags shown, its band, and its decay time."""
    sums, terms = correlations.correlation_sums(units, int(shown[-1]) + 1, every)
    whole = correlations.autocorrelation(sums, terms, np.ones((1, len(units)), int))
    drawn = correlations.autocorrelation(sums, terms, weights)
    decay, decays = (
        correlations.time_below(values, np.exp(-1.0)) * spacing
        for values in (whole[0], drawn)
    )
    return {
        "values": whole[0, shown].tolist(),
        "band": resampling.interval(drawn[:, shown]).tolist(),
        "decay_time": estimate(float(decay), decays),
    }


def _signals(prepared: Prepared) -> dict[str, Callable[[Side], Any]]:
    """Returns the functions of a side whose autocorrelations are shown."""
    psi = [place for place, kind in enumerate(prepared.torsions.kinds) if kind == "psi"]
    first = {"TIC1": lambda side: [unit[:, :1] for unit in side.tics]}
    if not psi:
        return first
    return first | {"cos psi": lambda side: [np.cos(x[:, psi]) for x in side.torsions]}


def measure_correlations(prepared: Prepared, resamples: Resamples) -> dict[str, Any]:
    """Returns autocorrelations of cos psi and of TIC1 against time in ps.

    That of cos psi is one over all residues, each with the weight of its variance.
    """
    shortest = min(
        len(x) // s.every for s in prepared.sides.values() for x in s.positions
    )
    num_lags = min(shortest // 2, _LONGEST_CORRELATION * prepared.lags[0]) + 1
    signals = _signals(prepared)
    shown = np.unique(np.linspace(0, num_lags - 1, _NUM_POINTS).astype(int))
    found: dict[str, Any] = {}
    for signal, read in signals.items():
        found[signal] = {"times": (shown * prepared.spacing).tolist()}
        for name in NAMES:
            side = prepared.sides[name]
            found[signal][name] = _correlation(
                read(side),
                side.every,
                getattr(resamples, name),
                shown,
                prepared.spacing,
            )
    return found
