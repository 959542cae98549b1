"""Distributions of torsions, slow coordinates and folds, of both sides."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from equijump.evaluate import geometry, resampling
from equijump.evaluate.sides import NAMES, Prepared, Show, Units, Watched, silent

NUM_ANGLE_BINS = 30
NUM_BINS = 50

_FOLD_UNITS = {"rmsd": "Å", "gdt_ts": "", "rg": "Å", "native_contacts": ""}


class Quantity(NamedTuple):
    """What is histogrammed.

    Attributes:
        kind: ramachandran, torsion, tic or fold.
        unit: unit of its values.
        edges: edges of the bins along each axis.
        values: values of either side, unit by unit.
    """

    kind: str
    unit: str
    edges: tuple[Float[np.ndarray, " _"], ...]
    values: Mapping[str, Units]


Folds = dict[str, list[Float[np.ndarray, "_ num_measures"]]]
"""Measures of the fold of both sides, unit by unit, in the order of `_FOLD_UNITS`."""


def quantities(
    prepared: Prepared, folds: Folds | None
) -> Iterator[tuple[str, Quantity]]:
    """Yields what is compared with its name, one after the other.

    Args:
        prepared: both sides.
        folds: folds of both sides, see `measure_folds`.
    """
    yield from _angles(prepared)
    for index in range(min(2, prepared.sides["reference"].tics[0].shape[1])):
        values = {
            name: tuple(x[:, [index]] for x in prepared.sides[name].tics)
            for name in NAMES
        }
        yield f"TIC{index + 1}", Quantity("tic", "", (_edges(values),), values)
    for place, (kind, unit) in enumerate(_FOLD_UNITS.items() if folds else ()):
        values = {
            name: tuple(measures[:, [place]] for measures in folds[name])
            for name in NAMES
        }
        if np.isfinite(values["reference"][0]).all():  # Not without a contact.
            yield kind, Quantity("fold", unit, (_edges(values),), values)


def num_quantities(prepared: Prepared) -> int:
    """Returns how many quantities are compared."""
    pairs = geometry.pairs_of_phi_and_psi(prepared.torsions)
    num_tics = min(2, prepared.sides["reference"].tics[0].shape[1])
    num_folds = len(_FOLD_UNITS) if geometry.is_protein(prepared.system) else 0
    return len(prepared.torsions.kinds) - len(pairs) + num_tics + num_folds


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
    together = {place for places in pairs.values() for place in places}
    named = zip(torsions.kinds, torsions.residues, strict=True)
    for place, (kind, residue) in enumerate(named):
        if place not in together:
            values = _torsions(prepared, [place])
            yield (
                f"{label(residue)} {kind}",
                Quantity("torsion", "rad", (circle,), values),
            )


def _torsions(prepared: Prepared, places: Sequence[int]) -> dict[str, Units]:
    chosen, sides = list(places), prepared.sides
    return {name: tuple(x[:, chosen] for x in sides[name].torsions) for name in NAMES}


def measure_folds(
    prepared: Prepared, native: Float[np.ndarray, "num_atoms 3"], show: Show = silent
) -> Folds | None:
    """Compares frames of a protein with a native structure; None of a peptide.

    Args:
        prepared: both sides.
        native: structure in Å that a protein is compared with.
        show: function that shows the progress of a stage, see `sides.Show`.
    """
    if not geometry.is_protein(prepared.system):
        return None
    carbons = geometry.alpha_carbons(prepared.system)

    def measure(frames: geometry.Positions) -> Float[np.ndarray, "_ num_measures"]:
        found = geometry.fold_measures(frames[:, carbons], native[carbons])
        return np.stack([found[kind] for kind in _FOLD_UNITS], axis=1)

    units = {name: prepared.sides[name].positions for name in NAMES}
    total = sum(len(x) for side in units.values() for x in side)
    with show(total, "folds", "frames") as advance:
        return {
            name: [geometry.over_frames(measure, x) for x in Watched(side, advance)]
            for name, side in units.items()
        }


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
