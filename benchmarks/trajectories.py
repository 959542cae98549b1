"""Contestants, measures and figures of the benchmarks of trajectories.

A contestant makes trajectories from frames of a reference, and `equijump.evaluate`
judges them. `FIGURES` says how each figure stands in a table.
"""

import argparse
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import mdtraj
import numpy as np
from jaxtyping import Float32

from benchmarks import report, timing
from common.errors import UsageError
from equijump import options, rollout, sampler
from equijump.data.frames import ANGSTROM_PER_NM
from equijump.data.topology import System, to_topology
from equijump.evaluate import inputs, measure, sides
from equijump.weights import Weights, make_jump

LAG = 10.0  # ps
Frames = Float32[np.ndarray, "num_frames num_atoms 3"]

FIGURES = {
    "lag": ("lag, ps", 0),
    "ramachandran_js": ("Ramachandran JS", 4),
    "floor": ("floor", 4),
    "ratio": ("ratio", 1),
    "torsions_js": ("worst chi JS", 4),
    "torsions_floor": ("its floor", 4),
    "slowest_time_scale": ("slowest, ps", 0),
    "reference_slowest_time_scale": ("of reference", 0),
    "alphaR": ("alphaR", 3),
    "bond_rms": ("bond\nRMS, Å", 4),
    "reference_bond_rms": ("of\nreference", 4),
    "lost": ("lost", 0),
    "flips_per_ns": ("flips\nper ns", 3),
    "thirds_js": ("thirds\nJS", 4),
    "evaluations": ("evalu-\nations", 0),
    "cpu_seconds_per_ns": ("CPU s\nper ns", 3),
    "passed": ("passed\nthe gate", 5),
}
"""Heading and digits of each figure."""


class Rollout(NamedTuple):
    """Frames in Å, the starts first, and the share of draws that a gate let pass."""

    frames: Float32[np.ndarray, "num_frames num_replicas num_atoms 3"]
    passed: float | None = None


class Contestant(NamedTuple):
    """Source of trajectories.

    Attributes:
        name: name in the table.
        evaluations: evaluations of a network in a jump.
        run: function from a number of jumps to trajectories.
    """

    name: str
    evaluations: int
    run: Callable[[int], Rollout]


def network(
    weights: Weights,
    num_steps: int | None,
    starts: mdtraj.Trajectory,
    lag: float = LAG,
    seed: int = 0,
    gate: bool = False,
) -> Contestant:
    """Returns trained weights, from one start for each replica.

    Args:
        weights: packaged weights, or those of a run.
        num_steps: evaluations of the network in a jump; its config's where None.
        starts: first frames.
        lag: lag of a jump, ps.
        seed: seed of the rollout.
        gate: true where broken jumps are drawn again, see `equijump.rejection`.
    """
    chosen = options.choose(
        weights, len(starts), lag=lag, num_steps=num_steps, start=starts, gate=gate
    )
    plan = sampler.plan_of(chosen, seed=seed, chunk=sampler.CHUNK)
    jump = make_jump(weights, chosen.num_steps, chosen.method)
    order = chosen.system.slot_atoms[chosen.system.slot_atoms >= 0]

    # Not `sampler.draw`, which stops where a replica is not finite: that one is lost.
    def run(num_jumps: int) -> Rollout:
        start = rollout.begin(plan)
        rolled = rollout.rollout(jump, weights.params, plan, start.state, 0, num_jumps)
        rest = list(rolled)
        frames = np.concatenate([start.frames, *(chunk.frames for chunk in rest)])
        last = rest[-1].state
        passed = float(last.num_accepted.sum() / last.num_draws.sum()) if gate else None
        return Rollout(frames[:, :, order], passed)

    return Contestant(Path(weights.name).name, chosen.num_steps, run)


def spread(
    frames: Frames, count: int, system: System
) -> tuple[Frames, mdtraj.Trajectory]:
    """Returns frames spaced evenly, Å, and the same as a trajectory."""
    chosen = frames[np.linspace(0, len(frames) - 1, count).astype(int)]
    return chosen, mdtraj.Trajectory(chosen / ANGSTROM_PER_NM, to_topology(system))


class Result(NamedTuple):
    """A line of the table: `figures` is None where every replica was lost.

    `passed` is the share of draws that the gate let pass, where there is one.
    """

    name: str
    evaluations: int | None
    lost: int | None
    cpu_seconds_per_ns: float | None
    figures: dict[str, Any] | None
    passed: float | None = None


