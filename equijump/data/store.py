"""The store: trajectories packed once into shards, found by checksums, read on demand.

What is packed of one file, or of one group in it, is an entry: trajectories, notes and
what was left out. Systems are kept once, whoever has them.
"""

import functools
import hashlib
import itertools
import json
import os
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from absl import logging
from jaxtyping import Float64

from common.commands.reading import DAMAGE
from equijump.data import shards
from equijump.data.packed import PackedFrames
from equijump.data.topology import System

_PROGRESS = 500
"""Packed files from one line of the log to the next."""

_SETTLED = 2.0
"""Seconds after a change from which another one shows in the time of change."""


class Piece(NamedTuple):
    """Frames that make one trajectory.

    Attributes:
        name: name of the trajectory.
        spacing: time between frames, in ps; the median where there are `times`.
        start: first frame of those that were added since the piece before.
        stop: one past the last frame; all that follow where None.
        times: time of each frame in ps, where the spacing is not constant.
        conditions: numbers that hold for all frames.
    """

    name: str
    spacing: float
    start: int = 0
    stop: int | None = None
    times: Float64[np.ndarray, " num_frames"] | None = None
    conditions: Mapping[str, float] = {}


class Stored(NamedTuple):
    """A trajectory as the store has it; see `equijump.data.frames.Trajectory`."""

    name: str
    system: System
    positions: PackedFrames
    spacing: float
    conditions: Mapping[str, float]
    times: Float64[np.ndarray, " num_frames"] | None


class Entry(NamedTuple):
    """What is packed of one file, or of one group in it.

    Attributes:
        trajectories: trajectories, none where all was left out.
        notes: what is to be known of them.
        skipped: how many of what was left out, by the reason in words.
    """

    trajectories: tuple[Stored, ...]
    notes: tuple[str, ...]
    skipped: Mapping[str, int]


class Writer:
    """Takes the frames of a file and what is to be known of them.

    Attributes:
        notes: lines that are told once.
        skipped: how many of what is left out, by the reason.
    """

    def __init__(self, shard: shards.Appender) -> None:
        self.notes: list[str] = []
        self.skipped: Counter[str] = Counter()
        self._shard, self._described = shard, []
        self._start, self._num_frames = shard.align(), 0

    def add(self, positions: np.ndarray) -> None:
        """Appends frames `[num_frames, num_atoms, 3]` of kept atoms, in Å."""
        self._shard.write(positions.astype(np.float32, copy=False))
        self._num_frames += len(positions)

    def end(self, system: System, pieces: Sequence[Piece]) -> None:
        """Makes trajectories of what was added since the last call.

        Args:
            system: system of all of them.
            pieces: stretches of the frames; the others are left out.
        """
        start, count = self._start, self._num_frames
        for piece in pieces:
            frames = range(count)[piece.start : piece.stop]
            place = start + 12 * len(system.kept) * frames.start
            times = None if piece.times is None else self._array(piece.times)
            self._described.append({
                "name": piece.name, "spacing": piece.spacing, "place": place,
                "shape": [len(frames), len(system.kept)], "times": times,
                "conditions": dict(piece.conditions), "system": self._system(system),
            })  # fmt: skip
        self._start, self._num_frames = self._shard.align(), 0

    def _array(self, times: np.ndarray) -> int:
        place = self._shard.align()
        self._shard.write(times.astype(np.float64))
        return place

    def _system(self, system: System) -> str:
        """Writes a system unless the store has it, and returns its key."""
        numbers, names = _encode(system)
        key = hashlib.sha256(numbers.tobytes() + names).hexdigest()
        if not _has_system(key):
            place = self._shard.align()
            self._shard.write(numbers)
            self._shard.write(np.frombuffer(names, np.uint8))
            counts = {
                "sizes": [*system.slot_atoms.shape, len(system.bonds)],
                "num_atoms": len(system.kept), "num_bytes": len(names),
            }  # fmt: skip
            self._shard.record("system", key, {"place": place, **counts})
        return key

    def record(self, key: str) -> None:
        """Makes all that was ended an entry."""
        found = {"trajectories": self._described, "notes": self.notes}
        self._shard.record("entry", key, {**found, "skipped": dict(+self.skipped)})


