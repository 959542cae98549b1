"""EquiJump on alanine dipeptide at jumps of 10 ps, beside two rivals without a network.

Run: `python -m benchmarks.ala2 --checkpoint=workdir/ala2`. Every contestant jumps from
the same held-out frames, and `equijump.evaluate` judges all of them alike. The rivals:

* memoriser: the training frame nearest to the present one, 10 ps later. Once on a
  training trajectory it replays that to its end;
* conditional mean: the mean of what followed the 50 nearest training frames, each
  superposed on the present one. The best guess in the mean square, and no sampler.

Nearest is by the distances between all heavy atoms. Frames are compared every 10 ps, or
at the next common multiple of that and the reference's spacing.
"""

import argparse
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import mdtraj
import numpy as np
from jaxtyping import Array, Float, Float32
from rich.console import Console
from rich.table import Table
from scipy.spatial import cKDTree

from benchmarks import timing
from common.errors import UsageError
from common.geometry import alignment
from equijump import options, rollout, sample
from equijump.data.frames import ANGSTROM_PER_NM
from equijump.data.topology import to_topology
from equijump.evaluate import geometry, inputs, measure, sides
from equijump.weights import Weights, load_weights, make_jump

LAG = 10.0  # ps
NUM_NEIGHBOURS = 50
HELD_OUT = 2
"""Trajectories of the reference, its last, that rivals are not shown by default."""

Frames = Float32[np.ndarray, "num_frames num_atoms 3"]


class Rollout(NamedTuple):
    """Frames in Å, the starts first, and the share of draws that a gate let pass."""

    frames: Float32[np.ndarray, "num_frames num_replicas num_atoms 3"]
    passed: float | None = None


class Contestant(NamedTuple):
    """What makes trajectories.

    Attributes:
        name: For the table.
        evaluations: Of a network in a jump.
        run: From a number of jumps to trajectories.
    """

    name: str
    evaluations: int
    run: Callable[[int], Rollout]


class Jumps(NamedTuple):
    """Jumps of the training trajectories: a tree of the sources, and the ends in Å."""

    sources: cKDTree
    ends: Frames


def read_jumps(replicas: inputs.Replicas) -> Jumps:
    """Lists the jumps of trajectories, from every frame that has an end.

    Raises:
        UsageError: The lag is no multiple of the spacing.
    """
    if inputs.common_spacing(LAG, replicas.spacing) != LAG:
        raise UsageError(
            f"--train: expected a spacing that divides {LAG:g} ps, found "
            f"{replicas.spacing:g} ps"
        )
    shift = round(LAG / replicas.spacing)
    sources = np.concatenate([positions[:-shift] for positions in replicas.positions])
    ends = np.concatenate([positions[shift:] for positions in replicas.positions])
    return Jumps(cKDTree(features(sources)), ends)


def features(frames: Frames) -> Float[np.ndarray, "num_frames num_pairs"]:
    """Returns the distances between all atoms in Å."""
    return geometry.distances_of(frames, geometry.all_pairs(frames.shape[1]))


def memorised(jumps: Jumps, frames: Frames) -> Frames:
    """Returns what followed the training frame nearest to each frame."""
    _, nearest = jumps.sources.query(features(frames))
    return jumps.ends[nearest]


def mean_end(jumps: Jumps, frames: Frames) -> Frames:
    """Returns the mean of what followed the training frames nearest to each frame."""
    _, nearest = jumps.sources.query(features(frames), NUM_NEIGHBOURS)
    return np.asarray(_superposed_mean(jumps.ends[nearest], frames))


@jax.jit
@jax.vmap
def _superposed_mean(
    ends: Float[Array, "num_neighbours num_atoms 3"], frame: Float[Array, "num_atoms 3"]
) -> Float[Array, "num_atoms 3"]:
    centred, _ = alignment.center(frame)
    return jnp.mean(alignment.superpose(ends, centred), axis=0)


