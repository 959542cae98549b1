"""Frames of MDTraj behind those that a file has: XTC, DCD, PDB and H5.

Positions are in nm, times in ps. MDTraj writes a file of its own, whose frames are
added; no byte depends on when that was.
"""

import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from equijump.data.frames import ANGSTROM_PER_NM

_TITLE_BYTES = 80
_REMARK = b"REMARKS Written by equijump sample".ljust(_TITLE_BYTES)


def write_xtc(path: Path, _: Any, positions: Any, times: Any, first: int) -> None:
    """Adds frames, numbered from `first` on."""
    from mdtraj.formats import XTCTrajectoryFile

    box = np.zeros((len(positions), 3, 3), np.float32)
    steps = np.arange(first, first + len(positions), dtype=np.int32)

    def write(part: Path) -> None:
        with XTCTrajectoryFile(str(part), "w") as file:
            file.write(positions, times.astype(np.float32), steps, box)

    _append_bytes(path, _written(path, write))


def _write_dcd(path: Path, _: Any, positions: Any, times: Any, first: int) -> None:
    """Adds frames, their header left out, and then their number to the file's own."""
    from mdtraj.formats import DCDTrajectoryFile

    def write(part: Path) -> None:
        with DCDTrajectoryFile(str(part), "w") as file:
            file.write(positions * ANGSTROM_PER_NM)

    contents = _with_remark(_written(path, write))
    if first > 0:
        start = 0
        for _record in range(3):  # Of Fortran: sizes before and behind.
            start += 8 + struct.unpack_from("i", contents, start)[0]
        contents = contents[start:]
    _append_bytes(path, contents)
    with path.open("rb+") as file:
        set_dcd_count(file, first + len(positions))


def _with_remark(contents: bytes) -> bytes:
    """Returns a DCD file whose title has no date: equal rollouts are equal files."""
    place = contents.find(b"REMARKS Created")
    if place < 0:
        return contents
    return contents[:place] + _REMARK + contents[place + _TITLE_BYTES :]


def set_dcd_count(file: Any, num_frames: int) -> None:
    """Writes the number of frames and of steps into the header of a DCD file."""
    for place in (8, 20):
        file.seek(place)
        file.write(struct.pack("i", num_frames))


def _write_pdb(
    path: Path, topology: Any, positions: Any, times: Any, first: int
) -> None:
    """Adds models, without the lines that stand before and behind all of them."""
    from mdtraj.formats import PDBTrajectoryFile

    def write(part: Path) -> None:
        with PDBTrajectoryFile(str(part), "w") as file:
            for number, frame in enumerate(positions, start=first):
                file.write(frame * ANGSTROM_PER_NM, topology, number % 10_000)

    models = re.search(rb"^MODEL .*^ENDMDL\n", _written(path, write), re.M | re.S)
    _append_bytes(path, models.group())


def _write_h5(
    path: Path, topology: Any, positions: Any, times: Any, first: int
) -> None:
    from mdtraj.formats import HDF5TrajectoryFile

    with HDF5TrajectoryFile(str(path), "a" if first > 0 else "w") as file:
        file.write(positions, time=times)
        if first == 0:
            file.topology = topology


WRITERS: dict[str, Callable[..., None]] = {
    ".xtc": write_xtc,
    ".dcd": _write_dcd,
    ".h5": _write_h5,
    ".pdb": _write_pdb,
}


def _written(path: Path, write: Callable[[Path], None]) -> bytes:
    """Returns what MDTraj writes to a file of its own."""
    part = path.with_name(f".part{path.suffix}")
    try:
        write(part)
        return part.read_bytes()
    finally:
        part.unlink(missing_ok=True)


def _append_bytes(path: Path, contents: bytes) -> None:
    with path.open("ab") as file:
        file.write(contents)
