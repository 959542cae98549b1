"""Finds and reads the trajectories to compare, and brings them to one system and time.

Atoms are put in the order of slots, so that files may list them in any order. Positions
are in Å, times in ps.
"""

import contextlib
import math
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float32

from common.errors import UsageError
from equijump import ends
from equijump.data import files, frames
from equijump.data.packed import Lazy, view
from equijump.data.residues import RESIDUES
from equijump.data.sources.trajectories import PACKAGED
from equijump.data.topology import System, difference, slot_order


class Replicas(NamedTuple):
    """Trajectories of one system at one spacing.

    Attributes:
        names: names of the files.
        system: system with kept atoms numbered in the order of slots.
        positions: positions of each trajectory, in Å; read at each access.
        spacing: time between frames, in ps.
    """

    names: tuple[str, ...]
    system: System
    positions: Sequence[Float32[np.ndarray, "_ num_atoms 3"]]
    spacing: float


def find_files(flag: str, patterns: Sequence[str]) -> list[Path]:
    """Returns the files of several patterns, sorted within each.

    Raises:
        UsageError: A pattern finds none.
    """
    found = []
    for pattern in patterns:
        matching = files.matching(flag, pattern)
        found += [path for path in matching if path not in found]
    return found


def packaged_reference(system: System) -> list[Path]:
    """Returns the packaged trajectories of the same system; none of most systems."""
    names = [RESIDUES[token - 1].name for token in system.tokens]
    if names != ["ACE", "ALA", "NME"]:
        return []
    return sorted(PACKAGED.glob("ala2_300K_*.xtc"))


def read(
    flag: str,
    paths: Sequence[Path],
    topology: str | None,
    spacing: float,
    finite: bool,
    select: str = "",
) -> Replicas:
    """Reads trajectories of one system.

    Args:
        flag: flag that has the files, for the messages of errors.
        paths: one file or more.
        topology: topology of all of them; by `files.find_topology` where None.
        spacing: spacing in ps, for files without usable times; 0 reads it.
        finite: as of `equijump.data.frames.read_trajectories`.
        select: as of `equijump.data.frames.read_trajectories`.

    Raises:
        UsageError: A file cannot be read, or systems or spacings differ.
    """
    read_all = []
    prefix = "--" if flag == "--trajectory" else f"{flag}_"
    for path in paths:
        of = Path(topology or files.find_topology(f"{prefix}topology", path))
        read_all += frames.read_trajectories(
            [path], of, spacing, finite, True, select, f"{prefix}spacing"
        )
    first = read_all[0].system
    step = read_all[0].spacing
    for trajectory in read_all:
        check_same(first, trajectory.system, flag, trajectory.name)
        if abs(trajectory.spacing - step) > 1e-3 * step:
            raise UsageError(
                f"{flag}: expected one spacing, found {step:g} ps in "
                f"{read_all[0].name} and {trajectory.spacing:g} ps in "
                f"{trajectory.name}"
            )
    return Replicas(
        names=tuple(trajectory.name for trajectory in read_all),
        system=first,
        positions=Lazy(view, [t.positions for t in read_all]),
        spacing=float(_exact(step)),
    )


def read_native(path: Path, system: System) -> Float[np.ndarray, "num_atoms 3"]:
    """Returns the first frame of a file in Å, atoms in the order of slots.

    Where the system has caps that the file lacks, they are put on.

    Raises:
        UsageError: It cannot be read or is another system.
    """
    if not path.is_file():
        raise UsageError(f"--native: expected a file with positions, found no {path}")
    system_of, starts = frames.read_structures(path, None, 1)
    if difference(system, system_of):
        with contextlib.suppress(UsageError):  # Which caps would not mend.
            capped = ends.add_caps(system_of, starts, str(path))
            if not difference(system, capped[0]):
                system_of, starts = capped
    check_same(system, system_of, "--native", path.name)
    return starts[0, slot_order(system_of)].astype(np.float64)


def describe(system: System) -> str:
    """Names a system by its residues, of which a long one shows the ends."""
    names = [RESIDUES[token - 1].name for token in system.tokens]
    if len(names) > 8:
        names = [*names[:3], "...", *names[-3:]]
    return f"{'-'.join(names)} ({len(system.kept)} heavy atoms)"


def check_same(expected: System, found: System, flag: str, name: str) -> None:
    """Raises `UsageError` unless residues and bonds of two systems are the same."""
    other = difference(expected, found)
    if other:
        raise UsageError(
            f"{flag}: expected {describe(expected)}, found {describe(found)} in {name}"
            f"{other}"
        )


def _exact(spacing: float) -> Fraction:
    """Rounds to femtoseconds, since formats keep times in single precision."""
    return Fraction(round(1000 * spacing), 1000)


def common_spacing(first: float, second: float) -> float:
    """Returns the smallest common multiple of two spacings in ps, to the fs."""
    fractions = _exact(first), _exact(second)
    denominator = math.lcm(*(f.denominator for f in fractions))
    return math.lcm(*(int(f * denominator) for f in fractions)) / denominator
