"""What is measured of the rollout of a peptide, beside the lanes of its reference.

Positions are in Å, times in ps, divergences in nats. The floor of a divergence is that
of the reference's even lanes from its odd ones.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from equijump import rejection
from equijump.data.residues import RESIDUES
from equijump.data.topology import System
from equijump.evaluate import (
    geometry,
    mdgen,
    measure,
    resampling,
    residues,
    validity,
)

Lanes = Sequence[Float[np.ndarray, "_ num_atoms 3"]]
NUM_BINS = 30
NUM_RESAMPLES = 100
_CIRCLE = np.linspace(-np.pi, np.pi, NUM_BINS + 1)


class Angles(NamedTuple):
    """Torsions of one side, those of symmetric groups folded, and as they were."""

    folded: list[Float[np.ndarray, "_ num_torsions"]]
    raw: list[Float[np.ndarray, "_ num_torsions"]]


def angles_of(lanes: Lanes, system: System) -> Angles:
    """Measures all torsions of all frames."""
    torsions = geometry.find_torsions(system)
    symmetric = geometry.find_symmetric(system, torsions)
    raw = [geometry.torsions_of(lane, torsions.atoms) for lane in lanes]
    return Angles([geometry.folded(lane, symmetric) for lane in raw], raw)


def whole_of(
    lanes: Lanes, reference: Lanes, system: System
) -> tuple[Lanes, list[dict[str, Any]]]:
    """Returns the replicas that stayed whole, and why each other one did not."""
    lengths = validity.mean_lengths(reference, system.bonds)
    found = [
        validity.find_loss(f"replica {index}", lane, system, lengths)
        for index, lane in enumerate(lanes)
    ]
    kept = [lane for lane, loss in zip(lanes, found, strict=True) if loss is None]
    return kept, [loss._asdict() for loss in found if loss is not None]


def compare(
    lanes: Lanes, reference: Lanes, system: System, spacing: float, lag: float
) -> dict[str, Any]:
    """Compares whole replicas with the reference: all that short rollouts are asked.

    Args:
        lanes: frames of each replica.
        reference: frames of each lane of molecular dynamics.
        system: system of both.
        spacing: ps between frames, of both.
        lag: ps, of Markov models of single residues.
    """
    ours, theirs = angles_of(lanes, system), angles_of(reference, system)
    found = _residues(ours, theirs, system, max(1, round(lag / spacing)), spacing)
    js, floor = (np.mean([x[key] for x in found.values()]) for key in ("js", "floor"))
    return {
        "js": float(js),
        "floor": float(floor),
        "ratio": float(js / floor),
        "residues": found,
        "torsions": _side_chains(ours, theirs, system),
        "bonds": bonds_of(lanes, reference, system),
        "flips": flips_of(lanes, reference, system),
        **_mdgen(ours, theirs, system, spacing),
    }


def _divergence(
    ours: Sequence[np.ndarray], theirs: Sequence[np.ndarray], edges: Sequence[Any]
) -> dict[str, float]:
    """Returns the divergence of two sides, and its floor."""
    size = NUM_BINS ** len(edges)
    counts = [
        resampling.histograms([resampling.bins_of(x, edges) for x in side], size)
        for side in (ours, theirs)
    ]
    first, second = (side.sum(axis=0) for side in counts)
    halves = counts[1][::2].sum(axis=0), counts[1][1::2].sum(axis=0)
    return {
        "js": float(resampling.jensen_shannon(first, second)),
        "floor": float(resampling.jensen_shannon(*halves)),
    }


def _resamples(num_lanes: int) -> Int[np.ndarray, "num_resamples num_lanes"]:
    return resampling.draw(1, num_lanes, NUM_RESAMPLES, seed=0).reference


def _residues(
    ours: Angles, theirs: Angles, system: System, lag: int, spacing: float
) -> dict[str, Any]:
    """Compares phi and psi of each residue, and its slowest time-scale."""
    weights, found = _resamples(len(theirs.folded)), {}
    for label, places in phi_and_psi(system).items():
        sides = [[x[:, places] for x in side.folded] for side in (ours, theirs)]
        scale = residues.slowest(*sides, lag, weights)
        ends = (scale.value, scale.reference, scale.low, scale.high)
        value, reference, low, high = (spacing * end for end in ends)
        found[label] = {
            **_divergence(*sides, (_CIRCLE, _CIRCLE)),
            "slowest": value,
            "reference_slowest": reference,
            "low": low,
            "high": high,
            "covered": scale.covered,
            "is_inside": bool(low <= value <= high),
            "connects": scale.covered >= residues.CONNECTED and np.isfinite(value),
        }
    return found


def phi_and_psi(system: System) -> dict[str, list[int]]:
    """Returns the places of phi and psi among the torsions, by residue."""
    pairs = geometry.pairs_of_phi_and_psi(geometry.find_torsions(system))
    return {
        geometry.residue_label(system, residue): list(places)
        for residue, places in pairs.items()
    }


def _side_chains(ours: Angles, theirs: Angles, system: System) -> dict[str, Any]:
    """Compares each torsion of side chains, symmetric ones over half a turn."""
    torsions, found = geometry.find_torsions(system), {}
    symmetric = geometry.find_symmetric(system, torsions)
    for place, kind in enumerate(torsions.kinds):
        if kind.startswith("chi"):
            edges = _CIRCLE / 2 if symmetric[place] else _CIRCLE
            sides = ([x[:, [place]] for x in side.folded] for side in (ours, theirs))
            label = geometry.residue_label(system, torsions.residues[place])
            found[f"{label} {kind}"] = _divergence(*sides, (edges,))
    return found


def bonds_of(lanes: Lanes, reference: Lanes, system: System) -> dict[str, Any]:
    """Returns the RMS deviation of bonds from their mean in the reference, in Å.

    `by_name` has it for each bond of a residue type, beside that of the reference.
    """
    lengths = validity.mean_lengths(reference, system.bonds)
    ours, theirs = (_squares(side, system, lengths) for side in (lanes, reference))
    by_name: dict[str, list[list[float]]] = {}
    pairs = np.stack([ours, theirs], axis=1).tolist()
    for name, pair in zip(bond_names(system), pairs, strict=True):
        by_name.setdefault(name, []).append(pair)
    return {
        "rms": float(np.sqrt(np.mean(ours))),
        "reference_rms": float(np.sqrt(np.mean(theirs))),
        "by_name": {
            name: np.sqrt(np.mean(pairs, axis=0)).tolist()
            for name, pairs in by_name.items()
        },
    }


def _squares(
    lanes: Lanes, system: System, lengths: Float[np.ndarray, " num_bonds"]
) -> Float[np.ndarray, " num_bonds"]:
    """Returns the mean squared deviation of each bond, in Å^2."""
    total, count = np.zeros(len(lengths)), 0
    for lane in lanes:
        away = geometry.distances_of(lane, system.bonds) - lengths
        total += np.sum(np.square(away), axis=0, dtype=np.float64)
        count += len(lane)
    return total / count


def bond_names(system: System) -> list[str]:
    """Names bonds as `ARG CZ-NH1`, and those along the chain `C-N`."""
    label_of, row_of = {}, {}
    for row, (token, atoms) in enumerate(
        zip(system.tokens, system.slot_atoms.tolist(), strict=True)
    ):
        for name, atom in zip(RESIDUES[token - 1].slots, atoms, strict=False):
            label_of[atom], row_of[atom] = name, row
    names = []
    for first, second in system.bonds.tolist():
        residue = RESIDUES[system.tokens[row_of[first]] - 1].name
        is_inner = row_of[first] == row_of[second]
        ends = f"{label_of[first]}-{label_of[second]}"
        names.append(f"{residue} {ends}" if is_inner else "C-N")
    return names


def flips_of(lanes: Lanes, reference: Lanes, system: System) -> int:
    """Counts centres of replicas that have the wrong hand in any frame.

    Centres are those of the gate: CA, and CB of ILE and THR.
    """
    centres = np.asarray(rejection.graph_of(system).centres)
    hands = lambda lane: geometry.handedness(lane, centres)
    right = np.sign(np.sum([hands(lane[:100]).sum(axis=0) for lane in reference], 0))
    return int(sum(np.any(hands(lane) != right, axis=0).sum() for lane in lanes))


def _mdgen(
    ours: Angles, theirs: Angles, system: System, spacing: float
) -> dict[str, Any]:
    """Returns MDGen's figures, and their floor between halves of the reference."""
    torsions = geometry.find_torsions(system)
    named = lambda units: mdgen.Named(torsions.kinds, torsions.residues, units)
    measured = partial(mdgen.measure, refine=False)
    odd, even = named(theirs.raw[1::2]), named(theirs.raw[::2])
    return {
        "mdgen": measured(named(ours.raw), named(theirs.raw), spacing),
        "mdgen_floor": measured(odd, even, spacing),
    }


