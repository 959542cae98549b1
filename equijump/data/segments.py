"""Stretches of trajectories, which belong to training or to validation.

Segments of one trajectory are apart by more than the largest lag, so that no frame of
validation is ever the end of a jump in training.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from equijump.data.crops import Crop
from equijump.data.frames import Trajectory


class Segment(NamedTuple):
    """Frames `start` to `stop` (not included) of a trajectory.

    Attributes:
        trajectory: trajectory that has the frames.
        start: first frame.
        stop: one past the last frame.
        weights: weight of each frame as a source; all the same where None.
        entry: entry of `config.data.sources` that the trajectory is of; 0 where entries
            have no weights.
        share: weight of that entry.
        crop: part of its residues that a pair has; all of them where None.
        longest: longest lag in frames, where its length allows longer ones.
    """

    trajectory: Trajectory
    start: int
    stop: int
    weights: Float[np.ndarray, " num_frames"] | None = None
    entry: int = 0
    share: float = 1.0
    crop: Crop | None = None
    longest: int | None = None


def num_residues(segment: Segment) -> int:
    """Returns the number of residues that a pair of a segment has, at most."""
    count = len(segment.trajectory.system.tokens)
    return count if segment.crop is None else min(count, segment.crop.size)


def blocks(
    segment: Segment, num_blocks: int, held_out: int, gap: int
) -> tuple[tuple[Segment, ...], Segment]:
    """Cuts one trajectory into blocks of time, and holds one of them out.

    Args:
        segment: whole trajectory.
        num_blocks: number of equal blocks.
        held_out: number of the block that validates.
        gap: frames left out on either side of it; more than the largest lag.

    Returns:
        Segments to train on, and the one held out.
    """
    count = len(segment.trajectory.positions)
    start, stop = (count * held_out // num_blocks, count * (held_out + 1) // num_blocks)
    ends = [(0, start - gap), (stop + gap, count)]
    cut = lambda a, b: segment._replace(start=a, stop=b)
    training = tuple(cut(a, b) for a, b in ends if b - a > gap)
    return training, cut(start, stop)
