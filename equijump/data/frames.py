"""Frames of trajectories as MDTraj reads them, packed once into memory-mapped arrays.

A packed file holds the kept heavy atoms in Å and float32; it is found by the SHA-256 of
trajectory and topology, so that a file whose contents change is packed anew.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from absl import logging
from jaxtyping import Float, Float32

from common.commands import cli
from common.errors import UsageError
from common.runs import cache
from equijump.data.packed import PackedFrames, checksum_of
from equijump.data.topology import System, in_slot_order, read_system

ANGSTROM_PER_NM = 10.0
CHUNK = 20_000
"""Frames in memory at once while a trajectory is packed."""

LARGE = 100_000_000
"""Bytes of a trajectory from which packing is announced, since it takes a while."""

_VERSION = 1  # of the packed form; one that alters it raises it
_WITHOUT_TIMES = frozenset((".dcd", ".pdb", ".pdb.gz", ".mdcrd", ".crd"))
_WITHOUT_TOPOLOGY = frozenset(
    (".xtc", ".trr", ".dcd", ".nc", ".ncdf", ".netcdf", ".mdcrd", ".crd")
)


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
    """

    name: str
    system: System
    positions: PackedFrames | Float[np.ndarray, "num_frames num_atoms 3"]
    spacing: float
    checksum: str
    conditions: Mapping[str, float] = MappingProxyType({})


def read_trajectories(
    paths: Sequence[str | os.PathLike[str]],
    topology: str | os.PathLike[str],
    spacing: float = 0.0,
    finite: bool = True,
    in_slots: bool = False,
) -> tuple[Trajectory, ...]:
    """Reads trajectories of one topology, from the user's cache if seen before.

    Args:
        paths: files that MDTraj reads: XTC, DCD, H5, NetCDF, multi-model PDB.
        topology: file that MDTraj reads a topology from, of the same atoms.
        spacing: time between frames in ps, for formats that keep no times (DCD, PDB);
            0 reads them from the file.
        finite: true if a position that is not finite is an error. Where it is not,
            bonds are read from the positions of the topology's file, since the first
            frame may be one of the broken ones.
        in_slots: true for atoms in the order of slots, not in that of the file.

    Raises:
        UsageError: A file is missing or does not fit the topology, has no usable times,
            or a position is not finite.
    """
    return tuple(
        _read_one(Path(path), Path(topology), spacing, finite, in_slots)
        for path in paths
    )


def read_structures(
    path: str | os.PathLike[str], topology: str | os.PathLike[str] | None, at_most: int
) -> tuple[System, Float32[np.ndarray, "num_frames num_atoms 3"]]:
    """Reads the kept atoms of the first frames of a file, in Å.

    Args:
        path: file of a structure or a trajectory.
        topology: topology of a trajectory whose file has none.
        at_most: largest number of frames that are read.

    Raises:
        UsageError: The file cannot be read, or a position is not finite.
    """
    path = described = Path(path)
    if path.suffix.lower() in _WITHOUT_TOPOLOGY:
        if topology is None:
            raise UsageError(f"{path}: expected --topology beside a {path.suffix} file")
        described = Path(topology)
    for file in (path, described):
        if not file.is_file():
            raise UsageError(f"expected a structure, found no {file}")
    loaded = load_topology(described)
    chunk = next(iterate(path, loaded, min(at_most, CHUNK)), None)
    if chunk is None:
        raise UsageError(f"{path}: expected a frame, found none")
    return from_mdtraj(chunk, str(path), at_most)


def from_mdtraj(
    trajectory: Any, source: str, at_most: int
) -> tuple[System, Float32[np.ndarray, "num_frames num_atoms 3"]]:
    """Returns the kept atoms of the first frames of a trajectory of MDTraj, in Å."""
    positions = trajectory.xyz[:at_most] * np.float32(ANGSTROM_PER_NM)
    if not np.isfinite(positions).all():
        raise UsageError(f"{source}: expected finite positions, found others")
    first = positions[0].astype(np.float64)
    system = read_system(trajectory.topology, first, source)
    return system, positions[:, system.kept]


def _read_one(
    path: Path, topology: Path, spacing: float, finite: bool, in_slots: bool
) -> Trajectory:
    for file in (path, topology):
        if not file.is_file():
            raise UsageError(f"expected a trajectory and its topology, found no {file}")
    form = f"{_VERSION} {spacing}{'' if finite else ' any'}"
    key = hashlib.sha256((f"{form} slots" if in_slots else form).encode())
    for file in (path, topology):
        key.update(bytes.fromhex(checksum_of(file)))
    packed = Path("frames", f"{key.hexdigest()}.f32")
    packed = cache.cache_folder(str(packed.with_suffix(".json"))) / packed
    described = packed.with_suffix(".json")
    if not described.is_file():
        if path.stat().st_size > LARGE:
            logging.info("packing %s", path)
        _pack(path, topology, spacing, finite, in_slots, packed)
    record = json.loads(described.read_text("utf-8"))
    names = ("residue_names", "atom_names")
    columns = record["system"].items()
    arrays = {k: np.array(v, np.int32) for k, v in columns if k not in names}
    system = System(**arrays, **{k: tuple(v) for k, v in columns if k in names})
    positions = PackedFrames(packed, record["num_frames"], len(system.kept))
    return Trajectory(path.name, system, positions, record["spacing"], key.hexdigest())