def compare_long(
    lanes: Lanes,
    reference: Lanes,
    system: System,
    spacing: float,
    temperature: float,
) -> dict[str, Any]:
    """Compares populations and times of each residue: what long rollouts are asked.

    Returns:
        For each residue free energies in kcal/mol, the relaxation time of alphaR among
        frames with phi < 0 in ps, and passages of phi through 0 a microsecond, of both
        sides.
    """
    ours, theirs = angles_of(lanes, system), angles_of(reference, system)
    found: dict[str, Any] = {}
    for label, places in phi_and_psi(system).items():
        sides = [[x[:, places] for x in side.folded] for side in (ours, theirs)]
        found[label] = {
            name: _state(side, spacing, temperature)
            for name, side in zip(("trajectory", "reference"), sides, strict=True)
        }
    return found


def _state(
    units: Sequence[np.ndarray], spacing: float, temperature: float
) -> dict[str, float]:
    time = sum(map(len, units)) * spacing * 1e-6  # microseconds
    relaxation = spacing * residues.helix_relaxation(units, 1)
    return {
        **residues.free_energies(units, temperature),
        "helix_relaxation": relaxation,
        "passages": residues.passages(units) / time,
    }


def summary_of(lines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Returns medians over the peptides of one length, and shares of what passes."""
    every = [entry for line in lines for entry in line["residues"].values()]
    times = [entry for entry in every if entry["connects"]]
    chis = [entry for line in lines for entry in line["torsions"].values()]
    good = [x["js"] <= max(0.02, x["floor"]) for x in chis]
    ratios = [x["slowest"] / x["reference_slowest"] for x in times]
    apart = [line["bonds"]["rms"] - line["bonds"]["reference_rms"] for line in lines]
    median = lambda values: float(np.median(values)) if len(values) else None
    share = lambda values: float(np.mean(values)) if len(values) else None
    return {
        "peptides": len(lines),
        "ratio": median([line["ratio"] for line in lines]),
        "js": median([line["js"] for line in lines]),
        "floor": median([line["floor"] for line in lines]),
        "chi_within": share(good),
        "times_inside": share([entry["is_inside"] for entry in times]),
        "time_ratio": median(ratios),
        "times": len(times),
        "times_apart": len(every) - len(times),
        "bonds": median([line["bonds"]["rms"] for line in lines]),
        "reference_bonds": median([line["bonds"]["reference_rms"] for line in lines]),
        "bonds_apart": median(apart),
        "flips": sum(line["flips"] for line in lines),
        "lost": sum(len(line["lost"]) for line in lines),
        "passed": median([line["passed"] for line in lines]),
        "cpu_seconds_per_ns": median([line["cpu_seconds_per_ns"] for line in lines]),
        **{
            f"{side}_{key}": median([x[side][key] for x in lines if x[side][key]])
            for side in ("mdgen", "mdgen_floor")
            for key in ("backbone", "side_chain", "tica_0", "tica_01", "msm_states")
        },
    }


def worst_bonds(lines: Sequence[Mapping[str, Any]], count: int) -> list[list[Any]]:
    """Returns the bonds with the largest deviations: name, ours and the reference's."""
    pairs: dict[str, list[list[float]]] = {}
    for line in lines:
        for name, pair in line["bonds"]["by_name"].items():
            pairs.setdefault(name, []).append(pair)
    mean = {n: np.sqrt(np.mean(np.square(x), axis=0)) for n, x in pairs.items()}
    first = sorted(mean, key=lambda name: -mean[name][0])[:count]
    return [[name, *mean[name].tolist()] for name in first]


def plain(found: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what JSON has; numbers that are not finite become None."""
    return measure.plain(dict(found))
