"""Frames of trajectories in files, packed once into the store.

What is packed are the kept heavy atoms in Å and float32, molecules made whole; they are
found by the SHA-256 of trajectory and topology, so that a file whose contents change
is packed anew.
"""

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from absl import logging
from jaxtyping import Bool, Float, Float32, Float64

from common.errors import UsageError
from equijump.data import divide, files, images, molecules, store, whole
from equijump.data.files import ANGSTROM_PER_NM as ANGSTROM_PER_NM
from equijump.data.packed import PackedFrames
from equijump.data.times import FLAG, find_spacing
from equijump.data.topology import System, in_slot_order

LARGE = 100_000_000
"""Bytes of a trajectory from which packing is announced, since it takes a while."""

_VERSION = 3
"""Version of the packed form; a change that alters it raises it."""

_MOST_TRIED = 100
"""Frames among which one is looked for that is a molecule."""

_CHECKSUM_VERSION = 1
"""Version in checksums, by which runs know their data; it stays."""


Complete = Callable[[Any, Sequence[files.Frames], str, str], tuple[Any, Any, str]]
"""Function of topology, frames, source and selection that returns all but the third."""


class Trajectory(NamedTuple):
    """One trajectory, at a constant spacing or at times of its own.

    Attributes:
        name: name of its file.
        system: constants of the trajectory.
        positions: positions of the kept atoms, in Å; read when they are indexed.
        spacing: time between frames, in ps.
        checksum: SHA-256 of trajectory and topology.
        conditions: numbers that hold for all frames, by names of
            `common.nn.conditions.CONDITIONS`.
        times: time of each frame in ps, rising, where the spacing is not constant;
            `spacing` is then the median. None where it is.
    """

    name: str
    system: System
    positions: PackedFrames | Float[np.ndarray, "num_frames num_atoms 3"]
    spacing: float
    checksum: str
    conditions: Mapping[str, float] = MappingProxyType({})
    times: Float64[np.ndarray, " num_frames"] | None = None


class Request(NamedTuple):
    """How a trajectory is read.

    Attributes:
        path: trajectory.
        topology: file of its topology.
        spacing: time between frames in ps, for files without times; 0 reads it.
        finite: as of `read_trajectories`.
        in_slots: true for atoms in the order of slots.
        select: atoms that are read, in MDTraj's selection language.
        flag: flag that has the spacing.
        divides: true if a frame that is no molecule divides the trajectory.
    """

    path: Path
    topology: Path
    spacing: float
    finite: bool
    in_slots: bool
    select: str
    flag: str
    divides: bool = False


def read_trajectories(
    paths: Sequence[str | os.PathLike[str]],
    topology: str | os.PathLike[str],
    spacing: float = 0.0,
    finite: bool = True,
    in_slots: bool = False,
    select: str = "",
    flag: str = FLAG,
    divides: bool = False,
) -> tuple[Trajectory, ...]:
    """Reads trajectories of one topology, from the user's cache if seen before.

    Args:
        paths: files that MDTraj reads: XTC, DCD, H5, NetCDF, multi-model PDB.
        topology: file that MDTraj reads a topology from, of the same atoms.
        spacing: time between frames in ps, for files without usable times; 0 reads
            them from the file.
        finite: true if a position that is not finite, or a bond that cannot be, is an
            error. Where it is not, bonds are read from the positions of the topology's
            file, since the first frame may be one of the broken ones.
        in_slots: true for atoms in the order of slots, not in that of the file.
        select: atoms that are read, in MDTraj's selection language; all where empty.
        flag: flag that has the spacing, for the messages of errors.
        divides: true if a frame that is no molecule is left out, and divides the
            trajectory; else it is an error.

    Raises:
        UsageError: A file is missing, damaged or does not fit the topology, has no
            usable times, or a frame that is no molecule.
    """
    how = spacing, finite, in_slots, select, flag, divides
    requests = (Request(Path(path), Path(topology), *how) for path in paths)
    return tuple(one for request in requests for one in _read_file(request))


