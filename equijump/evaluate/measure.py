"""Everything that is measured of trajectories, as one nested dictionary.

The dictionary holds numbers, strings, lists and None only; it is `report.json`.
"""

import importlib.metadata
import math
import platform
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from common import __version__
from equijump.evaluate import (
    distributions,
    dynamics,
    inputs,
    kinetics,
    resampling,
    sides,
    validity,
    viewer,
)
from equijump.evaluate.sides import NAMES, Prepared


class Settings(NamedTuple):
    """What a user chooses.

    Attributes:
        lag: lag of models, in ps; see `sides.choose_lags`.
        num_resamples: number of resamples, for intervals and floors.
        seed: seed of resamples and clusters.
    """

    lag: float = 0.0
    num_resamples: int = 100
    seed: int = 0


def versions() -> dict[str, str]:
    """Returns the versions that figures depend on."""
    names = ("deeptime", "mdtraj", "numpy", "scipy")
    found = {name: importlib.metadata.version(name) for name in names}
    return {"equijump": __version__, "python": platform.python_version(), **found}


def evaluate(
    trajectory: inputs.Replicas,
    reference: inputs.Replicas,
    settings: Settings,
    native: Float[np.ndarray, "num_atoms 3"] | None = None,
    advance: Callable[[int], None] = lambda count: None,
) -> dict[str, Any]:
    """Measures trajectories against a reference; see the docs for every entry.

    Args:
        trajectory: replicas to be judged; replicas that broke are counted and left out.
        reference: reference of the same system.
        settings: lag, resamples and seed.
        native: structure a protein is compared with, in Å; the first frame of the
            reference where None.
        advance: function of the number of models fitted.

    Raises:
        UsageError: All replicas broke, or trajectories do not suit the lag.
    """
    whole, lost = sides.keep_whole(trajectory, reference)
    prepared = sides.prepare(whole, reference, settings.lag, settings.seed)
    resamples = resampling.draw(
        *(len(prepared.sides[name].positions) for name in NAMES),
        settings.num_resamples,
        settings.seed,
    )
    if native is None:
        native = reference.positions[0][0]
    models = {
        name: dynamics.fit_models(
            prepared.sides[name], prepared, getattr(resamples, name), advance
        )
        for name in NAMES
    }
    norm = validity.norm_of(prepared.sides["reference"].positions, prepared.system)
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
        **_compare(prepared, resamples, models, native),
        "validity": {
            name: validity.measure(
                side.positions, prepared.system, norm, prepared.spacing, side.every
            )
            for name, side in prepared.sides.items()
        },
        "viewer": viewer.make_scenes(prepared),
    }
    return plain(report)


def _compare(
    prepared: Prepared,
    resamples: resampling.Resamples,
    models: dict[str, Any],
    native: Float[np.ndarray, "num_atoms 3"],
) -> dict[str, Any]:
    """Returns the entries that compare both sides, with intervals of resamples."""
    weights = dynamics.weights_of_frames(prepared, models)
    return {
        "distributions": {
            name: distributions.compare(quantity, prepared, resamples, weights)
            for name, quantity in distributions.quantities(prepared, native).items()
        },
        "basins": dynamics.measure_basins(prepared, resamples, weights),
        "models": dynamics.measure_models(prepared, models),
        "correlations": dynamics.measure_correlations(prepared, resamples),
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
