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
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from rich.console import Console
from scipy.spatial import cKDTree

from benchmarks import trajectories
from benchmarks.trajectories import LAG, Contestant, Frames, Result, Rollout
from common.errors import UsageError
from common.geometry import alignment
from equijump.evaluate import geometry, inputs, measure
from equijump.weights import load_weights

NUM_NEIGHBOURS = 50
HELD_OUT = 2
"""Trajectories of the reference, its last, that rivals are not shown by default."""

COLUMNS = (
    "ramachandran_js", "floor", "slowest_time_scale", "alphaR", "bond_rms", "lost",
    "flips_per_ns", "thirds_js", "evaluations", "cpu_seconds_per_ns", "passed",
)  # fmt: skip


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


def held_out(reference: inputs.Replicas, train: inputs.Replicas) -> Frames:
    """Returns the frames that the rivals are not shown.

    Raises:
        UsageError: they are shown all.
    """
    found = [
        positions
        for name, positions in zip(reference.names, reference.positions, strict=True)
        if name not in train.names
    ]
    if not found:
        raise UsageError("--train: expected fewer files than --reference, found all")
    return np.concatenate(found)


def parse() -> argparse.Namespace:
    """Reads the command line."""
    parser = trajectories.parser(__doc__, "ala2")
    trajectories.add_reference(parser)
    add = parser.add_argument
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
    add("--num_jumps", type=int, default=1_000, help="of each replica")
    return parser.parse_args()


def read_all(flags: argparse.Namespace) -> tuple[inputs.Replicas, inputs.Replicas]:
    """Reads the reference, and what the rivals are shown.

    Raises:
        UsageError: See `inputs.read`; or nothing is left to show.
    """
    found = inputs.find_files("--reference", flags.reference)
    shown = found[:-HELD_OUT]
    if flags.train:
        shown = inputs.find_files("--train", flags.train)
    if not shown:
        raise UsageError(
            f"--reference: expected more than {HELD_OUT} files, or --train, found "
            f"{len(found)}"
        )
    topology = flags.reference_topology
    reference = inputs.read("--reference", found, topology, 0.0, finite=True)
    train = inputs.read("--train", shown, topology, 0.0, finite=True)
    inputs.check_same(reference.system, train.system, "--train", train.names[0])
    return reference, train


def contestants(
    flags: argparse.Namespace, reference: inputs.Replicas, train: inputs.Replicas
) -> list[Contestant]:
    """Returns the rivals, unless they are not asked for, and the networks."""
    frames = held_out(reference, train)
    starts, first = trajectories.spread(frames, flags.replicas, reference.system)
    jumps = read_jumps(train)
    rivals = {"memoriser": memorised, "conditional mean": mean_end}
    found = [
        Contestant(name, 0, partial(repeated, partial(advance, jumps), starts))
        for name, advance in rivals.items()
        if not flags.no_rivals
    ]
    return found + [
        trajectories.network(weights, num_steps, first, gate=flags.gate)
        for weights in map(load_weights, flags.checkpoint)
        for num_steps in flags.num_steps or [None]
    ]


def main() -> None:
    """Measures, prints a table and writes the figures with the machine."""
    flags = parse()
    reference, train = read_all(flags)
    settings = measure.Settings(lag=LAG)
    results, of_reference = [], None
    for contestant in contestants(flags, reference, train):
        Console().print(f"{contestant.name}, {contestant.evaluations} evaluations")
        result, found = trajectories.judge(
            contestant, reference, flags.num_jumps, settings
        )
        results.append(result)
        if of_reference is None and found is not None:
            of_reference = trajectories.figures_of(found, "reference")
    results.insert(0, Result("reference", None, None, None, of_reference))
    trajectories.show(
        f"{flags.replicas} replicas of {flags.num_jumps} jumps of {LAG:g} ps; nats; "
        "95 % of resamples",
        COLUMNS,
        [{**result._asdict(), **(result.figures or {})} for result in results],
        first="contestant",
    )
    trajectories.write(
        flags,
        reference=reference.names,
        train=train.names,
        lag=LAG,
        lines=[result._asdict() for result in results],
    )


if __name__ == "__main__":
    main()
