"""How often pairs come: by the weights of sources, evenly over systems, in buckets.

Entries of `config.data.sources` come by their weights, the systems of an entry equally
often, segments of one system by their length. A batch is of one bucket: systems of
about one size. A step draws its bucket by the sum of its shares, and segments by their
shares in it, so that a pair comes as often as without buckets.
"""

from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from equijump.data.segments import Segment, num_residues

MOST_BUCKETS = 4
"""Sizes to which batches are padded, at most; a program is compiled for each."""


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


def shares_of(
    segments: Sequence[Segment],
    serving: Bool[np.ndarray, " num_segments"] | None = None,
) -> Float[np.ndarray, " num_segments"]:
    """Returns the probability that a pair is of each segment.

    Args:
        segments: stretches of trajectories of all systems.
        serving: false for segments that come never; all serve where None.
    """
    lengths = np.array([
        s.stop - s.start if s.weights is None else s.weights.sum() for s in segments
    ], float)  # fmt: skip
    if serving is not None:
        lengths = np.where(serving, lengths, 0.0)
    tokens = lambda segment: segment.trajectory.system.tokens.tobytes()
    systems = _numbered([(s.entry, tokens(s)) for s in segments])
    entries = _numbered([s.entry for s in segments])
    totals = np.bincount(systems, lengths)
    firsts = np.unique(systems, return_index=True)[1]  # A segment of each system.
    counts = np.bincount(entries[firsts], totals > 0.0)  # Systems of each entry.
    weights = np.zeros(len(counts))
    weights[entries] = [segment.share for segment in segments]
    whole = weights[counts > 0.0].sum()
    of_system = np.where(totals > 0.0, totals, 1.0)[systems]
    return lengths / of_system / (counts * whole / weights)[entries].clip(1e-300)


def _numbered(names: Sequence[Hashable]) -> Int[np.ndarray, " num_names"]:
    """Returns the number of each name, in the order in which they come first."""
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(name, len(numbers)) for name in names], int)


def make_buckets(
    segments: Sequence[Segment],
    shares: Float[np.ndarray, " num_segments"] | None = None,
) -> tuple[Bucket, ...]:
    """Sorts segments into buckets whose systems differ by less than a factor of two.

    There are at most `MOST_BUCKETS`; the last one has all that is smaller. A pair comes
    as often as without them: probability and shares multiply to the shares of all.

    Args:
        segments: stretches of trajectories of all systems.
        shares: probability of each; those of `shares_of` where None.
    """
    every = shares_of(segments) if shares is None else shares
    sizes = sizes_of(segments)
    bounds: list[int] = []
    for size in np.unique(sizes[every > 0.0])[::-1].tolist():
        if not bounds or (2 * size <= bounds[-1] and len(bounds) < MOST_BUCKETS):
            bounds.append(size)
    if len(bounds) == 1:
        return (Bucket(bounds[0], 1.0, every),)
    found = []
    for size, next_size in zip(bounds, [*bounds[1:], 0], strict=True):
        own = np.where((sizes <= size) & (sizes > next_size), every, 0.0)
        total = float(own.sum())
        found.append(Bucket(size, total, own / total))
    return tuple(found)


def bucket_at(buckets: Sequence[Bucket], seed: int, step: int) -> Bucket:
    """Returns the bucket of a training step, drawn by its probability."""
    if len(buckets) == 1:
        return buckets[0]
    ends = np.cumsum([bucket.probability for bucket in buckets])
    drawn = np.random.default_rng((seed, 4, step)).random() * ends[-1]
    return buckets[int(np.searchsorted(ends, drawn, side="right"))]


def sizes_of(segments: Sequence[Segment]) -> Int[np.ndarray, " num_segments"]:
    """Returns the number of residues of a pair of each segment, at most."""
    return np.array([num_residues(segment) for segment in segments], int)