def entry(key: str, pack: Callable[[Writer], None]) -> Entry:
    """Returns the entry of a key, packed by a function if the store lacks it.

    Where the function raises, nothing is kept.

    Args:
        key: checksum of all that decides the entry.
        pack: function that writes it.
    """
    found = _read_entry(key) or _read_entry(key, again=True)
    if found is None:
        with shards.appending() as shard:
            writer = Writer(shard)
            pack(writer)
            writer.record(key)
        _tell_progress()
        found = _read_entry(key, again=True)
    return found


_num_packed = itertools.count(1)


def _tell_progress() -> None:
    """Logs now and then how many files were packed by this process."""
    number = next(_num_packed)
    if number % _PROGRESS == 0:
        logging.info("packed %d files; a later start finds them at once", number)


def _read_entry(key: str, again: bool = False) -> Entry | None:
    """Returns the entry of a key, None where there is none, or a damaged one."""
    record = shards.find("entry", key, again)
    if record is None:
        return None
    values = record.values
    try:
        stored = tuple(_stored(record.pack, one) for one in values["trajectories"])
        return Entry(stored, tuple(values["notes"]), values["skipped"])
    except DAMAGE:
        return None


def _stored(pack: Path, values: Mapping[str, Any]) -> Stored:
    num_frames, num_atoms = values["shape"]
    times = None
    if values["times"] is not None:
        times = _mapped(pack, values["times"], 8 * num_frames).view(np.float64)
    return Stored(
        values["name"],
        _system_of(values["system"]),
        PackedFrames(pack, num_frames, num_atoms, values["place"]),
        values["spacing"],
        values["conditions"],
        times,
    )


_maps: dict[Path, np.memmap] = {}
"""Whole shards, of which the times are parts: one descriptor for all of them."""


def _mapped(pack: Path, place: int, num_bytes: int) -> np.ndarray:
    if len(_maps.get(pack, ())) < place + num_bytes:
        _maps[pack] = np.memmap(pack, np.uint8, "r")
    return _maps[pack][place : place + num_bytes]


def _encode(system: System) -> tuple[np.ndarray, bytes]:
    """Returns a system as numbers and as text."""
    columns = [v.ravel() for v in system if isinstance(v, np.ndarray)]
    names = [list(system.residue_names), list(system.atom_names)]
    return np.concatenate(columns).astype(np.int32), json.dumps(names).encode()


@functools.cache
def _loaded(pack: Path, text: str) -> System:
    values = json.loads(text)
    num_nodes, num_slots, num_bonds = values["sizes"]
    shapes = {
        "tokens": (num_nodes,), "chains": (num_nodes,), "numbers": (num_nodes,),
        "slot_atoms": (num_nodes, num_slots), "bonds": (num_bonds, 2),
        "kept": (values["num_atoms"],),
    }  # fmt: skip
    ends = np.cumsum([np.prod(shape) for shape in shapes.values()])
    with pack.open("rb") as file:
        file.seek(values["place"])
        numbers = np.fromfile(file, np.int32, int(ends[-1]))
        residue_names, atom_names = json.loads(file.read(values["num_bytes"]))
    parts = np.split(numbers, ends[:-1])
    arrays = {n: p.reshape(s) for (n, s), p in zip(shapes.items(), parts, strict=True)}
    return System(
        **arrays, residue_names=tuple(residue_names), atom_names=tuple(atom_names)
    )


def _system_of(key: str) -> System:
    """Returns a system; all that have it share it."""
    record = shards.find("system", key)
    if record is None:
        raise LookupError(key)
    return _loaded(*record)


def _has_system(key: str) -> bool:
    try:
        return bool(_system_of(key))
    except DAMAGE:
        return False


def checksum_of(path: Path) -> str:
    """Returns the SHA-256 of a file, of an unchanged one without reading it again.

    The store has it under the file's absolute path, with size and time of change.
    """
    status = path.stat()
    known = [status.st_size, status.st_mtime_ns]
    key = hashlib.sha256(os.path.abspath(path).encode()).hexdigest()
    record = shards.find("file", key)
    values = {} if record is None else record.values
    if values.get("known") == known and isinstance(values.get("sha256"), str):
        return values["sha256"]
    with path.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    if time.time() - status.st_mtime > _SETTLED:
        with shards.appending() as shard:
            shard.record("file", key, {"known": known, "sha256": digest})
    return digest
