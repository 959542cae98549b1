"""Pairs of frames a lag apart, drawn as a function of (seed, step).

Both frames of a pair lie in one segment, see `equijump.data.segments`. What is drawn
from is worked out once, as a `Plan`: a step then takes no longer with more data.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float32, Int

from common.nn.conditions import Known
from equijump.data import crops, lags
from equijump.data.frames import Trajectory
from equijump.data.lags import Lags as Lags
from equijump.data.mixture import shares_of, sizes_of
from equijump.data.segments import Segment as Segment

Frames = Float32[np.ndarray, "batch num_nodes num_slots 3"]
PerResidue = Int[np.ndarray, "batch num_nodes"]


class Batch(NamedTuple):
    """Pairs of frames, padded to one number of residues.

    Attributes:
        source: positions of the atoms in their slots, in Å, zero where there is none.
        target: frame a lag later, in Å.
        tokens: residue types, 0 for padding.
        slot_mask: true for atoms.
        chains: number of the chain of each residue.
        numbers: place of each residue in its chain.
        conditions: numbers of `common.nn.conditions`: the lag in ps, unknown where the
            source is hidden, and what the trajectory states.
        before: frames that lead to the source, in Å, a lag apart, the first one first.
    """

    source: Frames
    target: Frames
    tokens: PerResidue
    slot_mask: Bool[np.ndarray, "batch num_nodes num_slots"]
    chains: PerResidue
    numbers: PerResidue
    conditions: dict[str, Known]
    before: Float32[np.ndarray, "batch num_before num_nodes num_slots 3"]


def pad_slots(
    trajectory: Trajectory, frames: Int[np.ndarray, " batch"], num_nodes: int
) -> Frames:
    """Reads frames and puts their atoms into slots."""
    slots = trajectory.system.slot_atoms
    atoms = np.asarray(trajectory.positions[frames])
    placed = np.zeros((len(frames), num_nodes, slots.shape[1], 3), np.float32)
    there = slots >= 0
    rows, columns = np.nonzero(there)
    placed[:, rows, columns] = atoms[:, slots[there]]
    return placed


class Plan(NamedTuple):
    """What pairs are drawn from.

    Attributes:
        segments: stretches of trajectories of all systems.
        lags: lags that each of them serves.
        shares: probability of each.
        sizes: number of residues of a pair of each, at most.
        names: conditions that any of them states, and the lag.
        num_before: number of frames before the source that come with a pair.
        has_times: true if some have times of their own.
        has_crops: true if some have more residues than their pairs.
    """

    segments: Sequence[Segment]
    lags: tuple[Lags, ...]
    shares: Float[np.ndarray, " num_segments"]
    sizes: Int[np.ndarray, " num_segments"]
    names: tuple[str, ...]
    num_before: int
    has_times: bool
    has_crops: bool


def make_plan(segments: Sequence[Segment], law: Lags, num_before: int = 0) -> Plan:
    """Works out what is drawn from; segments that serve no lag of the law never come.

    Args:
        segments: stretches of trajectories of all systems.
        law: lags that are drawn, where a segment has them.
        num_before: number of frames before the source that come with it.
    """
    served = tuple(lags.served(law, segment, num_before) for segment in segments)
    serving = np.array([bool(own.values) for own in served])
    names = {name for s in segments for name in s.trajectory.conditions} | {"lag"}
    return Plan(
        segments=segments,
        lags=served,
        shares=shares_of(segments, serving),
        sizes=sizes_of(segments),
        names=tuple(sorted(names)),
        num_before=num_before,
        has_times=any(s.trajectory.times is not None for s in segments),
        has_crops=any(s.crop is not None for s in segments),
    )


def batch_at(
    segments: Sequence[Segment],
    law: Lags,
    batch_size: int,
    num_nodes: int,
    seed: int,
    step: int,
    num_before: int = 0,
    rows: Int[np.ndarray, " num_rows"] | None = None,
    shares: Float[np.ndarray, " num_segments"] | None = None,
) -> Batch:
    """Returns the pairs of one step, as `draw` does from a plan that is made for it."""
    plan = make_plan(segments, law, num_before)
    return draw(plan, batch_size, num_nodes, seed, step, rows, shares)


class _Drawn(NamedTuple):
    """Segments of pairs, and the uniform numbers that decide the rest.

    Attributes:
        chosen: segment of each pair.
        draws: numbers of lag and source.
        tries: numbers of further sources, where times are uneven.
        middles: numbers of the residue in the middle of a crop.
    """

    chosen: Int[np.ndarray, " batch"]
    draws: Float[np.ndarray, "batch 2"]
    tries: Float[np.ndarray, "batch num_tries"]
    middles: Float[np.ndarray, " batch"]


def draw(
    plan: Plan,
    batch_size: int,
    num_nodes: int,
    seed: int,
    step: int,
    rows: Int[np.ndarray, " num_rows"] | None = None,
    shares: Float[np.ndarray, " num_segments"] | None = None,
) -> Batch:
    """Returns the pairs of a training step; nothing but (seed, step) enters.

    Segments come by their shares, source frames by their weights.

    Args:
        plan: what is drawn from.
        batch_size: number of pairs.
        num_nodes: residues of the result, at least those of the largest system.
        seed: seed of the whole run.
        step: number of the step, from 0.
        rows: numbers of the pairs that are read; all of them where None.
        shares: probability of each segment where it is not the plan's, see `Bucket`.
    """
    drawn = _draw(plan, batch_size, seed, step, shares)
    if rows is not None:
        drawn = _Drawn(*(numbers[rows] for numbers in drawn))
    num_slots = plan.segments[0].trajectory.system.slot_atoms.shape[1]
    size, slots = len(drawn.chosen), (num_nodes, num_slots)
    batch = _empty(size, slots, plan.num_before, plan.names)
    for index in np.unique(drawn.chosen).tolist():
        places = np.flatnonzero(drawn.chosen == index)
        _fill(batch, places, plan, index, drawn)
    return batch


def sizes_at(
    plan: Plan, batch_size: int, seed: int, step: int
) -> Int[np.ndarray, " batch"]:
    """Returns the residues of each pair of `draw`, at most, without reading it."""
    return plan.sizes[_draw(plan, batch_size, seed, step, None).chosen]


def _draw(
    plan: Plan,
    batch_size: int,
    seed: int,
    step: int,
    shares: Float[np.ndarray, " num_segments"] | None,
) -> _Drawn:
    """Draws what decides the pairs; each kind of number has its own stream."""
    stream = lambda kind: np.random.default_rng((seed, kind, step))
    rng = stream(2)
    shares = plan.shares if shares is None else shares
    chosen = rng.choice(len(shares), batch_size, p=shares)
    draws = rng.random((batch_size, 2))
    tries, middles = np.zeros((batch_size, 0)), np.zeros(batch_size)
    if plan.has_crops:
        middles = stream(5).random(batch_size)
    if plan.has_times:
        tries = stream(6).random((batch_size, lags.NUM_TRIES))
    return _Drawn(chosen, draws, tries, middles)


def _empty(
    size: int, slots: tuple[int, int], num_before: int, names: Sequence[str]
) -> Batch:
    """Returns a batch of padding, of so many residues and slots."""
    frames = lambda *shape: np.zeros((*shape, *slots, 3), np.float32)
    num_nodes = slots[0]
    return Batch(
        source=frames(size),
        target=frames(size),
        tokens=np.zeros((size, num_nodes), np.int32),
        slot_mask=np.zeros((size, *slots), bool),
        chains=np.full((size, num_nodes), -1, np.int32),
        numbers=np.zeros((size, num_nodes), np.int32),
        conditions={
            name: Known(np.ones(size, np.float32), np.zeros(size, bool))
            for name in names
        },
        before=frames(size, num_before),
    )


def _fill(
    batch: Batch, rows: Int[np.ndarray, " num_rows"], plan: Plan, index: int,
    drawn: _Drawn,
) -> None:  # fmt: skip
    """Reads the pairs of one segment into rows of a batch."""
    segment, served = plan.segments[index], plan.lags[index]
    trajectory, num_nodes = segment.trajectory, batch.tokens.shape[1]
    numbers = drawn.draws[rows], drawn.tries[rows], plan.num_before
    found = lags.draw(served, segment, *numbers)
    source, residues = _read_sources(
        segment, found.sources, drawn.middles[rows], num_nodes
    )
    placed = lambda frames: _read(trajectory, frames, residues, num_nodes)
    batch.source[rows] = source
    batch.target[rows] = placed(found.targets)
    for place, frames in enumerate(found.before):
        batch.before[rows, place] = placed(frames)
    _fill_system(batch, rows, trajectory, residues)
    for name, value in {**trajectory.conditions, "lag": found.lags}.items():
        batch.conditions[name].value[rows] = value
        batch.conditions[name].mask[rows] = True


def _read_sources(
    segment: Segment,
    frames: Int[np.ndarray, " num_rows"],
    middles: Float[np.ndarray, " num_rows"],
    num_nodes: int,
) -> tuple[Frames, Int[np.ndarray, "num_rows size"] | None]:
    """Reads source frames, and chooses the residues of each if they are cropped."""
    trajectory, crop = segment.trajectory, segment.crop
    if crop is None:
        return pad_slots(trajectory, frames, num_nodes), None
    whole = pad_slots(trajectory, frames, len(trajectory.system.tokens))
    residues = crops.choose(trajectory.system, crop, whole, middles)
    return crops.take(whole, residues, num_nodes), residues


def _read(
    trajectory: Trajectory,
    frames: Int[np.ndarray, " num_rows"],
    residues: Int[np.ndarray, "num_rows size"] | None,
    num_nodes: int,
) -> Frames:
    """Reads frames, or the chosen residues of them."""
    if residues is None:
        return pad_slots(trajectory, frames, num_nodes)
    whole = pad_slots(trajectory, frames, len(trajectory.system.tokens))
    return crops.take(whole, residues, num_nodes)


def _fill_system(
    batch: Batch,
    rows: Int[np.ndarray, " num_rows"],
    trajectory: Trajectory,
    residues: Int[np.ndarray, "num_rows size"] | None,
) -> None:
    """Writes what does not change along a trajectory; nothing where -1 is chosen."""
    system = trajectory.system
    if residues is None:
        residues = np.tile(np.arange(len(system.tokens)), (len(rows), 1))
    real, size = residues >= 0, residues.shape[1]
    batch.tokens[rows, :size] = np.where(real, system.tokens[residues], 0)
    batch.slot_mask[rows, :size] = real[:, :, None] & (system.slot_atoms[residues] >= 0)
    batch.chains[rows, :size] = np.where(real, system.chains[residues], -1)
    batch.numbers[rows, :size] = np.where(real, system.numbers[residues], 0)


def hide_sources(
    batch: Batch,
    share: float,
    seed: int,
    step: int,
    rows: Int[np.ndarray, " num_rows"] | None = None,
) -> Batch:
    """Hides some sources: of these pairs the end is a frame of the ensemble.

    Args:
        batch: pairs; changed in place.
        share: probability that a source is hidden.
        seed: seed of the whole run.
        step: number of the step, from 0.
        rows: numbers of the pairs in the batch of the step; all of them where None.
    """
    rows = np.arange(len(batch.source)) if rows is None else rows
    draws = np.random.default_rng((seed, 3, step)).random(rows.max() + 1)
    hidden = draws[rows] < share
    batch.source[hidden] = 0.0
    batch.conditions["lag"].mask[hidden] = False
    return batch
