"""Weights of source frames, by which rare regions come as often as common ones.

The frames of a system are clustered in the space of its slowest motions (TICA), and
each is weighted by one over the size of its cluster. The weight belongs to the *source*
alone: what is learnt, the law of the target given the source, stays the same, which it
would not if targets were weighted (dos Santos Costa et al. 2024, arXiv:2410.09667).
"""

from collections.abc import Sequence
from functools import partial

import numpy as np
from jaxtyping import Int

from equijump.data import features
from equijump.data.packed import view
from equijump.data.residues import CA_SLOT
from equijump.data.segments import Segment
from equijump.data.topology import reordered

MOST_ATOMS = 40
"""Up to so many atoms all distances are features, beyond those between CA."""

NUM_COMPONENTS, MOST_FITTED = 4, 50_000


def rebalance(
    segments: Sequence[Segment], lag: float, num_clusters: int
) -> tuple[Segment, ...]:
    """Weighs sources so that all clusters of their system come equally often.

    Args:
        segments: segments to train on, of any number of systems.
        lag: lag of the time-lagged correlations, in ps.
        num_clusters: number of clusters of each system.
    """
    systems = [s.trajectory.system.tokens.tobytes() for s in segments]
    weighted = list(segments)
    for system in dict.fromkeys(systems):
        members = [i for i, name in enumerate(systems) if name == system]
        labels = cluster([segments[i] for i in members], lag, num_clusters)
        sizes = np.bincount(np.concatenate(labels), minlength=num_clusters)
        for i, label in zip(members, labels, strict=True):
            weighted[i] = segments[i]._replace(weights=1.0 / sizes[label])
    return tuple(weighted)


def cluster(
    segments: Sequence[Segment], lag: float, num_clusters: int
) -> list[Int[np.ndarray, " num_frames"]]:
    """Returns the cluster of each frame of each segment of one system."""
    from deeptime.clustering import KMeans

    frames = [_Ordered(s, segments[0]) for s in segments]
    distances = partial(features.distances, pairs=distance_pairs(segments[0]))
    steps = [max(1, round(lag / s.trajectory.spacing)) for s in segments]
    tica = features.fit_tica(frames, distances, steps, NUM_COMPONENTS)
    projected = [np.float64(features.project(tica, x, distances)) for x in frames]
    stride = max(1, sum(map(len, frames)) // MOST_FITTED)
    fitted = np.concatenate(projected)[::stride]
    kmeans = KMeans(num_clusters, fixed_seed=1).fit_fetch(fitted)
    return [kmeans.transform(x) for x in projected]


class _Ordered:
    """Frames of a segment with their atoms in the order of another one's file."""

    def __init__(self, segment: Segment, target: Segment) -> None:
        trajectory = segment.trajectory
        self._frames = view(trajectory.positions, segment.start, segment.stop)
        self._systems = trajectory.system, target.trajectory.system

    def __len__(self) -> int:
        return len(self._frames)

    def __getitem__(self, index: slice) -> np.ndarray:
        return reordered(self._frames[index], *self._systems)


def distance_pairs(segment: Segment) -> Int[np.ndarray, "num_pairs 2"]:
    """Returns pairs of atoms: of all in a small system, of CA in a large one."""
    atoms = np.arange(segment.trajectory.positions.shape[1])
    if len(atoms) > MOST_ATOMS:
        atoms = segment.trajectory.system.slot_atoms[:, CA_SLOT]
    return atoms[features.choose_pairs(len(atoms))]
