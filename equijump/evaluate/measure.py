"""Everything that is measured of trajectories, as one nested dictionary.

The dictionary holds numbers, strings, lists and None only; it is `report.json`.
"""

import importlib.metadata
import math
import platform
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from common import __version__
from equijump.data.packed import Lazy
from equijump.evaluate import (
    distributions,
    dynamics,
    folding,
    geometry,
    inputs,
    kinetics,
    mdgen,
    resampling,
    sides,
    structure,
    validity,
    viewer,
)
from equijump.evaluate.sides import NAMES, Prepared, Show, silent


class Settings(NamedTuple):
    """What a user chooses.

    Attributes:
        lag: lag of models, in ps; see `sides.choose_lags`.
        num_resamples: number of resamples, for intervals and floors.
        seed: seed of resamples and clusters.
        suite: `mdgen` for the figures of MDGen besides; empty for none.
    """

    lag: float = 0.0
    num_resamples: int = 100
    seed: int = 0
    suite: str = ""


def versions() -> dict[str, str]:
    """Returns the versions that figures depend on."""
    names = ("deeptime", "mdtraj", "numpy", "scipy")
    found = {name: importlib.metadata.version(name) for name in names}
    return {"equijump": __version__, "python": platform.python_version(), **found}


def evaluate(
    trajectory: inputs.Replicas,
    reference: inputs.Replicas | None,
    settings: Settings,
    native: Float[np.ndarray, "num_atoms 3"] | None = None,
    show: Show = silent,
) -> dict[str, Any]:
    """Measures trajectories against a reference; see the docs for every entry.

    Args:
        trajectory: replicas to be judged; replicas that broke are counted and left out.
        reference: reference of the same system; None describes the trajectories alone,
            and the report has nothing of a second side.
        settings: lag, resamples and seed.
        native: structure that frames are compared with, in Å. Where None it is the
            first frame of the reference for a protein, or of a trajectory that is
            alone; a peptide has none.
        show: function that shows the progress of a stage, see `sides.Show`.

    Raises:
        UsageError: Trajectories do not suit the lag.
        RunError: All replicas broke.
    """
    is_alone = reference is None
    usual = _first_frames(trajectory) if is_alone else reference
    whole, lost = sides.keep_whole(trajectory, usual, show)
    reference = whole if is_alone else reference
    prepared = sides.prepare(whole, reference, settings.lag, settings.seed, show)
    resamples = resampling.draw(
        *(len(prepared.sides[name].positions) for name in NAMES),
        settings.num_resamples,
        settings.seed,
    )
    told = "" if native is None else "the file given"
    if native is None and geometry.is_protein(prepared.system):
        native = np.asarray(reference.positions[0][0], np.float64)
        told = f"the first frame of the {NAMES[0] if is_alone else NAMES[1]}"
    seen = structure.measure(prepared, native, show)
    norm, judged = _judge(prepared, show, is_alone)
    models = _fit(prepared, resamples, show, is_alone)
    report = {
        "versions": versions(),
        "definitions": definitions(norm),
        "system": inputs.describe(prepared.system),
        "trajectory": {
            **_describe(trajectory, prepared, "trajectory"),
            "lost": [loss._asdict() for loss in lost],
        },
        "reference": _describe(reference, prepared, "reference"),
        "spacing": prepared.spacing,
        "num_resamples": settings.num_resamples,
        "seed": settings.seed,
        **_compare(prepared, resamples, models, seen, show),
        "structure": seen and structure.to_json(seen, prepared, told),
        "folding": folding.measure(seen, prepared, resamples),
        "mdgen": _mdgen(prepared, settings.seed) if settings.suite == "mdgen" else None,
        "validity": judged,
        "viewer": viewer.make_scenes(prepared),
    }
    return plain(_alone(report) if is_alone else report)


