"""Frames of trajectories, packed once into memory-mapped arrays.

A packed file holds the kept heavy atoms in Å and float32, molecules made whole; it is
found by the SHA-256 of trajectory and topology, so that a file whose contents change
is packed anew.
"""

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from absl import logging
from jaxtyping import Float, Float32, Float64

from common.commands import cli
from common.errors import UsageError
from common.runs import cache
from equijump.data import files, images, molecules, whole
from equijump.data.files import ANGSTROM_PER_NM as ANGSTROM_PER_NM
from equijump.data.packed import PackedFrames, checksum_of
from equijump.data.times import FLAG, find_spacing
from equijump.data.topology import System, in_slot_order

LARGE = 100_000_000
"""Bytes of a trajectory from which packing is announced, since it takes a while."""

_VERSION = 2
"""Version of the packed form; a change that alters it raises it."""

_CHECKSUM_VERSION = 1
"""Version in checksums, by which runs know their data; it stays."""


Complete = Callable[[Any, Sequence[files.Frames], str, str], tuple[Any, Any, str]]
"""Function of topology, frames, source and selection that returns all but the third."""


class Trajectory(NamedTuple):
    """One trajectory at a constant spacing.

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
    """

    path: Path
    topology: Path
    spacing: float
    finite: bool
    in_slots: bool
    select: str
    flag: str


def read_trajectories(
    paths: Sequence[str | os.PathLike[str]],
    topology: str | os.PathLike[str],
    spacing: float = 0.0,
    finite: bool = True,
    in_slots: bool = False,
    select: str = "",
    flag: str = FLAG,
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

    Raises:
        UsageError: A file is missing, damaged or does not fit the topology, has no
            usable times, or a frame that is no molecule.
    """
    return tuple(
        _read_one(
            Request(Path(path), Path(topology), spacing, finite, in_slots, select, flag)
        )
        for path in paths
    )


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


def _read_one(request: Request) -> Trajectory:
    path = request.path
    for file in (path, request.topology):
        if not file.is_file():
            raise UsageError(f"expected a trajectory and its topology, found no {file}")
    checksum = _checksum(request)
    packed = Path("frames", f"{_VERSION}-{checksum}.f32")
    packed = cache.cache_folder(str(packed.with_suffix(".json"))) / packed
    described = packed.with_suffix(".json")
    if not described.is_file():
        if path.stat().st_size > LARGE:
            logging.info("packing %s", path)
        _pack(request, packed)
    record = json.loads(described.read_text("utf-8"))
    names = ("residue_names", "atom_names")
    columns = record["system"].items()
    arrays = {k: np.array(v, np.int32) for k, v in columns if k not in names}
    system = System(**arrays, **{k: tuple(v) for k, v in columns if k in names})
    molecules.tell(str(path), record["notes"])
    positions = PackedFrames(packed, record["num_frames"], len(system.kept))
    return Trajectory(path.name, system, positions, record["spacing"], checksum)


def _checksum(request: Request) -> str:
    """Returns the SHA-256 of trajectory, topology and what is read of them."""
    form = f"{_CHECKSUM_VERSION} {request.spacing}{'' if request.finite else ' any'}"
    form = f"{form} slots" if request.in_slots else form
    form = f"{form} {request.select}" if request.select else form
    key = hashlib.sha256(form.encode())
    for file in (request.path, request.topology):
        key.update(bytes.fromhex(checksum_of(file)))
    return key.hexdigest()


def _pack(request: Request, packed: Path) -> None:
    """Writes positions, then their description, without which they do not count."""
    files.prepare(request.path)
    topology = files.load_topology(request.topology)
    system, notes = _system_of(request, topology)
    system = in_slot_order(system) if request.in_slots else system
    with cli.atomic_path(packed) as partial, partial.open("wb") as file:
        times = _write_frames(request, topology, system, file)
        if len(times) < 2:
            raise UsageError(
                f"{request.path}: expected two frames or more, found {len(times)}; "
                "give a trajectory"
            )
        step = find_spacing(request.path, times, request.spacing, request.flag)
    values = {
        name: value.tolist() if isinstance(value, np.ndarray) else value
        for name, value in system._asdict().items()
    }
    record = {"num_frames": len(times), "spacing": step, "notes": notes}
    with cli.atomic_path(packed.with_suffix(".json")) as partial:
        partial.write_text(json.dumps({**record, "system": values}), "utf-8")


def _write_frames(
    request: Request, topology: Any, system: System, file: BinaryIO
) -> Float64[np.ndarray, " num_frames"]:
    """Writes positions as they are read, each frame checked, and returns the times."""
    bonds, source = whole.bonds_of(system), str(request.path)
    labels = images.molecules_of(system.bonds, len(system.kept))
    times: list[Float64[np.ndarray, " _"]] = [np.zeros(0)]
    last = None
    for part in files.iterate(request.path, topology):
        before = sum(map(len, times))
        kept = _make_whole(part, system, bonds)
        kept, last = images.together(kept, part.boxes, labels, last)
        if request.finite:
            has_box = part.boxes is not None
            whole.check(source, kept, bonds, system, before, has_box)
        elif before == 0:
            whole.check_unit(source, kept[0], bonds)
        file.write(kept.astype(np.float32).tobytes())
        times.append(part.times)
    return np.concatenate(times)


def _system_of(request: Request, topology: Any) -> tuple[System, list[str]]:
    """Reads residues, and bonds from the first frame or from the topology's own."""
    path, source = request.path, request.path
    if not request.finite and files.has_positions(request.topology):
        path = source = request.topology
    first, box = _first_of(files.first_frame(path, topology))
    system, notes = molecules.survey(topology, first, str(source), box, request.select)
    return system, files.notes_of(request.topology) + notes
