"""Distributions of torsions, slow coordinates and folds, of both sides."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from equijump.evaluate import geometry, resampling, structure
from equijump.evaluate.sides import NAMES, Prepared, Units

NUM_ANGLE_BINS = 30
NUM_BINS = 50


class Quantity(NamedTuple):
    """What is histogrammed.

    Attributes:
        kind: ramachandran, torsion, tic, tics or fold.
        unit: unit of its values.
        edges: edges of the bins along each axis.
        values: values of either side, unit by unit.
    """

    kind: str
    unit: str
    edges: tuple[Float[np.ndarray, " _"], ...]
    values: Mapping[str, Units]


def quantities(
    prepared: Prepared, measured: structure.Structure | None
) -> Iterator[tuple[str, Quantity]]:
    """Yields what is compared with its name, one after the other.

    Args:
        prepared: both sides.
        measured: structure of the frames of both sides, see `structure.measure`.
    """
    yield from _angles(prepared)
    tics = [
        {
            name: tuple(x[:, [place]] for x in prepared.sides[name].tics)
            for name in NAMES
        }
        for place in range(_num_tics(prepared))
    ]
    edges = [_edges(values) for values in tics]
    for place, values in enumerate(tics):
        yield f"TIC{place + 1}", Quantity("tic", "", (edges[place],), values)
    if len(tics) == 2:
        both = {n: tuple(x[:, :2] for x in prepared.sides[n].tics) for n in NAMES}
        yield "TIC1, TIC2", Quantity("tics", "", tuple(edges), both)
    for place, kind in enumerate(measured.names if measured else ()):
        values = {n: tuple(x[:, [place]] for x in measured.values[n]) for n in NAMES}
        yield kind, Quantity("fold", structure.UNITS[kind], (_edges(values),), values)


def _num_tics(prepared: Prepared) -> int:
    return min(2, prepared.sides["reference"].tics[0].shape[1])


def num_quantities(prepared: Prepared, measured: structure.Structure | None) -> int:
    """Returns how many quantities are compared; see `quantities`."""
    pairs = geometry.pairs_of_phi_and_psi(prepared.torsions)
    count = len(prepared.torsions.kinds) - len(pairs) + (0, 1, 3)[_num_tics(prepared)]
    return count + (len(measured.names) if measured else 0)


def _angles(prepared: Prepared) -> Iterator[tuple[str, Quantity]]:
    """Yields phi and psi of each residue together, and every other torsion."""
    system, torsions = prepared.system, prepared.torsions
    circle = np.linspace(-np.pi, np.pi, NUM_ANGLE_BINS + 1)
    pairs = geometry.pairs_of_phi_and_psi(torsions)
    label = partial(geometry.residue_label, system)
    for residue, places in pairs.items():
        values = _torsions(prepared, places)
        quantity = Quantity("ramachandran", "rad", (circle, circle), values)
        yield f"{label(residue)} phi, psi", quantity
    symmetric = geometry.find_symmetric(system, torsions)
    together = {place for places in pairs.values() for place in places}
    named = zip(torsions.kinds, torsions.residues, strict=True)
    for place, (kind, residue) in enumerate(named):
        if place not in together:
            values = _torsions(prepared, [place])
            edges = circle / 2 if symmetric[place] else circle
            quantity = Quantity("torsion", "rad", (edges,), values)
            yield f"{label(residue)} {kind}", quantity


def _torsions(prepared: Prepared, places: Sequence[int]) -> dict[str, Units]:
    chosen, sides = list(places), prepared.sides
    return {name: tuple(x[:, chosen] for x in sides[name].torsions) for name in NAMES}


def _edges(values: Mapping[str, Units]) -> Float[np.ndarray, " _"]:
    """Returns edges over the range of the reference; beyond it the end bins count."""
    reference = np.concatenate(values["reference"])
    low, high = float(reference.min()), float(reference.max())
    return np.linspace(low, high if high > low else low + 1.0, NUM_BINS + 1)


def compare(
    quantity: Quantity,
    prepared: Prepared,
    resamples: resampling.Resamples,
    weights: Mapping[str, Sequence[Float[np.ndarray, " _"]]] | None,
) -> dict[str, Any]:
    """Compares the two sides in one quantity.

    Args:
        quantity: quantity to compare.
        prepared: both sides.
        resamples: resamples of units.
        weights: weights of frames by the Markov models; None where a side has no model.
    """
    num_bins = int(np.prod([len(edge) - 1 for edge in quantity.edges]))
    runs = prepared.num_runs
    bins = {
        name: [resampling.bins_of(x, quantity.edges) for x in quantity.values[name]]
        for name in NAMES
    }
    counts = {name: resampling.histograms(bins[name], num_bins) for name in NAMES}
    ours, theirs = counts["trajectory"], counts["reference"]
    divergence = resampling.compare(ours, theirs, resamples)
    return {
        "kind": quantity.kind,
        "unit": quantity.unit,
        **divergence._asdict(),
        "js_msm_reweighted": _reweighted(bins, weights, num_bins),
        "thirds": {n: _thirds(bins[n], runs[n] > 1, num_bins) for n in NAMES},
        "means": _means(quantity, resamples) if quantity.kind == "fold" else None,
        "edges": [edge.tolist() for edge in quantity.edges],
        "counts": {name: counts[name].sum(axis=0).tolist() for name in NAMES},
        "bands": _bands(counts, resamples) if len(quantity.edges) == 1 else None,
    }


def _reweighted(
    bins: Mapping[str, Sequence[Int[np.ndarray, " _"]]],
    weights: Mapping[str, Sequence[Float[np.ndarray, " _"]]] | None,
    num_bins: int,
) -> float | None:
    """Returns the divergence of frames weighted by the Markov models."""
    if weights is None:
        return None
    joined = np.concatenate
    shares = [
        np.bincount(joined(bins[name]), joined(weights[name]), num_bins)
        for name in NAMES
    ]
    return float(resampling.jensen_shannon(*shares))


def _thirds(
    bins: Sequence[Int[np.ndarray, " _"]], several: bool, num_bins: int
) -> float:
    """Returns the divergence of the last third of all trajectories from the first."""
    runs = bins if several else [np.concatenate(bins)]
    ends = [
        sum(np.bincount(part, minlength=num_bins) for part in parts)
        for parts in (
            [run[: len(run) // 3] for run in runs],
            [run[-(len(run) // 3) :] for run in runs],
        )
    ]
    return float(resampling.jensen_shannon(*ends))


def _means(quantity: Quantity, resamples: resampling.Resamples) -> dict[str, Any]:
    found = {}
    for name in NAMES:
        units = quantity.values[name]
        sums = np.array([np.sum(x) for x in units])
        sizes = np.array([len(x) for x in units])
        weights = getattr(resamples, name)
        found[name] = resampling.estimate(
            float(sums.sum() / sizes.sum()), (weights @ sums) / (weights @ sizes)
        )
    return found


def _bands(
    counts: Mapping[str, Int[np.ndarray, "_ num_bins"]], resamples: resampling.Resamples
) -> dict[str, list[list[float]]]:
    """Returns 95 % intervals of each bin's share, low and high."""
    found = {}
    for name in NAMES:
        drawn = resampling.shares(getattr(resamples, name) @ counts[name])
        found[name] = resampling.interval(drawn).tolist()
    return found
