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
from equijump.data.frames import Trajectory
from equijump.data.residues import NUM_SLOTS

ENSEMBLE_LAG = 1e6
"""ps, longer than any jump: that of a pair whose source is not shown."""


def time_of(lag: float) -> float:
    """Returns ps from the begin of a jump to its end; frames of an ensemble count 1."""
    return 1.0 if lag >= ENSEMBLE_LAG else lag


class Segment(NamedTuple):
    """Frames `start` to `stop` (not included) of a trajectory.

    Attributes:
        trajectory: Where the frames are.
        start: First frame.
        stop: One past the last.
        weights: Of each frame as a source; all the same where None.
        temperature: K.
    """

    trajectory: Trajectory
    start: int
    stop: int
    weights: Float[np.ndarray, " num_frames"] | None = None
    temperature: float = 300.0


class Batch(NamedTuple):
    """Pairs of frames, padded to one number of residues.

    Attributes:
        source: Å, positions of the atoms in their slots, zero where there is none.
        target: Å, the frame a lag later.
        tokens: Residue types, 0 for padding.
        slot_mask: True for atoms.
        chains: Number of the chain of each residue.
        numbers: Place of each residue in its chain.
        lag: ps.
        temperature: K.
        before: Å, the frames that lead to the source, a lag apart, the first one first.
    """

    source: Float32[np.ndarray, "batch num_nodes num_slots 3"]
    target: Float32[np.ndarray, "batch num_nodes num_slots 3"]
    tokens: Int[np.ndarray, "batch num_nodes"]
    slot_mask: Bool[np.ndarray, "batch num_nodes num_slots"]
    chains: Int[np.ndarray, "batch num_nodes"]
    numbers: Int[np.ndarray, "batch num_nodes"]
    lag: Float32[np.ndarray, " batch"]
    temperature: Float32[np.ndarray, " batch"]
    before: Float32[np.ndarray, "batch num_before num_nodes num_slots 3"]


class Lags(NamedTuple):
    """Lags in ps: a few, drawn evenly, or two ends of a range, log-uniform in frames.

    Attributes:
        values: The lags, or smallest and largest.
        is_range: Whether `values` are ends.
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
) -> Float32[np.ndarray, "batch num_nodes num_slots 3"]:
    """Reads frames and puts their atoms into slots."""
    slots = trajectory.system.slot_atoms
    atoms = np.asarray(trajectory.positions[frames])
    placed = np.zeros((len(frames), num_nodes, NUM_SLOTS, 3), np.float32)
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
) -> Batch:
    """Returns the pairs of a training step; nothing but (seed, step) enters.

    Systems come equally often, segments of one system by their length or the sum of
    their weights, source frames by their weights.

    Args:
        segments: Of all systems.
        lags: What the lag is drawn from.
        batch_size: Number of pairs.
        num_nodes: Residues of the result, at least those of the largest system.
        seed: Of the whole run.
        step: From 0.
        num_before: Frames before the source that come with it.
    """
    rng = np.random.default_rng((seed, 2, step))
    chosen = rng.choice(len(segments), batch_size, p=_shares(segments))
    draws = rng.random((batch_size, 2))
    empty = np.zeros((batch_size, num_nodes, NUM_SLOTS, 3), np.float32)
    batch = Batch(
        source=empty,
        target=empty.copy(),
        tokens=np.zeros((batch_size, num_nodes), np.int32),
        slot_mask=np.zeros((batch_size, num_nodes, NUM_SLOTS), bool),
        chains=np.full((batch_size, num_nodes), -1, np.int32),
        numbers=np.zeros((batch_size, num_nodes), np.int32),
        lag=np.zeros(batch_size, np.float32),
        temperature=np.zeros(batch_size, np.float32),
        before=np.zeros((batch_size, num_before, *empty.shape[1:]), np.float32),
    )
    for index in np.unique(chosen):
        rows = np.flatnonzero(chosen == index)
        segment = segments[index]
        steps = draw_lags(lags, segment.trajectory, draws[rows, 0])
        sources = draw_sources(segment, steps, draws[rows, 1], num_before)
        system = segment.trajectory.system
        size = len(system.tokens)
        batch.source[rows] = pad_slots(segment.trajectory, sources, num_nodes)
        batch.target[rows] = pad_slots(segment.trajectory, sources + steps, num_nodes)
        for place in range(num_before):
            earlier = sources - (num_before - place) * steps
            batch.before[rows, place] = pad_slots(
                segment.trajectory, earlier, num_nodes
            )
        batch.tokens[rows, :size] = system.tokens
        batch.slot_mask[rows, :size] = system.slot_atoms >= 0
        batch.chains[rows, :size] = system.chains
        batch.numbers[rows, :size] = system.numbers
        batch.temperature[rows] = segment.temperature
        batch.lag[rows] = steps * segment.trajectory.spacing
    return batch


def hide_sources(batch: Batch, share: float, seed: int, step: int) -> Batch:
    """Hides some sources: of these pairs the end is a frame of the ensemble.

    Args:
        batch: Changed in place.
        share: How likely each is hidden.
        seed: Of the whole run.
        step: From 0.
    """
    hidden = np.random.default_rng((seed, 3, step)).random(len(batch.lag)) < share
    batch.source[hidden] = 0.0
    batch.lag[hidden] = ENSEMBLE_LAG
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


def _shares(segments: Sequence[Segment]) -> Float[np.ndarray, " num_segments"]:
    names = [segment.trajectory.system.tokens.tobytes() for segment in segments]
    lengths = np.array([
        s.stop - s.start if s.weights is None else s.weights.sum() for s in segments
    ], float)  # fmt: skip
    of_system = dict.fromkeys(names, 0.0)
    for name, length in zip(names, lengths, strict=True):
        of_system[name] += length
    shares = lengths / np.array([of_system[name] for name in names])
    return shares / len(of_system)


def blocks(
    trajectory: Trajectory, num_blocks: int, held_out: int, gap: int
) -> tuple[tuple[Segment, ...], Segment]:
    """Cuts one trajectory into blocks of time, and holds one of them out.

    Args:
        trajectory: The only one of its system.
        num_blocks: Number of equal blocks.
        held_out: Which block validates.
        gap: Frames left out on either side of it; more than the largest lag.

    Returns:
        Segments to train on, and the one held out.
    """
    count = len(trajectory.positions)
    start, stop = (count * held_out // num_blocks, count * (held_out + 1) // num_blocks)
    ends = [(0, start - gap), (stop + gap, count)]
    training = tuple(Segment(trajectory, a, b) for a, b in ends if b - a > gap)
    return training, Segment(trajectory, start, stop)