def judge(
    contestant: Contestant,
    reference: inputs.Replicas,
    num_jumps: int,
    settings: measure.Settings,
    lag: float = LAG,
) -> tuple[Result, dict[str, Any] | None]:
    """Rolls out and measures; returns the whole report of `measure.evaluate` too."""
    contestant.run(1)  # Compiles.
    rolled: list[Rollout] = []
    seconds = timing.cpu_seconds(lambda: rolled.append(contestant.run(num_jumps)))
    (made,) = rolled
    replicas = np.moveaxis(made.frames, 1, 0)
    trajectory = inputs.Replicas(
        names=tuple(f"replica {index}" for index in range(len(replicas))),
        system=reference.system,
        positions=tuple(replicas),
        spacing=lag,
    )
    nanoseconds = 1e-3 * lag * num_jumps * len(replicas)
    line = (contestant.name, contestant.evaluations)
    cost = seconds / nanoseconds
    try:
        _, lost = sides.keep_whole(trajectory, reference)
    except UsageError:  # None is whole.
        return Result(*line, len(replicas), cost, None, made.passed), None
    found = measure.evaluate(trajectory, reference, settings)
    figures = figures_of(found, "trajectory")
    return Result(*line, len(lost), cost, figures, made.passed), found


def judge_or_stop(
    contestant: Contestant,
    reference: inputs.Replicas,
    num_jumps: int,
    settings: measure.Settings,
    lag: float,
) -> tuple[Result, dict[str, Any]]:
    """Returns what `judge` does, and ends the benchmark where all replicas are lost."""
    result, found = judge(contestant, reference, num_jumps, settings, lag)
    if found is None:
        raise SystemExit(f"{reference.names[0]}, {lag:g} ps: every replica was lost")
    return result, found


def figures_of(report: dict[str, Any], side: str) -> dict[str, Any]:
    """Picks the figures of one side; times in ps, lengths in Å, divergences in nats."""
    (angles,) = (
        entry
        for entry in report["distributions"].values()
        if entry["kind"] == "ramachandran"
    )
    js = {"value": angles["js"], "low": angles["low"], "high": angles["high"]}
    (basins,) = report["basins"].values()
    validity = report["validity"][side]
    return {
        "ramachandran_js": js if side == "trajectory" else None,
        "floor": angles["floor"],
        "slowest_time_scale": report["models"][side]["time_scales"][0][0],
        "alphaR": basins[side]["weights"]["alphaR"],
        "bond_rms": validity["bond_rms"],
        "flips_per_ns": sum(validity["flips_per_ns"].values()),
        "thirds_js": angles["thirds"][side],
    }


def line_of(name: str, result: Result, found: dict[str, Any]) -> dict[str, Any]:
    """Returns the figures of a contestant and of its reference, by name."""
    of_reference = figures_of(found, "reference")
    line = {**result._asdict(), "name": name, **figures_of(found, "trajectory")}
    del line["figures"]
    return line | {f"reference_{key}": of_reference[key] for key in of_reference}


def cell(value: float | dict[str, float | None] | None, digits: int) -> str:
    """Returns a number, or a value with its interval, for a table."""
    if value is None:
        return "–"
    if not isinstance(value, dict):
        return f"{value:.{digits}f}"
    if value["value"] is None:
        return "–"
    middle, low, high = (cell(value[key], digits) for key in ("value", "low", "high"))
    return f"{middle} ({low}–{high})"


def show(
    title: str, names: Iterable[str], lines: list[dict[str, Any]], first: str
) -> None:
    """Prints figures, one contestant a row.

    Args:
        title: title of the table.
        names: keys of `FIGURES`, one a column.
        lines: figures by name, and the name of each line; those absent are left out.
        first: heading of the names.
    """
    columns = {name: FIGURES[name] for name in names}
    cells = lambda line: (
        cell(line.get(name), digits) for name, (_, digits) in columns.items()
    )
    report.show(
        title,
        (first, *(heading for heading, _ in columns.values())),
        [(line["name"], *cells(line)) for line in lines],
        left=(first,),
        width=180,
    )


def parser(head: str, name: str) -> argparse.ArgumentParser:
    """Returns a parser with the flags that all have, see `report.parser`."""
    found = report.parser(head, name)
    add = found.add_argument
    add("--gate", action="store_true", help="draw broken jumps of networks again")
    add("--replicas", type=int, default=100, help="trajectories side by side")
    return found


def add_reference(found: argparse.ArgumentParser) -> None:
    """Adds `--reference`, by default the packaged trajectories."""
    packaged = str(inputs.PACKAGED / "ala2_300K_*.xtc")
    found.add_argument(
        "--reference", nargs="+", default=[packaged], help="files or patterns of MD"
    )


def write(asked: argparse.Namespace, **figures: Any) -> None:
    """Writes figures, the flags, and the versions that figures depend on."""
    flags = {name: value for name, value in vars(asked).items() if name != "output"}
    report.write(asked.output, versions=measure.versions(), **(flags | figures))
