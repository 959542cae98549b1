"""Pairs of frames a lag apart, drawn as a function of (seed, step).

Both frames of a pair lie in one segment: a stretch of one trajectory that belongs to
training or to validation. Segments of one trajectory are apart by more than the largest
lag, so that no frame of validation is ever the end of a jump in training.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float32, Int

from common.errors import UsageError
from common.nn.conditions import Known
from equijump.data.frames import Trajectory

MOST_BUCKETS = 4
"""Sizes to which batches are padded, at most; a program is compiled for each."""


class Segment(NamedTuple):
    """Frames `start` to `stop` (not included) of a trajectory.

    Attributes:
        trajectory: trajectory that has the frames.
        start: first frame.
        stop: one past the last frame.
        weights: weight of each frame as a source; all the same where None.
    """

    trajectory: Trajectory
    start: int
    stop: int
    weights: Float[np.ndarray, " num_frames"] | None = None


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


class Lags(NamedTuple):
    """Lags in ps: a few, drawn evenly, or two ends of a range, log-uniform in frames.

    Attributes:
        values: lags in ps, or the smallest and the largest.
        is_range: true if `values` are ends of a range.
    """

    values: tuple[float, ...]
    is_range: bool


def in_frames(lags: Lags, trajectory: Trajectory) -> tuple[int, ...]:
    """Returns the lags in frames of a trajectory.

    Raises:
        UsageError: A lag is no multiple of the spacing.
    """
    counts = []
    for lag in lags.values:
        count = lag / trajectory.spacing
        if round(count) < 1 or abs(count - round(count)) > 1e-3:
            raise UsageError(
                f"config.data.lags: expected multiples of {trajectory.spacing:g} ps, "
                f"the spacing of {trajectory.name}, found {lag:g} ps"
            )
        counts.append(round(count))
    return tuple(counts)


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


def batch_at(
    segments: Sequence[Segment],
    lags: Lags,
    batch_size: int,
    num_nodes: int,
    seed: int,
    step: int,
    num_before: int = 0,
    rows: Int[np.ndarray, " num_rows"] | None = None,
    shares: Float[np.ndarray, " num_segments"] | None = None,
) -> Batch:
    """Returns the pairs of a training step; nothing but (seed, step) enters.

    Systems come equally often, segments of one system by their length or the sum of
    their weights, source frames by their weights.

    Args:
        segments: stretches of trajectories of all systems.
        lags: values that the lag is drawn from.
        batch_size: number of pairs.
        num_nodes: residues of the result, at least those of the largest system.
        seed: seed of the whole run.
        step: number of the step, from 0.
        num_before: number of frames before the source that come with it.
        rows: numbers of the pairs that are read; all of them where None.
        shares: probability of each segment where it is not `shares_of`, see `Bucket`.
    """
    shares = shares_of(segments) if shares is None else shares
    rng = np.random.default_rng((seed, 2, step))
    chosen = rng.choice(len(segments), batch_size, p=shares)
    draws = rng.random((batch_size, 2))
    if rows is not None:
        chosen, draws = chosen[rows], draws[rows]
    names = sorted({n for s in segments for n in s.trajectory.conditions} | {"lag"})
    num_slots = segments[0].trajectory.system.slot_atoms.shape[1]
    batch = _empty(len(chosen), (num_nodes, num_slots), num_before, names)
    for index in np.unique(chosen):
        places = np.flatnonzero(chosen == index)
        _fill(batch, places, segments[index], lags, draws[places])
    return batch


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
    batch: Batch,
    rows: Int[np.ndarray, " num_rows"],
    segment: Segment,
    lags: Lags,
    draws: Float[np.ndarray, "num_rows 2"],
) -> None:
    """Reads the pairs of one segment into rows of a batch."""
    trajectory, system = segment.trajectory, segment.trajectory.system
    num_nodes, num_before = batch.tokens.shape[1], batch.before.shape[1]
    steps = draw_lags(lags, trajectory, draws[:, 0])
    sources = draw_sources(segment, steps, draws[:, 1], num_before)
    placed = lambda frames: pad_slots(trajectory, frames, num_nodes)
    batch.source[rows] = placed(sources)
    batch.target[rows] = placed(sources + steps)
    for place in range(num_before):
        batch.before[rows, place] = placed(sources - (num_before - place) * steps)
    size = len(system.tokens)
    batch.tokens[rows, :size] = system.tokens
    batch.slot_mask[rows, :size] = system.slot_atoms >= 0
    batch.chains[rows, :size] = system.chains
    batch.numbers[rows, :size] = system.numbers
    lag = {"lag": steps * trajectory.spacing}
    for name, value in {**trajectory.conditions, **lag}.items():
        batch.conditions[name].value[rows] = value
        batch.conditions[name].mask[rows] = True


def hide_sources(batch: Batch, share: float, seed: int, step: int) -> Batch:
    """Hides some sources: of these pairs the end is a frame of the ensemble.

    Args:
        batch: pairs; changed in place.
        share: probability that a source is hidden.
        seed: seed of the whole run.
        step: number of the step, from 0.
    """
    hidden = np.random.default_rng((seed, 3, step)).random(len(batch.source)) < share
    batch.source[hidden] = 0.0
    batch.conditions["lag"].mask[hidden] = False
    return batch


def draw_lags(
    lags: Lags, trajectory: Trajectory, draws: Float[np.ndarray, " batch"]
) -> Int[np.ndarray, " batch"]:
    """Maps uniform numbers to lags in frames."""
    counts = np.array(in_frames(lags, trajectory))
    if not lags.is_range:
        return counts[np.minimum((draws * len(counts)).astype(int), len(counts) - 1)]
    low, high = np.log(counts[0] - 0.5), np.log(counts[-1] + 0.5)
    drawn = np.round(np.exp(low + draws * (high - low))).astype(int)
    return np.clip(drawn, counts[0], counts[-1])


def draw_sources(
    segment: Segment,
    steps: Int[np.ndarray, " batch"],
    draws: Float[np.ndarray, " batch"],
    num_before: int = 0,
) -> Int[np.ndarray, " batch"]:
    """Maps uniform numbers to source frames whose target is in the segment.

    As many frames as `num_before`, `steps` apart, are in the segment before them.
    """
    first = num_before * steps
    stop = segment.stop - segment.start - steps
    if segment.weights is None:
        found = first + (draws * (stop - first)).astype(int)
    else:
        below = np.append(0.0, np.cumsum(segment.weights))
        drawn = below[first] + draws * (below[stop] - below[first])
        found = np.searchsorted(below, drawn, side="right") - 1
    return segment.start + np.clip(found, first, stop - 1)


class Bucket(NamedTuple):
    """Systems of about one size: batches of one bucket need little padding.

    Attributes:
        num_nodes: residues that batches are padded to, those of its largest system.
        probability: probability that a step draws from this bucket.
        shares: probability of each segment in such a step; 0 of the other buckets'.
    """

    num_nodes: int
    probability: float
    shares: Float[np.ndarray, " num_segments"]


def make_buckets(segments: Sequence[Segment]) -> tuple[Bucket, ...]:
    """Sorts segments into buckets whose systems differ by less than a factor of two.

    There are at most `MOST_BUCKETS`; the last one has all that is smaller. A pair comes
    as often as without them: probability and shares multiply to `shares_of`.

    Args:
        segments: stretches of trajectories of all systems.
    """
    sizes = np.array([len(s.trajectory.system.tokens) for s in segments])
    bounds: list[int] = []
    for size in np.unique(sizes)[::-1].tolist():
        if not bounds or (2 * size <= bounds[-1] and len(bounds) < MOST_BUCKETS):
            bounds.append(size)
    every = shares_of(segments)
    if len(bounds) == 1:
        return (Bucket(bounds[0], 1.0, every),)
    found = []
    for size, next_size in zip(bounds, [*bounds[1:], 0], strict=True):
        shares = np.where((sizes <= size) & (sizes > next_size), every, 0.0)
        total = float(shares.sum())
        found.append(Bucket(size, total, shares / total))
    return tuple(found)


def bucket_at(buckets: Sequence[Bucket], seed: int, step: int) -> Bucket:
    """Returns the bucket of a training step, drawn by its probability."""
    if len(buckets) == 1:
        return buckets[0]
    ends = np.cumsum([bucket.probability for bucket in buckets])
    drawn = np.random.default_rng((seed, 4, step)).random() * ends[-1]
    return buckets[int(np.searchsorted(ends, drawn, side="right"))]


def sizes_at(
    segments: Sequence[Segment], batch_size: int, seed: int, step: int
) -> Int[np.ndarray, " batch"]:
    """Returns the number of residues of each pair of `batch_at`, without reading it."""
    rng = np.random.default_rng((seed, 2, step))
    chosen = rng.choice(len(segments), batch_size, p=shares_of(segments))
    return np.array([len(s.trajectory.system.tokens) for s in segments])[chosen]


def shares_of(segments: Sequence[Segment]) -> Float[np.ndarray, " num_segments"]:
    """Returns the probability that a pair is of each segment, see `batch_at`."""
    names = [segment.trajectory.system.tokens.tobytes() for segment in segments]
    lengths = np.array([
        s.stop - s.start if s.weights is None else s.weights.sum() for s in segments
    ], float)  # fmt: skip
    totals = dict.fromkeys(names, 0.0)
    for name, length in zip(names, lengths, strict=True):
        totals[name] += length
    shares = lengths / np.array([totals[name] for name in names])
    return shares / len(totals)


def blocks(
    trajectory: Trajectory, num_blocks: int, held_out: int, gap: int
) -> tuple[tuple[Segment, ...], Segment]:
    """Cuts one trajectory into blocks of time, and holds one of them out.

    Args:
        trajectory: only trajectory of its system.
        num_blocks: number of equal blocks.
        held_out: number of the block that validates.
        gap: frames left out on either side of it; more than the largest lag.

    Returns:
        Segments to train on, and the one held out.
    """
    count = len(trajectory.positions)
    start, stop = (count * held_out // num_blocks, count * (held_out + 1) // num_blocks)
    ends = [(0, start - gap), (stop + gap, count)]
    training = tuple(Segment(trajectory, a, b) for a, b in ends if b - a > gap)
    return training, Segment(trajectory, start, stop)