def repeated(
    advance: Callable[[Frames], Frames], starts: Frames, num_jumps: int
) -> Rollout:
    """Rolls out a rival, all replicas side by side."""
    frames = [starts]
    for _ in range(num_jumps):
        frames.append(advance(frames[-1]))
    return Rollout(np.stack(frames))


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
        weights: Packaged, or of a run.
        num_steps: Evaluations of the network in a jump; its config's where None.
        starts: First frames.
        lag: ps.
        seed: Of the rollout.
        gate: See `equijump.gate`.
    """
    chosen = options.choose(
        weights, len(starts), lag=lag, num_steps=num_steps, start=starts, gate=gate
    )
    plan = sample.plan_of(chosen, seed=seed, chunk=sample.CHUNK)
    jump = make_jump(weights, chosen.num_steps, chosen.method)
    order = chosen.system.slot_atoms[chosen.system.slot_atoms >= 0]

    # Not `sample.draw`, which stops where a replica is not finite: that one is lost.
    def run(num_jumps: int) -> Rollout:
        start = rollout.begin(plan)
        rolled = rollout.rollout(jump, weights.params, plan, start.state, 0, num_jumps)
        rest = list(rolled)
        frames = np.concatenate([start.frames, *(chunk.frames for chunk in rest)])
        last = rest[-1].state
        passed = float(last.num_accepted.sum() / last.num_draws.sum()) if gate else None
        return Rollout(frames[:, :, order], passed)

    return Contestant(Path(weights.name).name, chosen.num_steps, run)


def choose_starts(
    reference: inputs.Replicas, train: inputs.Replicas, replicas: int
) -> Frames:
    """Returns frames spaced evenly over what the rivals are not shown.

    Raises:
        UsageError: They are shown all.
    """
    held_out = [
        positions
        for name, positions in zip(reference.names, reference.positions, strict=True)
        if name not in train.names
    ]
    if not held_out:
        raise UsageError("--train: expected fewer files than --reference, found all")
    frames = np.concatenate(held_out)
    return frames[np.linspace(0, len(frames) - 1, replicas).astype(int)]


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
    try:
        _, lost = sides.keep_whole(trajectory, reference)
    except UsageError:  # None is whole.
        lost_all = Result(
            *line, len(replicas), seconds / nanoseconds, None, made.passed
        )
        return lost_all, None
    report = measure.evaluate(trajectory, reference, settings)
    figures = figures_of(report, "trajectory")
    result = Result(*line, len(lost), seconds / nanoseconds, figures, made.passed)
    return result, report


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


def number(value: float | None, digits: int) -> str:
    """Returns a number for the table."""
    return "–" if value is None else f"{value:.{digits}f}"


def estimate(entry: dict[str, float | None] | None, digits: int) -> str:
    """Returns a value with its interval for the table."""
    if entry is None:
        return "–"
    value, low, high = (number(entry[key], digits) for key in ("value", "low", "high"))
    return f"{value} ({low}–{high})"


def make_table(results: list[Result], title: str) -> Table:
    """Lists results, one a row."""
    table = Table(title=title)
    heads = (
        "Ramachandran JS", "floor", "slowest, ps", "alphaR", "bond\nRMS, Å", "lost",
        "flips\nper ns", "thirds\nJS", "evalu-\nations", "CPU s\nper ns",
        "passed\nthe gate",
    )  # fmt: skip
    table.add_column("contestant")
    for head in heads:
        table.add_column(head, justify="right", no_wrap=True)
    for result in results:
        found = result.figures or {}
        table.add_row(
            result.name,
            estimate(found.get("ramachandran_js"), 4),
            number(found.get("floor"), 4),
            estimate(found.get("slowest_time_scale"), 0),
            estimate(found.get("alphaR"), 3),
            number(found.get("bond_rms"), 4),
            number(result.lost, 0),
            number(found.get("flips_per_ns"), 3),
            number(found.get("thirds_js"), 4),
            number(result.evaluations, 0),
            number(result.cpu_seconds_per_ns, 3),
            number(result.passed, 5),
        )
    return table


def parse() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    packaged = str(inputs.PACKAGED / "ala2_300K_*.xtc")
    add("--reference", nargs="+", default=[packaged], help="files or patterns of MD")
    add("--reference_topology", help="PDB of their atoms; by default beside them")
    add(
        "--train",
        nargs="+",
        help="files or patterns that the rivals are shown; by default all of the "
        f"reference but the last {HELD_OUT}",
    )
    add("--checkpoint", nargs="*", default=[], help="runs or packaged weights")
    add(
        "--num_steps",
        nargs="+",
        type=int,
        default=[],
        help="evaluations of the network in a jump; by default the config's",
    )
    add("--no_rivals", action="store_true", help="only networks")
    add("--gate", action="store_true", help="draw broken jumps of networks again")
    add("--num_jumps", type=int, default=1_000, help="of each replica")
    add("--replicas", type=int, default=100, help="trajectories side by side")
    default = Path(__file__).parent / "results" / "ala2.json"
    add("--output", type=Path, default=default, help="JSON file")
    return parser.parse_args()


def read_all(asked: argparse.Namespace) -> tuple[inputs.Replicas, inputs.Replicas]:
    """Reads the reference, and what the rivals are shown.

    Raises:
        UsageError: See `inputs.read`; or nothing is left to show.
    """
    found = inputs.find_files("--reference", asked.reference)
    shown = found[:-HELD_OUT]
    if asked.train:
        shown = inputs.find_files("--train", asked.train)
    if not shown:
        raise UsageError(
            f"--reference: expected more than {HELD_OUT} files, or --train, found "
            f"{len(found)}"
        )
    topology = asked.reference_topology
    reference = inputs.read("--reference", found, topology, 0.0, finite=True)
    train = inputs.read("--train", shown, topology, 0.0, finite=True)
    inputs.check_same(reference.system, train.system, "--train", train.names[0])
    return reference, train


def main() -> None:
    """Measures, prints a table and writes the figures with the machine."""
    asked = parse()
    console = Console(width=160)
    reference, train = read_all(asked)
    starts = choose_starts(reference, train, asked.replicas)
    jumps = read_jumps(train)
    contestants = (
        []
        if asked.no_rivals
        else [
            Contestant(name, 0, partial(repeated, partial(advance, jumps), starts))
            for name, advance in (
                ("memoriser", memorised),
                ("conditional mean", mean_end),
            )
        ]
    )
    topology = to_topology(reference.system)
    first_frames = mdtraj.Trajectory(starts / ANGSTROM_PER_NM, topology)
    contestants += [
        network(weights, num_steps, first_frames, gate=asked.gate)
        for weights in map(load_weights, asked.checkpoint)
        for num_steps in asked.num_steps or [None]
    ]
    settings = measure.Settings(lag=LAG)
    results, of_reference = [], None
    for contestant in contestants:
        console.print(f"{contestant.name}, {contestant.evaluations} evaluations")
        result, report = judge(contestant, reference, asked.num_jumps, settings)
        results.append(result)
        if of_reference is None and report is not None:
            of_reference = figures_of(report, "reference")
    results.insert(0, Result("reference", None, None, None, of_reference))
    title = (
        f"{asked.replicas} replicas of {asked.num_jumps} jumps of {LAG:g} ps; nats; "
        "95 % of resamples"
    )
    console.print(make_table(results, title))
    written = {
        "machine": timing.machine(),
        "versions": measure.versions(),
        "reference": reference.names,
        "train": train.names,
        "checkpoints": asked.checkpoint,
        "replicas": asked.replicas,
        "num_jumps": asked.num_jumps,
        "lag": LAG,
        "lines": [result._asdict() for result in results],
    }
    asked.output.parent.mkdir(parents=True, exist_ok=True)
    asked.output.write_text(json.dumps(written, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