def read_structures(
    path: str | os.PathLike[str],
    topology: str | os.PathLike[str] | None,
    at_most: int,
    select: str = "",
    complete: Complete | None = None,
) -> tuple[System, Float32[np.ndarray, "num_frames num_atoms 3"]]:
    """Reads the kept atoms of the first frames of a file, in Å.

    Args:
        path: file of a structure or a trajectory.
        topology: topology of a trajectory whose file has none; by
            `files.find_topology` where None.
        at_most: largest number of frames that are read.
        select: as of `read_trajectories`.
        complete: function that builds what residues lack, see
            `equijump.repair.complete`; None refuses them.

    Raises:
        UsageError: The file cannot be read, or a frame is no molecule.
    """
    path = Path(path)
    if not path.is_file():
        found = "a folder at" if path.is_dir() else "no"
        raise UsageError(f"expected a file of a structure, found {found} {path}")
    if topology is None or files.has_topology(path):
        described = files.find_topology("--topology", path)
    else:
        described = Path(topology)
    if not described.is_file():
        raise UsageError(f"expected a topology, found no {described}")
    files.prepare(path)
    loaded = files.load_topology(described)
    molecules.tell(str(described), files.notes_of(described))
    found = list(files.iterate(path, loaded, at_most))
    if not found:
        raise UsageError(f"{path}: expected a frame, found none")
    if complete is not None:
        loaded, found, select = complete(loaded, found, str(path), select)
    return _structures(loaded, found, str(path), at_most, select)


def from_mdtraj(
    trajectory: Any,
    source: str,
    at_most: int,
    select: str = "",
    complete: Complete | None = None,
) -> tuple[System, Float32[np.ndarray, "num_frames num_atoms 3"]]:
    """Returns the kept atoms of the first frames of a trajectory of MDTraj, in Å.

    `complete` is as for `read_structures`.
    """
    box = trajectory.unitcell_vectors
    part = files.Frames(
        trajectory.xyz[:at_most].astype(np.float32) * np.float32(ANGSTROM_PER_NM),
        np.zeros(min(at_most, trajectory.n_frames)),
        None if box is None else box[:at_most] * np.float32(ANGSTROM_PER_NM),
    )
    topology, found = trajectory.topology, [part]
    if complete is not None:
        topology, found, select = complete(topology, found, source, select)
    return _structures(topology, found, source, at_most, select)


def _structures(
    topology: Any,
    parts: Sequence[files.Frames],
    source: str,
    at_most: int,
    select: str,
) -> tuple[System, Float32[np.ndarray, "num_frames num_atoms 3"]]:
    """Returns system and frames of a file, each made whole and checked."""
    first, box = _first_of(parts[0])
    finite = np.isfinite(parts[0].positions[:at_most]).all(axis=(1, 2))
    if not finite.all():
        raise UsageError(
            f"{source}: expected finite positions, found others in frame "
            f"{int(np.argmin(finite))}, counted from 0; leave this frame out"
        )
    system = molecules.read_system(topology, first, source, box, select)
    bonds, made = whole.bonds_of(system), []
    labels = images.molecules_of(system.bonds, len(system.kept))
    for part in parts:
        before = sum(map(len, made))
        kept = _make_whole(part, system, bonds)
        made.append(images.in_contact(kept, part.boxes, labels)[: at_most - before])
        has_box = part.boxes is not None
        whole.check(source, made[-1], bonds, system, before, has_box)
    return system, np.concatenate(made)


def _first_of(part: files.Frames) -> tuple[Float64[np.ndarray, "_ 3"], Any]:
    """Returns the first frame and its box, None where there is none."""
    box = None if part.boxes is None else part.boxes[0].astype(np.float64)
    return part.positions[0].astype(np.float64), box


def _make_whole(
    part: files.Frames, system: System, bonds: whole.Bonds
) -> Float32[np.ndarray, "num_frames num_atoms 3"]:
    return whole.make_whole(part.positions[:, system.kept], part.boxes, bonds)


def _read_file(request: Request) -> list[Trajectory]:
    """Reads the trajectory of a file, or those that it is divided into."""
    path = request.path
    for file in (path, request.topology):
        if not file.is_file():
            raise UsageError(f"expected a trajectory and its topology, found no {file}")
    checksum = _checksum(request)
    key = f"{_VERSION}-{checksum}{'-divided' if request.divides else ''}"
    entry = store.entry(key, partial(_pack, request))
    molecules.tell(str(path), entry.notes)
    if len(entry.trajectories) == 1:
        return [from_store(entry.trajectories[0], checksum)._replace(name=path.name)]
    return [
        from_store(stored, hashlib.sha256(f"{checksum} {number}".encode()).hexdigest())
        for number, stored in enumerate(entry.trajectories)
    ]


