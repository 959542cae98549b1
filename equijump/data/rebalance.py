"""Weights of source frames, by which rare regions come as often as common ones.

The frames of a system are clustered in the space of its slowest motions (TICA), and
each is weighted by one over the size of its cluster. The weight belongs to the *source*
alone: what is learnt, the law of the target given the source, stays the same, which it
would not if targets were weighted (dos Santos Costa et al. 2024, arXiv:2410.09667).
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from equijump.data.pairs import Segment
from equijump.data.residues import CA_SLOT

MOST_ATOMS = 40
"""Up to so many atoms all distances are features, beyond those between CA."""

NUM_COMPONENTS, MOST_FITTED = 4, 50_000


def rebalance(
    segments: Sequence[Segment], lag: float, num_clusters: int
) -> tuple[Segment, ...]:
    """Weighs sources so that all clusters of their system come equally often.

    Args:
        segments: To train on, of any number of systems.
        lag: ps, of the time-lagged correlations.
        num_clusters: Of each system.
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
    from deeptime.decomposition import TICA

    frames = [distances(segment) for segment in segments]
    steps = max(1, round(lag / segments[0].trajectory.spacing))
    tica = TICA(lagtime=steps, dim=NUM_COMPONENTS).fit_from_timeseries(frames)
    projected = [np.asarray(tica.transform(x), np.float64) for x in frames]
    stride = max(1, sum(map(len, frames)) // MOST_FITTED)
    fitted = np.concatenate(projected)[::stride]
    kmeans = KMeans(num_clusters, fixed_seed=1).fit_fetch(fitted)
    return [kmeans.transform(x) for x in projected]


def distances(segment: Segment) -> Float[np.ndarray, "num_frames num_pairs"]:
    """Returns distances in Å: of all atoms of a small system, of CA in a large one."""
    system = segment.trajectory.system
    atoms = np.arange(segment.trajectory.positions.shape[1])
    if len(atoms) > MOST_ATOMS:
        atoms = system.slot_atoms[:, CA_SLOT]
    positions = np.asarray(segment.trajectory.positions[segment.start : segment.stop])
    left, right = np.triu_indices(len(atoms), 1)
    apart = positions[:, atoms[left]] - positions[:, atoms[right]]
    return np.linalg.norm(apart, axis=-1)