def _first_frames(replicas: inputs.Replicas) -> inputs.Replicas:
    """Returns where replicas start, which says what is whole if nothing else does."""
    numbers = list(range(len(replicas.positions)))
    first = Lazy(lambda number: replicas.positions[number][:1], numbers)
    return replicas._replace(positions=first)


_OF_TWO = ("js", "low", "high", "root", "js_msm_reweighted")


def _alone(report: dict[str, Any]) -> dict[str, Any]:
    """Returns a report without its second side, which was the first one again."""
    kept = _without_reference(report)
    for entry in kept["distributions"].values():
        entry.update(dict.fromkeys(_OF_TWO))
    words = {"floor": _HALVES, "interval": _RESAMPLED, "clash": _CLASHES}
    kept["definitions"] = {**kept["definitions"], **words}
    return {**kept, "reference": None}


def _without_reference(entry: Any) -> Any:
    if not isinstance(entry, dict):
        return entry
    items = entry.items()
    return {k: _without_reference(v) for k, v in items if k != "reference"}


_HALVES = "mean divergence between random halves of the trajectories"
_RESAMPLED = "95 % of resamples of units with replacement"
_CLASHES = (
    "two atoms with more than three bonds between them nearer than "
    f"{validity.CLASH_ALONE:g} of the sum of their van der Waals radii (Bondi)"
)


def _fit(
    prepared: Prepared, resamples: resampling.Resamples, show: Show, is_alone: bool
) -> dict[str, dynamics.Models]:
    """Fits the Markov models of both sides, once where they are the same."""
    names = NAMES[:1] if is_alone else NAMES
    weights = {name: getattr(resamples, name) for name in names}
    total = sum(map(len, weights.values()))
    with show(total, "Markov models", "resamples") as advance:
        found = {
            name: dynamics.fit_models(prepared.sides[name], prepared, rows, advance)
            for name, rows in weights.items()
        }
    return {name: found.get(name, found[NAMES[0]]) for name in NAMES}


def _judge(
    prepared: Prepared, show: Show, is_alone: bool
) -> tuple[validity.Norm, dict[str, Any]]:
    """Returns what the reference says is right, and the validity of both sides.

    Of a trajectory that is alone the handedness is that of its starts.
    """
    system, names = prepared.system, NAMES[:1] if is_alone else NAMES
    units = {name: prepared.sides[name].positions for name in names}
    total = sum(len(x) for side in units.values() for x in side)
    with show(total, "closest atoms", "frames") as advance:
        close = {
            name: validity.closest_atoms(sides.Watched(side, advance), system)
            for name, side in units.items()
        }
    norm = validity.norm_of(units[names[-1]], system, close[names[-1]])
    if is_alone:
        starts = [unit[:1] for unit in units[names[-1]]]
        signs = validity.norm_of(starts, system).signs
        norm = norm._replace(signs=signs, clash=validity.CLASH_ALONE)
    with show(total, "bonds and angles", "frames") as advance:
        return norm, {
            name: validity.measure(
                sides.Watched(side, advance), system, norm, prepared.spacing,
                prepared.sides[name].every, close[name],
            )
            for name, side in units.items()
        }  # fmt: skip


def _compare(
    prepared: Prepared,
    resamples: resampling.Resamples,
    models: dict[str, Any],
    seen: structure.Structure | None,
    show: Show,
) -> dict[str, Any]:
    """Returns the entries that compare both sides, with intervals of resamples."""
    weights, found = dynamics.weights_of_frames(prepared, models), {}
    total = distributions.num_quantities(prepared, seen)
    every = distributions.quantities(prepared, seen)
    with show(total, "distributions", "quantities") as advance:
        for name, quantity in every:
            found[name] = distributions.compare(quantity, prepared, resamples, weights)
            advance(1)
    return {
        "distributions": found,
        "basins": dynamics.measure_basins(prepared, resamples, weights),
        "models": dynamics.measure_models(prepared, models),
        "correlations": dynamics.measure_correlations(prepared, resamples),
    }