def _pack(
    path: Path,
    topology: Path,
    spacing: float,
    finite: bool,
    in_slots: bool,
    packed: Path,
) -> None:
    """Writes positions, then their description, without which they do not count."""
    system = _system_of(path, topology, finite)
    system = in_slot_order(system) if in_slots else system
    times: list[Float[np.ndarray, " _"]] = []
    with cli.atomic_path(packed) as partial, partial.open("wb") as file:
        for chunk in iterate(path, load_topology(topology)):
            kept = chunk.xyz[:, system.kept] * np.float32(ANGSTROM_PER_NM)
            if finite:
                _check_finite(path, kept, sum(map(len, times)))
            file.write(kept.astype(np.float32).tobytes())
            times.append(np.asarray(chunk.time, np.float64))
        num_frames = sum(map(len, times))
        if num_frames < 2:
            raise UsageError(f"{path}: expected two frames or more, found {num_frames}")
        step = find_spacing(path, np.concatenate(times), spacing)
    values = {
        name: value.tolist() if isinstance(value, np.ndarray) else value
        for name, value in system._asdict().items()
    }
    record = {"num_frames": num_frames, "spacing": step, "system": values}
    with cli.atomic_path(packed.with_suffix(".json")) as partial:
        partial.write_text(json.dumps(record), "utf-8")


def _system_of(path: Path, topology: Path, finite: bool) -> System:
    """Reads residues, and bonds from the first frame or from the topology's own."""
    loaded = load_topology(topology)
    frame = next(iterate(path, loaded, 1), None) if finite else first_frame(topology)
    if frame is None:
        raise UsageError(f"{path}: expected two frames or more, found 0")
    first = frame.xyz[0].astype(np.float64) * ANGSTROM_PER_NM
    return read_system(loaded, first, str(topology))


def _check_finite(
    path: Path, positions: Float[np.ndarray, "_ num_atoms 3"], before: int
) -> None:
    """Raises `UsageError` for a position that is not finite, after so many frames."""
    bad = ~np.isfinite(positions).all(axis=(1, 2))
    if bad.any():
        raise UsageError(
            f"{path}: expected finite positions, found others in frame "
            f"{before + int(np.argmax(bad))}, counted from 0"
        )


def load_topology(path: Path) -> Any:
    """Returns the topology of a file, as MDTraj reads it."""
    import mdtraj

    try:
        return mdtraj.load_topology(str(path))
    except Exception as error:  # MDTraj's readers raise whatever their format does.
        raise UsageError(
            f"{path}: expected a topology that MDTraj reads, found {_short(error)}"
        ) from error


def first_frame(path: Path) -> Any:
    """Returns the first frame of a file that holds topology and positions."""
    import mdtraj

    try:
        return mdtraj.load_frame(str(path), 0)
    except Exception as error:  # As above.
        raise UsageError(
            f"{path}: expected a topology with positions, found {_short(error)}"
        ) from error


def iterate(path: Path, topology: Any, chunk: int = CHUNK) -> Iterator[Any]:
    """Yields a trajectory in chunks of so many frames."""
    import mdtraj

    try:
        yield from mdtraj.iterload(str(path), top=topology, chunk=chunk)
    except Exception as error:
        raise UsageError(
            f"{path}: expected a trajectory of the {topology.n_atoms} atoms of its "
            f"topology, found {_short(error)}"
        ) from error


def _short(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def find_spacing(
    path: Path, times: Float[np.ndarray, " num_frames"], given: float = 0.0
) -> float:
    """Returns the time between frames in ps, given or read.

    Formats keep times in single precision, so that a time may be away from where it is
    expected by 1 % of a step, or by two units in its last place.

    >>> times = np.float32([3.0, 3.1, 3.2, 3.3]).astype(float)
    >>> round(find_spacing(Path("run.xtc"), times), 6)
    0.1

    Args:
        path: file, for the messages of errors.
        times: time of each frame in ps.
        given: time between frames in ps where the user gave it, else 0.

    Raises:
        UsageError: The format keeps no times, or they are not evenly spaced.
    """
    if given > 0.0:
        return given
    if path.suffix.lower() in _WITHOUT_TIMES:
        raise UsageError(
            f"{path}: expected the time between frames, which {path.suffix} files do "
            "not keep: give it in ps"
        )
    step = float(times[-1] - times[0]) / (len(times) - 1)
    steps = np.diff(times)
    last_place = np.spacing(np.abs(times).astype(np.float32)).astype(np.float64)
    slack = np.maximum(0.01 * step, 2.0 * last_place)
    early = np.abs(times - (times[0] + step * np.arange(len(times)))) > slack
    uneven = np.abs(steps - step) > slack[1:]
    if not step > 0.0 or early.any() or uneven.any():
        usual = float(np.median(steps))
        where = int(np.argmax(np.abs(steps - usual)))
        raise UsageError(
            f"{path}: expected frames at one spacing, found {steps[where]:g} ps after "
            f"frame {where} and {usual:g} ps elsewhere"
        )
    return step
