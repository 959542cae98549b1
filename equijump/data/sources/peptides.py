"""Packed sets of peptides: `SEQ.npz` beside `SEQ.pdb`, all lanes of a peptide in one.

Lanes are independent trajectories of one length. Positions are whole numbers times a
unit: differences from atom to atom in two bytes apart (`high`, `low`, `unit_nm`), or
plain `positions` in units of 1e-4 nm. Both are `[lane, frame, atom, 3]`, of the heavy
atoms in the order of the PDB file.
"""

from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path

import ml_collections
import numpy as np
from jaxtyping import Float32

from common.commands.reading import Header, read_arrays, refusing
from common.errors import UsageError
from equijump.data import divide, files, store
from equijump.data.frames import Trajectory
from equijump.data.sources import packing

PLAIN_UNIT = 1e-4
"""nm, unit of plain positions."""

_WHAT = "a packed set of peptides (high and low, or positions; spacing_ps)"
_STATED = ("spacing_ps", "temperature_K")


def read(pattern: str, data: ml_collections.ConfigDict) -> Iterator[Trajectory]:
    """Yields one trajectory for each lane of each file.

    Args:
        pattern: files, as `peptides/train/*/*.npz`, or a folder that has them.
        data: group `data` of a config: `select` is read.
    """
    found = packing.matching(pattern, (".npz",))
    yield from packing.trajectories("peptides", (_job(p, data.select) for p in found))


def _job(path: Path, select: str) -> packing.Job:
    topology = path.with_suffix(".pdb")
    if not topology.is_file():
        raise UsageError(
            f"{path}: expected its topology beside it, found no {topology}"
        )
    pack = partial(_pack, path, topology, select)
    return packing.Job(path, (topology,), select, pack)


def _pack(path: Path, topology: Path, select: str, writer: store.Writer) -> None:
    arrays = read_arrays(path, _WHAT, _choose)
    with refusing(path, _WHAT):
        positions = unpack(arrays)
        spacing = float(arrays["spacing_ps"])
        known = {"temperature": float(arrays["temperature_K"])}
        if not 0.0 < spacing < np.inf:
            raise ValueError(f"a spacing of {spacing:g} ps")
    loaded = files.load_topology(topology)
    if positions.shape[2] != loaded.n_atoms:
        raise UsageError(
            f"{path}: expected the {loaded.n_atoms} atoms of {topology.name}, found "
            f"{positions.shape[2]}"
        )
    system = packing.first_system(loaded, positions[0], str(path), select, writer)
    for lane, every in enumerate(positions):
        found = packing.add(writer, f"{path} (lane {lane})", system, [every])
        name = f"{path.stem}_{lane:02d}"
        writer.end(system, divide.pieces(name, spacing, found, known))


def _choose(headers: Mapping[str, Header]) -> Iterable[str]:
    """Returns the arrays to read, whose shapes and types are as they should be."""
    kinds = {"high": np.int8, "low": np.uint8}
    kinds = kinds if "high" in headers else {"positions": np.int16}
    for name, kind in kinds.items():
        found, other = headers[name], headers[next(iter(kinds))]
        is_whole = len(found.shape) == 4 and found.shape[3] == 3 and found.shape[1] > 1
        if found.dtype != kind or found.shape != other.shape or not is_whole:
            raise ValueError(f"{name} of shape {found.shape} and type {found.dtype}")
    return {*kinds, "unit_nm", *_STATED} & headers.keys()


def unpack(
    arrays: Mapping[str, np.ndarray],
) -> Float32[np.ndarray, "num_lanes num_frames num_atoms 3"]:
    """Returns the positions of all lanes, in Å.

    >>> steps = np.int16([[[[0, 0, 256], [2, 0, -1]]]])
    >>> high, low = (steps >> 8).astype(np.int8), (steps & 255).astype(np.uint8)
    >>> unpack({"high": high, "low": low, "unit_nm": np.array(0.1)})[0, 0].tolist()
    [[0.0, 0.0, 256.0], [2.0, 0.0, 255.0]]

    Args:
        arrays: arrays of a file, by their names.
    """
    scale = files.ANGSTROM_PER_NM
    if "positions" in arrays:
        return arrays["positions"] * np.float32(PLAIN_UNIT * scale)
    steps = arrays["high"].astype(np.int16) << 8 | arrays["low"]
    counts = np.cumsum(steps, axis=2, dtype=np.int32).astype(np.float32)
    return counts * np.float32(float(arrays["unit_nm"]) * scale)