def _mdgen(prepared: Prepared, seed: int) -> dict[str, Any]:
    """Returns MDGen's figures, and those of the reference's halves as their floor."""
    torsions, spacing = prepared.torsions, prepared.spacing
    named = {}
    for name in NAMES:
        side = prepared.sides[name]
        units = [
            geometry.over_frames(geometry.torsions_of, x[:: side.every], torsions.atoms)
            for x in side.positions
        ]
        named[name] = mdgen.Named(torsions.kinds, torsions.residues, units)
    theirs = named["reference"]
    odd, even = (theirs._replace(units=theirs.units[first::2]) for first in (1, 0))
    found = mdgen.measure(named["trajectory"], theirs, spacing, seed)
    return {
        "trajectory": found,
        "floor": mdgen.measure(odd, even, spacing, seed),
        "decorrelation": {
            name: mdgen.decorrelation_times(side, spacing)
            for name, side in named.items()
        },
    }


def definitions(norm: validity.Norm) -> dict[str, str]:
    """Returns in words what the figures of a report mean."""
    low, high = kinetics.ALPHA_PSI
    return {
        "divergence": "Jensen-Shannon, natural logarithm (nats), no root taken, at "
        "most 0.693; its square root stands beside it",
        "floor": "mean divergence between random halves of the reference; with half "
        "the data on either side it is about twice that of two whole references",
        "interval": "95 % of resamples of units with replacement, on both sides; of a "
        "divergence, moved so that the median is the estimate",
        "reweighted": "frames weighted by the stationary weights of each side's own "
        "Markov model; all other figures are of raw frames",
        "basins": f"phi>0: phi from {kinetics.LEFT_PHI[0]:g} to "
        f"{kinetics.LEFT_PHI[1]:g} rad; alphaR: phi below 0 and psi from {low:g} to "
        f"{high:g} rad; beta: the rest",
        "clash": "two atoms with more than three bonds between them nearer than "
        f"{norm.clash:.3f} of the sum of their van der Waals radii (Bondi); "
        f"{validity.CLASH:g}, or the {validity.CLASH_QUANTILE:.1%} quantile of the "
        "reference where that is less",
        "bonds": "root mean square over bonds and frames of length minus the bond's "
        "mean in the reference, in Å; angles alike, in degrees",
        "Q": "native contacts of Best, Hummer and Eaton: the mean over pairs of heavy "
        f"atoms within {structure.NATIVE_DISTANCE:g} Å in the native structure, more "
        f"than {structure.APART} residues apart, of 1 / (1 + exp(beta (r - lambda "
        f"r0))), beta {structure.BETA:g}/Å, lambda {structure.LAMBDA:g}",
        "folded": f"Q of {structure.FOLDED:g} or more; a folding goes from Q of "
        f"{structure.CORES[0]:g} or less to {structure.CORES[1]:g} or more",
        "hydrogen bonds": "of the backbone, after Kabsch and Sander, with hydrogens "
        "placed from heavy atoms; those of side chains and caps are not counted",
        "lost": "replicas with a position that is not finite or a bond that differs "
        f"from its mean by more than a factor of {validity.BROKEN:g}; all other "
        "figures cover the rest",
    }


def _describe(replicas: inputs.Replicas, prepared: Prepared, name: str) -> dict:
    units = prepared.sides[name].positions
    what = "trajectories" if prepared.num_runs[name] > 1 else "blocks of a trajectory"
    return {
        "files": list(replicas.names),
        "num_replicas": len(replicas.names),
        "spacing": replicas.spacing,
        "num_frames": sum(map(len, units)),
        "nanoseconds": sum(map(len, units)) * replicas.spacing / 1000.0,
        "units": f"{len(units)} {what}",
    }


def plain(value: Any) -> Any:
    """Turns what NumPy made into what JSON has; numbers not finite become None."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    if isinstance(value, (int, np.integer)):
        return int(value)
    if isinstance(value, (float, np.floating)):
        return float(value) if math.isfinite(value) else None
    return value
