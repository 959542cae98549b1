"""Lags of pairs: their law, what a trajectory serves of it, and the frames of a pair.

A trajectory at a constant spacing serves the multiple of it that is nearest to a lag;
one with times of its own serves pairs whose times are a lag apart. Both serve a lag if
they come as near to it as `TOLERANCE`, and the network is told the time between the two
frames as it is.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from equijump.data.frames import Trajectory
from equijump.data.segments import Segment

TOLERANCE = 0.25
"""Of a lag, by which a pair may differ from it."""

NUM_TRIES = 32
"""Sources that are tried before all that have a target are listed."""

_NUM_ASKED, _LEAST_SHARE = 500, 0.01
"""Sources that are asked for a target, and the share that must have one."""

_NUM_OF_RANGE = 16
"""Lags that stand for a range where times are uneven."""


class Lags(NamedTuple):
    """Lags in ps: a few, drawn evenly, or two ends of a range, log-uniform in frames.

    Attributes:
        values: lags in ps, more often given ones more often drawn, or the smallest and
            the largest.
        is_range: true if `values` are ends of a range.
    """

    values: tuple[float, ...]
    is_range: bool


class Pairs(NamedTuple):
    """Frames of pairs, by their numbers in the trajectory.

    Attributes:
        sources: frames to start from.
        targets: frames about a lag later.
        before: frames that lead to the sources, the first one first.
        lags: time from source to target, in ps.
    """

    sources: Int[np.ndarray, " batch"]
    targets: Int[np.ndarray, " batch"]
    before: Int[np.ndarray, "num_before batch"]
    lags: Float[np.ndarray, " batch"]


def distinct(lags: Lags) -> tuple[float, ...]:
    """Returns the lags of a law, rising, each once.

    >>> distinct(Lags((50.0, 10.0, 10.0), is_range=False))
    (10.0, 50.0)
    """
    return tuple(sorted(set(lags.values)))


def representative(law: Lags, segments: Sequence[Segment]) -> tuple[float, ...]:
    """Returns rising lags in ps at which what depends on the lag is measured.

    They are those that segments serve of a list, or about ten of a range.

    Args:
        law: law of the lags.
        segments: data, at least one of which serves each of the lags.
    """
    kinds = _kinds(segments)
    found = {value for s in kinds for value in served(law, s).values}
    if not law.is_range:
        return _nominal(sorted(found), distinct(law))
    low, high = max(min(found), law.values[0]), min(max(found), law.values[-1])
    spacings = {s.trajectory.spacing for s in kinds}
    fine = [spacing for spacing in spacings if spacing <= low * (1.0 + 1e-3)]
    spacing = max(fine) if fine else min(spacings)
    counts = np.unique(np.round(np.geomspace(low / spacing, high / spacing, 10)))
    lags = [spacing * count for count in counts.tolist() if count >= 1]
    has = lambda lag: any(served(Lags((lag,), False), s).values for s in kinds)
    return tuple(lag for lag in lags if has(lag))


def _kinds(segments: Sequence[Segment]) -> list[Segment]:
    """Returns one segment of each spacing and longest lag, and some of uneven times."""
    even = {
        (s.trajectory.spacing, longest_of(s)): s
        for s in segments
        if s.trajectory.times is None
    }
    uneven = [s for s in segments if s.trajectory.times is not None]
    return [*even.values(), *uneven[:: max(1, len(uneven) // 100)]]


def _nominal(found: Sequence[float], exact: Sequence[float]) -> tuple[float, ...]:
    """Returns lags, those of the law as it has them and not as sums of spacings."""
    nearest = [min(exact, key=lambda lag, v=value: abs(lag - v)) for value in found]
    return tuple(
        sorted({
            lag if abs(lag - value) <= 1e-6 * lag else value
            for lag, value in zip(nearest, found, strict=True)
        })
    )  # fmt: skip


def served(
    lags: Lags, segment: Segment, num_before: int = 0, num_blocks: int = 1
) -> Lags:
    """Returns what a segment has of a law, snapped to its frames; perhaps nothing.

    At least half of its frames are sources at each lag.

    Args:
        lags: law of the lags.
        segment: stretch of a trajectory.
        num_before: number of frames a lag apart that come before a source.
        num_blocks: number of parts of the segment of which each must serve.
    """
    longest = longest_of(segment, num_before, num_blocks)
    trajectory = segment.trajectory
    if trajectory.times is not None:
        return _served_by_time(lags, segment, num_before, longest)
    if lags.is_range:
        low, high = lags.values[0], lags.values[-1]
        first = max(1, int(np.ceil(low / trajectory.spacing - 1e-3)))
        last = min(int(high / trajectory.spacing + 1e-3), longest)
        counts = (first, last) if first <= last else ()
    else:
        nearest = ((lag, round(lag / trajectory.spacing)) for lag in lags.values)
        counts = [
            count
            for lag, count in nearest
            if 1 <= count <= longest
            and abs(count * trajectory.spacing - lag) <= TOLERANCE * lag * (1.0 + 1e-9)
        ]
    return Lags(tuple(count * trajectory.spacing for count in counts), lags.is_range)


def longest_of(segment: Segment, num_before: int = 0, num_blocks: int = 1) -> int:
    """Returns the longest lag in frames that leaves enough sources, 0 for none."""
    count = segment.stop - segment.start
    found = (count - 1) // ((1 + max(1, num_before)) * num_blocks)
    return found if segment.longest is None else min(found, segment.longest)


def _served_by_time(
    lags: Lags, segment: Segment, num_before: int, longest: int
) -> Lags:
    """Returns the lags that enough of the sources of an uneven segment have."""
    count = segment.stop - segment.start
    if longest < 1:
        return Lags((), is_range=False)
    times = segment.trajectory.times[segment.start : segment.stop]
    most = (times[-1] - times[0]) * longest / count
    values = lags.values
    if lags.is_range:
        values = tuple(np.geomspace(values[0], values[-1], _NUM_OF_RANGE).tolist())
    asked = np.arange(count)
    if count > _NUM_ASKED:
        asked = np.random.default_rng(0).integers(count, size=_NUM_ASKED)
    share = lambda lag: np.mean(partners(times, asked, lag, num_before)[1])
    kept = [lag for lag in values if lag <= most and share(lag) >= _LEAST_SHARE]
    return Lags(tuple(kept), is_range=False)


def refusal(
    lag: float, segment: Segment, num_before: int = 0, num_blocks: int = 1
) -> str:
    """Returns in one line why a segment does not serve a lag."""
    trajectory, count = segment.trajectory, segment.stop - segment.start
    frames = round(lag / trajectory.spacing)
    off = abs(frames * trajectory.spacing - lag)
    if trajectory.times is None and (frames < 1 or off > TOLERANCE * lag):
        return (
            f"config.data.lags: expected multiples of {trajectory.spacing:g} ps to "
            f"{TOLERANCE:.0%}, the spacing of {trajectory.name}, found {lag:g} ps"
        )
    parts = (1 + max(1, num_before)) * num_blocks
    needed = parts * max(1, frames)
    times = trajectory.times
    if times is not None:
        span = float(times[segment.stop - 1] - times[segment.start])
        if span <= parts * lag:
            return (
                f"{trajectory.name}: expected more than {parts * lag:g} ps for lags "
                f"up to {lag:g} ps, found {span:g} ps; give longer trajectories, or "
                "smaller --config.data.lags"
            )
    elif count <= needed:
        return (
            f"{trajectory.name}: expected more than {needed} frames for lags up to "
            f"{lag:g} ps, found {count}; give longer trajectories, or smaller "
            "--config.data.lags"
        )
    return (
        f"{trajectory.name}: expected frames that are {lag:g} ps apart to "
        f"{TOLERANCE:.0%}, found too few; give other --config.data.lags"
    )


def gap_of(lags: Lags, trajectory: Trajectory) -> int:
    """Returns a number of frames that takes longer than any lag that is served."""
    longest = max(lags.values)
    if trajectory.times is None:
        return round(longest / trajectory.spacing) + 1
    times = trajectory.times
    first = np.searchsorted(times, times - (1.0 + TOLERANCE) * longest)
    return int(np.max(np.arange(len(times)) - first)) + 1


def draw(
    lags: Lags,
    segment: Segment,
    draws: Float[np.ndarray, "batch 2"],
    tries: Float[np.ndarray, "batch num_tries"],
    num_before: int = 0,
) -> Pairs:
    """Maps uniform numbers to pairs of a segment, sources by their weights.

    Args:
        lags: lags that the segment serves.
        segment: stretch of a trajectory.
        draws: numbers that decide lag and source.
        tries: more of them, for sources without a target; unread at a constant spacing.
        num_before: number of frames a lag apart that come before a source.
    """
    if segment.trajectory.times is not None:
        return _draw_by_time(lags, segment, draws, tries, num_before)
    spacing = segment.trajectory.spacing
    steps = draw_lags(lags, spacing, draws[:, 0])
    sources = draw_sources(segment, steps, draws[:, 1], num_before)
    back = np.arange(num_before, 0, -1)[:, None]
    return Pairs(sources, sources + steps, sources - back * steps, steps * spacing)


def draw_lags(
    lags: Lags, spacing: float, draws: Float[np.ndarray, " batch"]
) -> Int[np.ndarray, " batch"]:
    """Maps uniform numbers to lags in frames, of lags that are served."""
    counts = np.array([round(lag / spacing) for lag in lags.values])
    if not lags.is_range:
        return counts[_places(draws, len(counts))]
    low, high = np.log(counts[0] - 0.5), np.log(counts[-1] + 0.5)
    drawn = np.round(np.exp(low + draws * (high - low))).astype(int)
    return np.clip(drawn, counts[0], counts[-1])


def _places(draws: Float[np.ndarray, " batch"], count: int) -> np.ndarray:
    return np.minimum((draws * count).astype(int), count - 1)


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


def partners(
    times: Float[np.ndarray, " num_frames"],
    sources: Int[np.ndarray, " batch"],
    lags: Float[np.ndarray, " batch"] | float,
    num_before: int = 0,
) -> tuple[Int[np.ndarray, "partners batch"], Bool[np.ndarray, " batch"]]:
    """Returns the frames nearest to a lag before and after, and whether they serve.

    >>> frames, serves = partners(np.array([0.0, 1.1, 2.0, 5.0]), np.arange(3), 1.0)
    >>> frames[0], serves
    (array([1, 2, 2]), array([ True,  True, False]))

    Args:
        times: time of each frame in ps, rising.
        sources: frames to start from.
        lags: lag of each, in ps.
        num_before: number of frames before the source; they come first.
    """
    multiples = np.append(np.arange(-num_before, 0), 1)[:, None]
    wanted = times[sources] + multiples * lags
    right = np.clip(np.searchsorted(times, wanted), 1, len(times) - 1)
    is_left = wanted - times[right - 1] < times[right] - wanted
    found = right - is_left
    off, slack = np.abs(times[found] - wanted), 1e-6 * np.asarray(lags)
    inside = (wanted >= times[0] - slack) & (wanted <= times[-1] + slack)
    return found, np.all(inside & (off <= TOLERANCE * np.asarray(lags)), axis=0)


def _draw_by_time(
    lags: Lags,
    segment: Segment,
    draws: Float[np.ndarray, "batch 2"],
    tries: Float[np.ndarray, "batch num_tries"],
    num_before: int,
) -> Pairs:
    """Draws sources until one has a target; after so many tries, of those that have."""
    times = segment.trajectory.times[segment.start : segment.stop]
    drawn = np.array(lags.values)[_places(draws[:, 0], len(lags.values))]
    sources = np.zeros(len(draws), int)
    waiting = np.arange(len(draws))
    ends = None if segment.weights is None else np.cumsum(segment.weights)
    for numbers in (draws[:, 1], *tries.T):
        found = _by_ends(ends, len(times), numbers[waiting])
        _, serves = partners(times, found, drawn[waiting], num_before)
        sources[waiting[serves]] = found[serves]
        waiting = waiting[~serves]
        if not len(waiting):
            break
    for row in waiting.tolist():
        everything = np.arange(len(times))
        serving = np.flatnonzero(partners(times, everything, drawn[row], num_before)[1])
        own = None if ends is None else np.cumsum(segment.weights[serving])
        place = _by_ends(own, len(serving), draws[row : row + 1, 1])
        sources[row] = serving[place[0]]
    found, _ = partners(times, sources, drawn, num_before)
    lag = times[found[-1]] - times[sources]
    start = segment.start
    return Pairs(start + sources, start + found[-1], start + found[:-1], lag)


def _by_ends(
    ends: Float[np.ndarray, " num_frames"] | None,
    count: int,
    draws: Float[np.ndarray, " batch"],
) -> Int[np.ndarray, " batch"]:
    """Maps uniform numbers to places among so many, evenly or by summed weights."""
    if ends is None:
        return _places(draws, count)
    found = np.searchsorted(ends, draws * ends[-1], side="right")
    return np.minimum(found, count - 1)
