"""Trajectories divided where frames are left out, each part one of its own."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float64

from common.errors import UsageError
from equijump.data import molecules, store
from equijump.data.times import even_spacing
from equijump.data.topology import System

BROKEN = "frames with a bond that cannot be"
"""Reason by which such frames are counted as left out."""

Stretch = tuple[int, int]
"""First frame, and one past the last."""


def survey(
    topology: Any,
    positions: Float[np.ndarray, "num_frames num_file_atoms 3"],
    source: str,
    boxes: Float[np.ndarray, "num_frames 3 3"] | None = None,
    select: str = "",
) -> tuple[System, list[str]]:
    """Returns what `molecules.survey` does of the first frame that is a molecule.

    The first, the middle and the last frame are tried.

    Args:
        topology: topology of MDTraj.
        positions: positions of frames, in Å.
        source: file name, for the message of an error.
        boxes: edges of the periodic boxes as rows, in Å.
        select: atoms that are read, in MDTraj's selection language; all where empty.

    Raises:
        UsageError: None of them is a molecule; it tells what is wrong with the first.
    """
    count, refused = len(positions), None
    for place in dict.fromkeys((0, count // 2, count - 1)):
        box = None if boxes is None else boxes[place].astype(np.float64)
        frame = positions[place].astype(np.float64)
        try:
            return molecules.survey(topology, frame, source, box, select)
        except UsageError as error:
            refused = refused or error
    raise refused


def divided(
    writer: store.Writer,
    found: Sequence[Stretch],
    intact: Bool[np.ndarray, " num_frames"],
) -> list[Stretch]:
    """Returns stretches of two frames or more between frames that are left out.

    Args:
        writer: what counts those that are left out.
        found: stretches of frames.
        intact: false for frames that are left out.
    """
    parts: list[Stretch] = []
    for start, stop in found:
        broken = (start + np.flatnonzero(~intact[start:stop])).tolist()
        ends = zip([start, *(b + 1 for b in broken)], [*broken, stop], strict=True)
        parts += [(first, last) for first, last in ends if last > first]
    writer.skipped[BROKEN] += int((~intact).sum())
    writer.skipped["trajectories of one frame"] += sum(b - a == 1 for a, b in parts)
    return [(first, last) for first, last in parts if last - first > 1]


def pieces(
    name: str,
    spacing: float,
    found: Sequence[Stretch],
    known: Mapping[str, float],
    times: Float64[np.ndarray, " num_frames"] | None = None,
) -> list[store.Piece]:
    """Returns a trajectory for each stretch, numbered where there are several.

    >>> [piece.name for piece in pieces("A", 10.0, [(0, 3), (4, 9)], {})]
    ['A_part0', 'A_part1']

    Args:
        name: name of the whole.
        spacing: time between frames in ps, where there are no times.
        found: stretches of frames.
        known: numbers that hold for all frames.
        times: times of all frames in ps.
    """
    made = []
    for place, (start, stop) in enumerate(found):
        own = None if times is None else times[start:stop]
        if own is not None:
            spacing, is_even = even_spacing(own)
            own = None if is_even else own
        part = name if len(found) == 1 else f"{name}_part{place}"
        made.append(store.Piece(part, spacing, start, stop, own, known))
    return made
