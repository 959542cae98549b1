r"""The folding temperature of a structure-based model, where half of it is folded.

Simulations at a ladder of temperatures, their histograms weighted together (Ferrenberg
and Swendsen 1989, Phys. Rev. Lett. 63, 1195), give the folded share at any temperature.
Folded is a frame whose fraction $Q$ of native contacts is above the middle between the
means of the coldest and the hottest simulation.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from common.commands import cli
from common.errors import RunError
from equijump.simulation import GAS_CONSTANT, Plan, Simulation, load_md, set_up

_COLDEST, _HOTTEST = 0.9, 2.0  # kT in epsilon, of the first ladder
_RUNGS = 6  # Of the first ladder
_SPREAD = (-0.04, 0.0, 0.04)  # Of temperatures near the estimate, relative
_SAMPLES = 400  # Of a simulation
_BINS, _ITERATIONS = 300, 1_000  # Of energies, and of their weights at most
_PARTS = 8  # Of a simulation, drawn again for the interval


class Samples(NamedTuple):
    """What simulations at one temperature gave.

    Attributes:
        energies: potential energies, kJ/mol.
        fractions: fractions of native contacts.
    """

    energies: Float[np.ndarray, " num_samples"]
    fractions: Float[np.ndarray, " num_samples"]


def main(arguments: argparse.Namespace, plan: Plan) -> int:
    """Finds the folding temperature, writes `folding.json` and returns the exit status.

    Args:
        arguments: flags of `equijump simulate`; `--length` is that of each simulation.
        plan: lengths of the simulations.
    """
    path = Path(arguments.output, "folding.json")
    cli.check_output(path)
    md = load_md()
    ready = set_up(md, arguments, None, minimises=True)
    native = md.native_of(ready.molecule, arguments.pdb)
    cold = ready.settings.temperature
    is_reduced = arguments.units == "reduced"
    found: dict[float, Samples] = {}
    num_steps = plan.num_frames * plan.steps_per_frame
    with cli.progress(_RUNGS + 2 * len(_SPREAD), "simulating", "runs") as advance:

        def simulate(temperatures: Sequence[float]) -> None:
            for temperature in temperatures:
                found[temperature] = _sample(
                    md, ready, native, temperature, num_steps, arguments.seed
                )
                advance(1, f"{temperature:.4g} K")

        simulate(np.linspace(cold, cold * _HOTTEST / _COLDEST, _RUNGS).tolist())
        for _ in range(2):
            middle = folding_temperature(found)
            simulate([middle * (1.0 + part) for part in _SPREAD])
    report = _report(found, GAS_CONSTANT if is_reduced else 1.0)
    with cli.atomic_path(path) as partial:
        partial.write_text(json.dumps(report, indent=1) + "\n", "utf-8")
    _tell(report, path, "kT/epsilon" if is_reduced else "K")
    return 0


def first_of_ladder(arguments: argparse.Namespace) -> argparse.Namespace:
    """Returns flags at the coldest temperature, without equilibration of their own."""
    kelvin = _COLDEST * arguments.epsilon / GAS_CONSTANT
    temperature = _COLDEST if arguments.units == "reduced" else kelvin
    own = {**vars(arguments), "temperature": temperature, "equilibration": 0.0}
    return argparse.Namespace(**own)


def _sample(
    md: ModuleType,
    ready: Simulation,
    native: Any,
    temperature: float,
    num_steps: int,
    seed: int,
) -> Samples:
    """Simulates at one temperature from the native structure; drops the first tenth."""
    settings = ready.settings._replace(temperature=temperature)
    context = md.open_context(ready.system, ready.engine, settings, seed + 1)
    context.setPositions(ready.molecule.positions)
    context.setVelocitiesToTemperature(temperature, seed + 1)
    energies, fractions = [], []
    try:
        md.advance(context, num_steps // 10)
        for _ in range(_SAMPLES):
            md.advance(context, max(num_steps // _SAMPLES, 1))
            energies.append(md.energy(context))
            fractions.append(md.fraction_native(md.positions(context), native))
    except FloatingPointError as error:
        raise RunError(
            f"the simulation at {temperature:.4g} K became unstable ({error}); a "
            "smaller --step may help"
        ) from error
    return Samples(np.array(energies), np.array(fractions))


def folding_temperature(found: dict[float, Samples]) -> float:
    """Returns the temperature at which half of the frames are folded, in K.

    Args:
        found: samples at each temperature, in K.

    Raises:
        RunError: There is none between the coldest and the hottest.
    """
    threshold = middle(found)
    temperatures = np.array(sorted(found))
    energies = np.concatenate([found[t].energies for t in temperatures])
    folded = np.concatenate([found[t].fractions > threshold for t in temperatures])
    drawn = np.array([len(found[t].energies) for t in temperatures])
    frames, edges = np.histogram(energies, _BINS)
    folded, _ = np.histogram(energies[folded], edges)
    is_there = frames > 0
    centres = ((edges[1:] + edges[:-1]) / 2)[is_there]
    densities = _densities(centres, frames[is_there], temperatures, drawn)
    grid = np.linspace(temperatures[0], temperatures[-1], 1_000)
    logs = densities - centres / (GAS_CONSTANT * grid[:, None])
    weights = np.exp(logs - logs.max(axis=1, keepdims=True))
    parts = (folded / np.maximum(frames, 1))[is_there]
    shares = weights @ parts / weights.sum(axis=1)
    below = np.flatnonzero((shares[:-1] >= 0.5) & (shares[1:] < 0.5))
    if not len(below):
        raise RunError(
            "no folding temperature: of the frames at "
            f"{temperatures[0]:.4g} to {temperatures[-1]:.4g} K {shares[0]:.2f} to "
            f"{shares[-1]:.2f} are folded; a longer --length may help"
        )
    first = below[0]
    part = (shares[first] - 0.5) / (shares[first] - shares[first + 1])
    return float(grid[first] + part * (grid[first + 1] - grid[first]))


def middle(found: dict[float, Samples]) -> float:
    """Returns the fraction of native contacts between folded and unfolded."""
    ends = found[min(found)].fractions.mean(), found[max(found)].fractions.mean()
    return float(sum(ends) / 2)


def _densities(
    centres: Float[np.ndarray, " num_bins"],
    frames: Int[np.ndarray, " num_bins"],
    temperatures: Float[np.ndarray, " num_temperatures"],
    drawn: Int[np.ndarray, " num_temperatures"],
) -> Float[np.ndarray, " num_bins"]:
    """Returns the logarithm of the density of states in each bin of energy.

    Args:
        centres: energies, kJ/mol.
        frames: number of samples in each bin.
        temperatures: K.
        drawn: number of samples at each temperature.
    """
    reduced = centres[:, None] / (GAS_CONSTANT * temperatures)
    offsets = np.zeros(len(temperatures))
    for _ in range(_ITERATIONS):
        logs = np.log(frames) - _log_sum(np.log(drawn) + offsets - reduced, axis=1)
        new = -_log_sum(logs[:, None] - reduced, axis=0)
        new -= new[0]
        if np.abs(new - offsets).max() < 1e-5:
            break
        offsets = new
    return logs


def _log_sum(logs: np.ndarray, axis: int) -> np.ndarray:
    largest = logs.max(axis, keepdims=True)
    total = np.exp(logs - largest).sum(axis)
    return np.log(total) + largest.squeeze(axis)


def _report(found: dict[float, Samples], unit: float) -> dict[str, Any]:
    """Returns the folding temperature, its interval, and what it is made of.

    Args:
        found: samples at each temperature, in K.
        unit: factor from K to the temperature that flags have.
    """
    rng, drawn = np.random.default_rng(0), []
    for _ in range(40):
        again = {t: _draw(samples, rng) for t, samples in found.items()}
        try:
            drawn.append(unit * folding_temperature(again))
        except RunError:
            continue
    interval = np.quantile(drawn, (0.025, 0.975)).tolist() if drawn else None
    return {
        "folding_temperature": unit * folding_temperature(found),
        "interval_95": interval,
        "folded_above": middle(found),
        "runs": [
            {
                "temperature": unit * t,
                "mean_fraction_native": float(found[t].fractions.mean()),
                "folded": float((found[t].fractions > middle(found)).mean()),
            }
            for t in sorted(found)
        ],
    }


def _draw(samples: Samples, rng: np.random.Generator) -> Samples:
    """Returns parts of a simulation, as many as it has, drawn with replacement."""
    parts = np.array_split(np.arange(len(samples.energies)), _PARTS)
    chosen = np.concatenate([parts[i] for i in rng.integers(0, _PARTS, _PARTS)])
    return Samples(samples.energies[chosen], samples.fractions[chosen])


def _tell(report: dict[str, Any], path: Path, unit: str) -> None:
    for run in report["runs"]:
        sys.stdout.write(
            f"{run['temperature']:8.4g} {unit}: Q {run['mean_fraction_native']:.2f}, "
            f"folded {run['folded']:.2f}\n"
        )
    low, high = report["interval_95"] or (np.nan, np.nan)
    sys.stdout.write(
        f"{path}: folding temperature {report['folding_temperature']:.4g} {unit} "
        f"(95 %: {low:.4g} to {high:.4g}), folded above "
        f"Q {report['folded_above']:.2f}; give it as --temperature\n"
    )