def from_store(stored: store.Stored, checksum: str) -> Trajectory:
    """Returns a trajectory as the store has it."""
    return Trajectory(
        stored.name,
        stored.system,
        stored.positions,
        stored.spacing,
        checksum,
        stored.conditions,
        stored.times,
    )


def _checksum(request: Request) -> str:
    """Returns the SHA-256 of trajectory, topology and what is read of them."""
    form = f"{_CHECKSUM_VERSION} {request.spacing}{'' if request.finite else ' any'}"
    form = f"{form} slots" if request.in_slots else form
    form = f"{form} {request.select}" if request.select else form
    key = hashlib.sha256(form.encode())
    for file in (request.path, request.topology):
        key.update(bytes.fromhex(store.checksum_of(file)))
    return key.hexdigest()


def _pack(request: Request, writer: store.Writer) -> None:
    """Packs a trajectory at one spacing."""
    path = request.path
    if path.stat().st_size > LARGE:
        logging.info("packing %s", path)
    system, times, intact = write_frames(request, writer)
    if len(times) < 2:
        raise UsageError(
            f"{path}: expected two frames or more, found {len(times)}; give a "
            "trajectory: a structure is for --start of sample, --native of evaluate"
        )
    step = find_spacing(path, times, request.spacing, request.flag)
    found = divide.divided(writer, [(0, len(times))], intact)
    if not found:
        raise UsageError(
            f"{path}: expected two frames or more in turn, found none but "
            f"{divide.BROKEN} between them"
        )
    writer.notes += [f"left out: {n} {what}" for what, n in (+writer.skipped).items()]
    writer.end(system, divide.pieces(path.stem, step, found, {}))


def write_frames(
    request: Request, writer: store.Writer
) -> tuple[System, Float64[np.ndarray, " num_frames"], Bool[np.ndarray, " num_frames"]]:
    """Writes positions as they are read, each frame checked.

    Returns:
        The system; the times of the frames as the file has them; and false for frames
        that are no molecule, where these divide a trajectory.
    """
    files.prepare(request.path)
    topology = files.load_topology(request.topology)
    system, notes = _system_of(request, topology)
    writer.notes += notes
    system = in_slot_order(system) if request.in_slots else system
    times, intact = np.zeros(0), np.zeros(0, bool)
    for part, found, usable in _checked_frames(request, topology, system):
        writer.add(part)
        times, intact = np.append(times, found), np.append(intact, usable)
    return system, times, intact


def _checked_frames(
    request: Request, topology: Any, system: System
) -> Iterator[
    tuple[
        Float32[np.ndarray, "num_frames num_atoms 3"],
        Float64[np.ndarray, " num_frames"],
        Bool[np.ndarray, " num_frames"],
    ]
]:
    """Yields kept atoms of whole molecules, times of their frames, which are usable."""
    bonds, source = whole.bonds_of(system), str(request.path)
    labels = images.molecules_of(system.bonds, len(system.kept))
    before, last, is_any = 0, None, False
    for part in files.iterate(request.path, topology):
        kept = _make_whole(part, system, bonds)
        kept, last = images.together(kept, part.boxes, labels, last)
        usable = np.ones(len(kept), bool)
        if request.divides:
            usable = whole.intact(kept, bonds)
            is_any |= bool(usable.any())
        if request.finite and not (request.divides and is_any):
            has_box = part.boxes is not None
            whole.check(source, kept, bonds, system, before, has_box)
        elif not request.finite and before == 0:
            whole.check_unit(source, kept[0], bonds)
        yield kept, part.times, usable
        before += len(kept)


def _system_of(request: Request, topology: Any) -> tuple[System, list[str]]:
    """Reads residues, and bonds from the first frame or from the topology's own."""
    path, source = request.path, request.path
    if not request.finite and files.has_positions(request.topology):
        path = source = request.topology
    part = files.first_frames(path, topology, _MOST_TRIED if request.divides else 1)
    system, notes = divide.survey(
        topology, part.positions, str(source), part.boxes, request.select
    )
    return system, files.notes_of(request.topology) + notes
