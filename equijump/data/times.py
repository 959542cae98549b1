"""Times of frames in ps, read from a file or given by the user."""

import itertools
from pathlib import Path

import numpy as np
from jaxtyping import Float, Float64

from common.errors import UsageError
from equijump.data.files import WITHOUT_TIMES, suffix_of

FLAG = "--config.data.spacing"


def find_spacing(
    path: Path,
    times: Float[np.ndarray, " num_frames"],
    given: float = 0.0,
    flag: str = FLAG,
) -> float:
    """Returns the time between frames in ps, given or read.

    A given one is for files whose times are missing or of no use. Formats keep times
    in single precision, so that a time may be away from where it is expected by 1 % of
    a step, or by two units in its last place.

    >>> times = np.float32([3.0, 3.1, 3.2, 3.3]).astype(float)
    >>> round(find_spacing(Path("run.xtc"), times), 6)
    0.1

    Args:
        path: file, for the messages of errors.
        times: time of each frame in ps.
        given: time between frames in ps where the user gave it, else 0.
        flag: flag by which it is given.

    Raises:
        UsageError: The format keeps no times, or they are not evenly spaced, or the
            times in the file are others than the given ones.
    """
    if suffix_of(path) in WITHOUT_TIMES:
        if given > 0.0:
            return given
        raise UsageError(
            f"{path}: expected the time between frames, which {path.suffix} files do "
            f"not keep: give it in ps by {flag}"
        )
    step, uneven = _measure(times)
    usual = float(np.median(np.diff(times)))
    if given > 0.0:
        found = usual if uneven else step
        if found > 0.0 and abs(found - given) > 0.01 * given:
            raise UsageError(
                f"{path}: expected frames {given:g} ps apart, as {flag} says, found "
                f"{found:g} ps by the times in the file; leave {flag} out, and write "
                "files without times as XTC with theirs"
            )
        return given
    if uneven:
        raise UsageError(f"{path}: {_describe(times, usual)}; {_remedy(flag, usual)}")
    return step


def _measure(times: Float[np.ndarray, " num_frames"]) -> tuple[float, bool]:
    """Returns the mean time between frames, and whether it varies or does not rise."""
    step = float(times[-1] - times[0]) / (len(times) - 1)
    last_place = np.spacing(np.abs(times).astype(np.float32)).astype(np.float64)
    slack = np.maximum(0.01 * step, 2.0 * last_place)
    early = np.abs(times - (times[0] + step * np.arange(len(times)))) > slack
    uneven = np.abs(np.diff(times) - step) > slack[1:]
    return step, not step > 0.0 or bool(early.any() or uneven.any())


def _describe(times: Float[np.ndarray, " num_frames"], usual: float) -> str:
    if not np.any(np.diff(times)):
        return f"expected frames at one spacing, found the time {times[0]:g} ps in all"
    steps = np.diff(times)
    if (steps < 0.0).all():
        return (
            "expected frames at one spacing, in times that rise, found them to fall by "
            f"{-usual:g} ps a frame"
        )
    where = int(np.argmax(np.abs(steps - usual)))
    return (
        f"expected frames at one spacing, found {steps[where]:g} ps after frame "
        f"{where} and {usual:g} ps elsewhere"
    )


def _remedy(flag: str, usual: float) -> str:
    example = f"={usual:g}" if usual > 0.0 else ""
    return (
        f"if frames follow each other evenly all the same, give their spacing in ps by "
        f"{flag}{example}; if not, divide the file there"
    )


def stretches(
    times: Float[np.ndarray, " num_frames"],
) -> tuple[float, list[tuple[int, int]]]:
    """Returns the usual gap of a clock that may restart, and where it runs evenly.

    >>> stretches(np.array([0.0, 10.0, 20.0, 0.0, 10.0]))
    (10.0, [(0, 3), (3, 5)])

    Args:
        times: time of each frame in ps.

    Returns:
        The gap that is met most often, in ps, 0 where no time is later than the one
        before; first frame and one past the last of each stretch.
    """
    gaps = np.diff(times)
    rising = gaps[gaps > 0.0]
    if not len(rising):
        return 0.0, []
    kinds = np.round(100.0 * np.log(rising))  # Alike within a hundredth.
    values, counts = np.unique(kinds, return_counts=True)
    usual = float(np.median(rising[kinds == values[np.argmax(counts)]]))
    last_place = np.spacing(np.abs(times[1:]).astype(np.float32)).astype(np.float64)
    breaks = np.abs(gaps - usual) > np.maximum(0.01 * usual, 2.0 * last_place)
    ends = [0, *(np.flatnonzero(breaks) + 1).tolist(), len(times)]
    return usual, list(itertools.pairwise(ends))


def even_spacing(times: Float64[np.ndarray, " num_frames"]) -> tuple[float, bool]:
    """Returns the median gap of rising times in ps, and whether all gaps are that.

    >>> even_spacing(np.array([0.0, 1.0, 2.0, 4.0]))
    (1.0, False)
    """
    gaps = np.diff(times)
    usual = float(np.median(gaps))
    return usual, bool(np.all(np.abs(gaps - usual) <= 1e-3 * usual))
