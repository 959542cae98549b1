"""What sources share: files packed once into the store, and a line on what was skipped.

A file of a data set may hold many trajectories, or none that can be used. A tail of
frames that are no molecule is cut off, see `num_real`; a frame with a bond that cannot
be is left out, and what comes after it is a trajectory of its own.
"""

import contextlib
import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from absl import logging
from jaxtyping import Float, Float32

from common.errors import UsageError
from equijump.data import divide, files, molecules, store, whole
from equijump.data.frames import Trajectory, from_store
from equijump.data.topology import System

FLAG = "config.data.sources"
"""Setting whose entries name files, for messages."""

_VERSION = 1
"""Version of what sources pack; a change that alters it raises it."""


class Job(NamedTuple):
    """A file, or a part of one, and how it is packed.

    Attributes:
        path: file of the frames.
        needed: other files that decide what is packed.
        form: what else decides it, as settings.
        pack: function that packs it.
    """

    path: Path
    needed: tuple[Path, ...]
    form: str
    pack: Callable[[store.Writer], None]


def trajectories(kind: str, jobs: Iterable[Job]) -> Iterator[Trajectory]:
    """Yields the trajectories of all jobs, and tells in one line what was left out.

    Args:
        kind: name of the source.
        jobs: files and how they are packed.

    Raises:
        UsageError: All of it was left out.
    """
    skipped: Counter[str] = Counter()
    first: dict[str, str] = {}
    num_found = num_files = 0
    for job in jobs:
        shas = "".join(store.checksum_of(file) for file in (job.path, *job.needed))
        text = f"{kind} {shas} {job.form}"
        packed = hashlib.sha256(f"{_VERSION} {job.path.name} {text}".encode())
        entry = store.entry(packed.hexdigest(), job.pack)
        molecules.tell(str(job.path), entry.notes)
        num_files += 1
        num_found += len(entry.trajectories)
        for reason, count in entry.skipped.items():
            skipped[reason] += count
            first.setdefault(reason, str(job.path))
        for number, stored in enumerate(entry.trajectories):
            checksum = hashlib.sha256(f"{text} {number}".encode()).hexdigest()
            yield from_store(stored, checksum)
    tell(kind, num_found, num_files, skipped, first)


def tell(
    kind: str,
    num_found: int,
    num_files: int,
    skipped: Mapping[str, int],
    first: Mapping[str, str],
) -> None:
    """Logs in one line what a source has left out, if anything.

    Args:
        kind: name of the source.
        num_found: number of trajectories that are read.
        num_files: number of files that they are from.
        skipped: how many of what was left out, by the reason.
        first: first file of each reason.

    Raises:
        UsageError: Nothing is left.
    """
    reasons = [f"{n} {what} (as in {first[what]})" for what, n in skipped.items() if n]
    told = "; ".join(reasons) or "no file"
    if not num_found:
        raise UsageError(f"{FLAG}: expected trajectories of {kind}, left out: {told}")
    if reasons and _heard:
        _heard[-1].append(told)
    elif reasons:
        logging.info(
            "%s: %d trajectories of %d files; left out: %s",
            kind, num_found, num_files, told,
        )  # fmt: skip


_heard: list[list[str]] = []


@contextlib.contextmanager
def heard() -> Iterator[list[str]]:
    """Collects what sources leave out in a list, in the place of the log."""
    _heard.append([])
    try:
        yield _heard[-1]
    finally:
        _heard.pop()


def num_real(positions: Float[np.ndarray, "num_frames num_atoms 3"]) -> int:
    """Returns how many frames come before the first that is empty or far away.

    Files of public sets have tails of zeros, or of positions at 2e7 Å.

    >>> num_real(np.array([[[1.0, 0, 0]], [[0, 0, 0]], [[2.0, 0, 0]]]))
    1

    Args:
        positions: positions in Å.
    """
    largest = np.abs(positions).max(axis=(1, 2), initial=0.0)
    real = (largest > 0.0) & (largest < whole.ABSURD)  # False for what is no number.
    return len(real) if real.all() else int(np.argmin(real))


def first_system(
    topology: Any,
    positions: Float[np.ndarray, "num_frames num_file_atoms 3"],
    source: str,
    select: str,
    writer: store.Writer,
    box: Float[np.ndarray, "3 3"] | None = None,
) -> System:
    """Returns the system of frames in Å, whose notes go to the entry."""
    boxes = None if box is None else np.broadcast_to(box, (len(positions), 3, 3))
    system, notes = divide.survey(topology, positions, source, boxes, select)
    writer.notes += notes
    return system


def add(
    writer: store.Writer,
    source: str,
    system: System,
    parts: Iterable[Float[np.ndarray, "_ num_file_atoms 3"]],
    boxes: Float[np.ndarray, "3 3"] | None = None,
) -> list[divide.Stretch]:
    """Packs the kept atoms of frames up to where they are no molecule any more.

    A tail that is cut off, a frame with a bond that cannot be, or one that is alone,
    counts as skipped.

    Args:
        writer: what takes them.
        source: file and place in it, for the message of an error.
        system: system of all frames.
        parts: positions of all atoms of the file, in Å, in turn.
        boxes: edges of the periodic box of all frames, in Å.

    Returns:
        The stretches of frames that can be used, as they were packed.

    Raises:
        UsageError: No frame has bonds that can be.
    """
    bonds, intact = whole.bonds_of(system), np.zeros(0, bool)
    for part in parts:
        kept = np.ascontiguousarray(part[:, system.kept], np.float32)
        real = num_real(kept)
        box = None if boxes is None else np.broadcast_to(boxes, (real, 3, 3))
        made = whole.make_whole(kept[:real], box, bonds)
        intact = np.append(intact, whole.intact(made, bonds))
        if not intact.any():
            whole.check(source, made, bonds, system, 0, boxes is not None)
        writer.add(made)
        if real < len(part):
            writer.skipped["tails of frames that are no molecule"] += 1
            break
    return divide.divided(writer, [(0, len(intact))], intact)


def in_parts(
    positions: Float[np.ndarray, "num_frames ..."], num_numbers: int = 6_000_000
) -> Iterator[Float32[np.ndarray, "..."]]:
    """Yields stretches of an array, which may be a map of a file, in single precision.

    >>> [len(part) for part in in_parts(np.zeros((5, 2)), 4)]
    [2, 2, 1]
    """
    each = max(1, num_numbers // max(1, int(np.prod(positions.shape[1:]))))
    for start in range(0, len(positions), each):
        yield np.asarray(positions[start : start + each], np.float32)


def matching(pattern: str, suffixes: Sequence[str]) -> list[Path]:
    """Returns the files of an argument of a source; see `files.found`."""
    return files.found(FLAG, pattern, suffixes)
